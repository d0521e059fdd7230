"""An ASGI server with one request.

Its ``send`` may be a coroutine function or a plain one, may take its time, and may raise:
when it is awaited, or when it is called.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from random import Random
from typing import TYPE_CHECKING
from urllib.parse import unquote

from simulation.clients import GoneError

if TYPE_CHECKING:
    from budgetware.asgi import Message, Scope, Send
    from simulation.clients import Request
    from simulation.world import World


class Server:
    """One request at a server.

    Args:
        request: The request.
        rng: Draws how the server behaves.
        world: Where it happens.

    Attributes:
        request: The request.
        taken: What its ``send`` was given and did not refuse at once, in order.
        raised: What its ``send`` has raised.
        has_left: Whether the client has gone without all it came for.
        has_raised_at_once: Whether ``send`` has raised when it was called.
        began_s: When the response began.

    """

    def __init__(self, request: Request, rng: Random, world: World) -> None:
        self.request = request
        self._note = world.noter(f"server {request.number}")
        self._spec = rng.choice(("2.0", "2.3", "2.4"))
        self._breaks_at = rng.randint(0, 3) if rng.random() < 0.1 else None
        self._is_plain = rng.random() < 0.5
        self._at_once = self._is_plain and rng.random() < 0.7
        self._calls = 0
        self._parts = list(request.upload)
        self._asked = False
        self._leaving = asyncio.Event()
        self.has_left = self.has_raised_at_once = False
        self.taken: list[Message] = []
        self.raised: list[BaseException] = []
        self.began_s = 0.0

    def scope(self) -> Scope:
        """Return the scope of the request."""
        request = self.request
        state = {} if request.tier is None else {"budgetware.tier": request.tier}
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": self._spec},
            "http_version": "1.1",
            "method": request.method,
            "scheme": "http",
            "path": unquote(request.path),
            "raw_path": request.path.encode(),
            "query_string": request.query.encode(),
            "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in request.headers],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "state": state,
            # Under a name of ours, which says nothing of the caller.
            "budgetware.state": {"number": request.number, "who": request.who},
        }

    async def receive(self) -> Message:
        """Give the next part of the request's body, and then only the client's leaving."""
        if self._parts and not self._leaving.is_set():
            wait_s, part = self._parts[0]
            try:
                async with asyncio.timeout(wait_s or None):
                    if wait_s:
                        await self._leaving.wait()
            except TimeoutError:
                pass
            if not self._leaving.is_set():
                self._parts.pop(0)
                more = bool(self._parts)
                return {"type": "http.request", "body": part, "more_body": more}
        elif not self._asked and not self.request.upload and not self._leaving.is_set():
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._leaving.wait()
        return {"type": "http.disconnect"}

    @property
    def send(self) -> Send:
        """What the application is given to send with."""
        return self._send_plainly if self._is_plain else self._send

    def leave(self) -> None:
        """Let the client be gone."""
        if not self._leaving.is_set():
            self._note("its client leaves")
            self.has_left = True
            self._leaving.set()

    def _send_plainly(self, message: Message) -> Awaitable[None]:
        error = self._refusal()
        if error is not None and self._at_once:
            self._note(f"send raises when it is called with {_told(message)}")
            self.has_raised_at_once = True
            raise error
        return self._taking(message, error)

    async def _send(self, message: Message) -> None:
        await self._taking(message, self._refusal())

    def _refusal(self) -> GoneError | None:
        self._calls += 1
        breaks = self._breaks_at is not None and self._calls > self._breaks_at
        if not breaks and not (self.has_left and self._spec == "2.4"):
            return None
        error = GoneError(f"connection {self.request.number} is gone")
        self.raised.append(error)
        return error

    async def _taking(self, message: Message, error: GoneError | None) -> None:
        if error is not None:
            self._note(f"send raises over {_told(message)}")
            raise error
        self._note(f"is sent {_told(message)}")
        if not self.taken:
            self.began_s = asyncio.get_running_loop().time()
        self.taken.append(message)
        if message["type"] == "http.response.body":
            if not message.get("more_body", False):
                self._leaving.set()
            if self.request.reads_s:
                await asyncio.sleep(self.request.reads_s)


def _told(message: Message) -> str:
    if message["type"] == "http.response.start":
        kind = dict(message["headers"]).get(b"budgetware-answer", b"full").decode()
        return f"the start of a {kind} response, {message['status']}"
    more = ", and there is more" if message.get("more_body") else ""
    return f"{message.get('body', b'').decode('utf-8', 'replace')!r}{more}"
