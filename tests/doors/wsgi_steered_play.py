"""Plays clients of a WSGI service that answers in time, on a time of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from tests.doors.steered_play import POLICY, SIGNALS
from tests.doors.virtual_time import Time
from tests.doors.wsgi_play import Wire, environ

from budgetware import budget
from budgetware._core.policy import Mode, Policy, Route
from budgetware._core.record import RequestRecord
from budgetware.wsgi import BudgetMiddleware, StartResponse, WSGIApp

HEADERS = [("Content-Type", "text/plain")]


@dataclass
class Got:
    """What one client got, and its server.

    Attributes:
        status: The status line.
        headers: By name.
        body: The whole body.
        length: What ``len()`` of the body was, ``None`` when it had none.
        is_file: Whether the server was given its own file wrapper.

    """

    status: str
    headers: dict[str, str]
    body: bytes
    length: int | None
    is_file: bool

    @property
    def kind(self) -> str | None:
        """Which smaller answer it was, ``None`` for the full one."""
        return self.headers.get("budgetware-answer")


class Stand:
    """An application behind the door.

    Attributes:
        time: Its clock.
        app: The application; may be another for each request.
        records: What observers were told.

    """

    def __init__(
        self,
        app: WSGIApp,
        route: Route = SIGNALS,
        mode: Mode = Mode.ENFORCE,
        policy: Policy | None = None,
        clock_of: Callable[[Time], Callable[[], float]] = lambda time: time,
        **options: Any,
    ) -> None:
        self.time = Time()
        self.app = app
        self.records: list[RequestRecord] = []
        if policy is None:
            policy = replace(POLICY, mode=mode, routes={route.name: route})
        options.setdefault("observers", [self.records.append])
        clock = clock_of(self.time)
        self.door = BudgetMiddleware(self._call, policy=policy, clock=clock, **options)

    def _call(self, env: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        return self.app(env, start_response)

    def ask(
        self, path: str = "/signals", method: str = "GET", wire: Wire | None = None, **more: Any
    ) -> Got:
        """Send one request, and do what PEP 3333 asks of a server."""
        wire = Wire() if wire is None else wire
        wire.run(self.door, environ(method, path, **more))
        assert len(wire.starts) == 1
        status, headers, _ = wire.starts[0]
        return Got(status, dict(headers), b"".join(wire.parts), wire.length, wire.is_file)

    @property
    def outcomes(self) -> dict[str, int]:
        """How many requests ended how, over all routes and tiers."""
        engine = self.door._engine
        engine.tally.absorb()
        counts: dict[str, int] = {}
        for series in engine.tally.requests.values():
            for outcome, count in series.outcomes.items():
                counts[outcome] = counts.get(outcome, 0) + count
        return {outcome: count for outcome, count in counts.items() if count}

    @property
    def errors(self) -> int:
        """How many requests failed."""
        return sum(series.errors for series in self.door._engine.tally.requests.values())

    def check(self) -> None:
        """Make sure that nothing failed and nobody is left in flight."""
        assert self.door._engine.tally.faults == {}
        assert self.door._engine._traffic.now == 0


def degrades(_: dict[str, Any], __: StartResponse) -> Iterable[bytes]:
    """Be an application that asks for something smaller."""
    budget.degrade("no_model")
    raise AssertionError


def lazy_degrade(_: dict[str, Any], start_response: StartResponse) -> Iterator[bytes]:
    """Ask for something smaller in the first step of the body."""
    budget.degrade("no_model")
    start_response("200 OK", HEADERS)
    yield b"full"
