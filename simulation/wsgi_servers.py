"""A WSGI server with one request.

It does what PEP 3333 asks of it, at the pace of its client; the client may leave while it
sends or while it is sent something, and the worker may be told to exit at any time.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from math import inf
from random import Random
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote
from wsgiref.util import FileWrapper

from budgetware._core.current import current_budget
from simulation.clients import GoneError

if TYPE_CHECKING:
    from budgetware.wsgi import Environ, WSGIApp
    from simulation.clients import Request
    from simulation.threads import Threads
    from simulation.world import World


class Server:
    """One request at a server.

    Args:
        request: The request.
        threads: Those of the world.
        rng: Draws how the server behaves.
        world: Where it happens.

    Attributes:
        starts: The status and the fields of each start of a response, and whether it replaced one.
        parts: What was sent.
        raised: What it has raised.
        is_whole: Whether the response was sent to its end.
        began_s: When the response began, by the clock of the world.

    """

    def __init__(self, request: Request, threads: Threads, rng: Random, world: World) -> None:
        self.request = request
        self._threads = threads
        self._now = world.time
        self._note = world.noter(f"server {request.number}")
        self._fails = world.fails
        stays_s = inf if request.leaves_after_s is None else request.leaves_after_s
        self._leaves_at = self._now() + stays_s
        self._breaks = rng.random() < 0.05
        self.starts: list[tuple[str, list[tuple[str, str]], bool]] = []
        self.parts: list[bytes] = []
        self.raised: list[BaseException] = []
        self.is_whole = False
        self.began_s = 0.0

    @property
    def has_left(self) -> bool:
        """Whether the client is gone."""
        return self._now() >= self._leaves_at

    def environ(self) -> Environ:
        """Return the environ of the request."""
        request = self.request
        environ: Environ = {
            "REQUEST_METHOD": request.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote(request.path, encoding="latin-1"),
            "QUERY_STRING": request.query,
            "SERVER_NAME": "service",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "RAW_URI": request.url,
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": Input(self, request.upload),
            "wsgi.errors": io.StringIO(),
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            "wsgi.file_wrapper": FileWrapper,
            "budgetware.state": {"number": request.number, "who": request.who},
        }
        if request.tier is not None:
            environ["budgetware.tier"] = request.tier
        for name, value in request.headers:
            key = name.upper().replace("-", "_")
            environ[key if key == "CONTENT_LENGTH" else f"HTTP_{key}"] = value
        return environ

    def serve(self, app: WSGIApp) -> None:
        """Serve the request.

        Raises:
            BaseException: What the application, or the door, has raised.

        """
        body = app(self.environ(), self.start_response)
        self._look("the call")
        try:
            for part in body:
                self._look("a step")
                self._take(part)
            self.is_whole = bool(self.starts)
        finally:
            close = getattr(body, "close", None)
            if close is not None:
                try:
                    close()
                finally:
                    self._look("the end")

    def _look(self, after: str) -> None:
        if current_budget.get() is not None:
            self._fails("context", f"a budget is current after {after} of {self.request.number}")

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        """Begin the response, or another in its place."""
        if exc_info is not None and self.parts:
            raise exc_info[1].with_traceback(exc_info[2])
        kind = dict(headers).get("budgetware-answer", "full")
        self._note(f"is sent the start of a {kind} response, {status}")
        if not self.starts:
            self.began_s = self._now()
        self.starts.append((status, list(headers), exc_info is not None))
        return self._take

    def wait(self, seconds: float) -> None:
        """Wait for the client.

        Raises:
            GoneError: It is gone.

        """
        self._threads.sleep(min(seconds, max(0.0, self._leaves_at - self._now())))
        if self.has_left:
            self._refuse()

    def _take(self, part: bytes) -> None:
        if self._breaks or self.has_left:
            self._refuse()
        if part:
            self._note(f"is sent {part.decode('utf-8', 'replace')!r}")
            self.parts.append(part)
        if self.request.reads_s:
            self.wait(self.request.reads_s)

    def _refuse(self) -> None:
        self._note("has nobody to send anything to")
        error = GoneError(f"connection {self.request.number} is gone")
        self.raised.append(error)
        raise error


class Input:
    """The body of a request, which comes as its client sends it.

    Args:
        server: The request's server.
        parts: What comes, and how long each part takes.

    """

    def __init__(self, server: Server, parts: list[tuple[float, bytes]]) -> None:
        self._server = server
        self._parts = list(parts)

    def read(self, _: int = -1) -> bytes:
        """Return the next part."""
        if not self._parts:
            return b""
        wait_s, part = self._parts.pop(0)
        if wait_s:
            self._server.wait(wait_s)
        return part

    def __iter__(self) -> Iterator[bytes]:
        while part := self.read():
            yield part
