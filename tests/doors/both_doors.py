"""One client of one application, behind either door, on a time of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from tests.doors.steered_play import POLICY, Play
from tests.doors.wsgi_steered_play import Stand

from budgetware._core.policy import Policy
from budgetware.wsgi import StartResponse


class Asked(NamedTuple):
    """A request as the application sees it."""

    method: str
    path: str
    headers: Mapping[str, str]


class Made(NamedTuple):
    """What the application does with one: it works for so long, and then responds."""

    seconds: float = 0.0
    status: int = 200
    body: str = "full"


class Reply(NamedTuple):
    """What the client gets, so many seconds after it has asked."""

    status: int
    headers: dict[str, str]
    body: bytes
    after_s: float

    @property
    def kind(self) -> str | None:
        """Which smaller answer it is, ``None`` for the full one."""
        return self.headers.get("budgetware-answer")


App = Callable[[Asked], Made]


class Asgi:
    """The client of an ASGI application that gives way to others while it works."""

    def __init__(self, app: App, policy: Policy = POLICY, **options: Any) -> None:
        async def endpoint(request: Request) -> Response:
            made = app(Asked(request.method, request.url.path, request.headers))
            await asyncio.sleep(made.seconds)
            self.done += 1
            return PlainTextResponse(made.body, made.status)

        self.done = 0
        self.play = Play(endpoint, policy=policy, **options)
        self.time, self.door = self.play.time, self.play.door

    def ask(self, method: str = "GET", path: str = "/signals", **headers: str) -> Reply:
        """Send one request, and wait until the application is done with it."""
        lines = [
            (name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()
        ]
        answered = self.play.ask(method, path=path, raw_path=path.encode(), headers=lines)
        start = answered.messages[0]
        told = {name.decode(): value.decode() for name, value in start["headers"]}
        return Reply(start["status"], told, answered.body, answered.at_s[-1])

    @property
    def outcomes(self) -> dict[str, int]:
        """How many requests ended how."""
        return _outcomes(self.door)

    def check(self) -> None:
        """Make sure that nothing failed and nobody is left in flight."""
        self.play.check()


class Wsgi:
    """The client of a WSGI application, whose work is time that passes."""

    def __init__(self, app: App, policy: Policy = POLICY, **options: Any) -> None:
        def application(env: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
            headers = {
                key[5:].lower().replace("_", "-"): value
                for key, value in env.items()
                if key.startswith("HTTP_")
            }
            made = app(Asked(env["REQUEST_METHOD"], env["PATH_INFO"], headers))
            self.time.now += made.seconds
            self.done += 1
            start_response(f"{made.status} x", [("Content-Type", "text/plain")])
            return [made.body.encode()]

        self.done = 0
        self.stand = Stand(application, policy=policy, **options)
        self.time, self.door = self.stand.time, self.stand.door

    def ask(self, method: str = "GET", path: str = "/signals", **headers: str) -> Reply:
        """Send one request."""
        began_s = self.time.now
        fields: dict[str, Any] = {f"HTTP_{name.upper()}": value for name, value in headers.items()}
        got = self.stand.ask(path, method, **fields)
        told = {name.lower(): value for name, value in got.headers.items()}
        return Reply(int(got.status[:3]), told, got.body, self.time.now - began_s)

    @property
    def outcomes(self) -> dict[str, int]:
        """How many requests ended how."""
        return _outcomes(self.door)

    def check(self) -> None:
        """Make sure that nothing failed and nobody is left in flight."""
        self.stand.check()


def _outcomes(door: Any) -> dict[str, int]:
    tally = door._engine.tally
    tally.absorb()
    counts: dict[str, int] = {}
    for series in tally.requests.values():
        for outcome, count in series.outcomes.items():
            counts[outcome] = counts.get(outcome, 0) + count
    return {outcome: count for outcome, count in counts.items() if count}


def decisions(client: Asgi | Wsgi) -> dict[tuple[str, str], int]:
    """Return how often what was decided, and why."""
    counts: dict[tuple[str, str], int] = {}
    for (_, _, _, action, reason), count in client.door._engine.tally.decisions.items():
        key = (action.value, str(reason))
        counts[key] = counts.get(key, 0) + count
    return counts


Door = type[Asgi] | type[Wsgi]
DOORS = pytest.mark.parametrize("door", [Asgi, Wsgi])
