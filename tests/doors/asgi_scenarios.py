"""ASGI exchanges that between them take every way through budgetware."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from tests.doors.asgi_play import BODY, LAST, START, Clock, Wire, http

from budgetware import budget
from budgetware.asgi import ASGIApp, Message, Receive, Scope, Send

PART: Message = {"type": "http.response.body", "body": b"part", "more_body": True}
TRAILERS: Message = {"type": "http.response.trailers", "headers": [(b"a", b"b")]}
UPLOAD: list[Message] = [{"type": "http.request", "body": b"x", "more_body": True}, BODY]


class Play:
    """One exchange: what the application does, and what the server sees of it.

    Args:
        sends: What the application sends.
        error: What it raises in the end.
        method: The request's method.
        incoming: The request's body.
        openings: How many stages are opened before anything is sent.
        late: Seconds the application takes.
        stages: Whether any stage is opened at all.

    """

    def __init__(  # noqa: PLR0913 - a table of scenarios needs its columns
        self,
        sends: list[Message],
        error: BaseException | None = None,
        *,
        method: str = "GET",
        incoming: list[Message] | None = None,
        openings: int = 1,
        late: float = 0.0,
        stages: bool = True,
        path: str = "/signals/x",
    ) -> None:
        self._sends = sends
        self._error = error
        self._method = method
        self._path = path
        self._incoming = [BODY] if incoming is None else incoming
        self._openings = openings if stages else 0
        self._late = late
        self.tier: object = "free"
        self.clock = Clock()

    async def app(self, scope: Scope, receive: Receive, send: Send) -> object:
        """Be the application."""
        for message in self._incoming:
            assert await receive() is message
        for _ in range(self._openings):
            with budget.stage("db", "select"):
                pass
        if self._openings:
            budget.tier = "free"
            with budget.stage("ml"):
                self.clock.now += self._late
        for message in self._sends:
            await send(message)
        if self._error is not None:
            raise self._error
        return self

    def bare(self) -> object:
        """Play it without a door."""
        return self.run(self.app)

    def run(self, app: ASGIApp) -> object:
        """Play it; return all that the server sees."""
        wire = Wire(self._incoming)
        scope = http(self._method, self._path, state={"budgetware.tier": self.tier})
        outcome: object = None
        try:
            outcome = wire.run(app, scope) is self
        except BaseException as error:  # noqa: BLE001 - every error is part of it
            outcome = error is self._error, error.__cause__, error.__context__
        return outcome, [_plain(message) for message in wire.sent], len(wire.received)


def _plain(message: Message) -> Message:
    headers = [one for one in message.get("headers", ()) if one[0] != b"server-timing"]
    return {**message, "headers": headers}


def _scenario(*args: Any, **more: Any) -> Callable[..., Play]:
    return lambda **options: Play(*args, **{**more, **options})


SCENARIOS: dict[str, Callable[..., Play]] = {
    "plain": _scenario([START, LAST]),
    "unmatched": _scenario([START, LAST], path="/no/where"),
    "late": _scenario([START, LAST], late=10.0),
    "upload": _scenario([START, LAST], method="POST", incoming=UPLOAD),
    "stream": _scenario([START, PART, PART, LAST]),
    "trailers": _scenario([{**START, "trailers": True}, LAST, TRAILERS]),
    "file": _scenario([START, {"type": "http.response.pathsend", "path": "/x"}]),
    "failed": _scenario([{**START, "status": 500}, LAST], late=10.0),
    "raises": _scenario([], ValueError("v")),
    "raises in the middle": _scenario([START, PART], ValueError("v"), late=10.0),
    "raises at the end": _scenario([START, LAST], ValueError("v")),
    "cancelled": _scenario([], asyncio.CancelledError()),
    "says nothing": _scenario([]),
    "ends early": _scenario([START, PART]),
    "leaves": _scenario([], method="POST", incoming=[UPLOAD[0], {"type": "http.disconnect"}]),
    "many stages": _scenario([START, LAST], openings=300, late=10.0),
}
