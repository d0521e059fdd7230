"""The demo's callers: three tiers over keep-alive connections, at a rate that does not give way.

The load is open: when the next request is due it is sent, however slow the last answers were.
What is in flight is bounded all the same, so a server that stands still is not buried.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Self

import httpx2

from budgetware.names import ANSWER_HEADER
from examples.callers import KEY_HEADER
from examples.demo.scrape import Key
from examples.fastapi_app.market import SYMBOLS

RATES: Final = {"enterprise": 14.0, "pro": 9.0, "free": 5.0}
"""Requests per second of each tier."""

ROUTES: Final = {"signals": 0.55, "quotes": 0.20, "orders": 0.18, "report": 0.07}
"""How often each route is asked for."""

MOST_IN_FLIGHT: Final = 64
TIMEOUT_S: Final = 10.0
KEEP_ALIVE_S: Final = 60.0
SERVER_ERROR: Final = 500


class Shot(NamedTuple):
    """One request to send."""

    at_s: float
    route: str
    tier: str
    method: str
    path: str
    body: dict[str, Any] | None


class Answer(NamedTuple):
    """One answer, as the client saw it.

    ``smaller`` says what was sent in place of the full response, ``None`` for the full one.
    """

    route: str
    tier: str
    status: int
    took_s: float
    at_s: float
    smaller: str | None = None


@dataclass(slots=True)
class Tape:
    """What the client saw of one phase.

    Attributes:
        answers: One by one, in the order they came.
        lost: Requests without an answer, by route and tier.
        withheld: Requests that were not sent because too many were in flight, likewise.

    """

    answers: list[Answer] = field(default_factory=list)
    lost: Counter[Key] = field(default_factory=Counter)
    withheld: Counter[Key] = field(default_factory=Counter)

    def counts(self) -> Counter[Key]:
        """Return how many answers each route and tier had."""
        return Counter((one.route, one.tier) for one in self.answers)

    def due(self) -> Counter[Key]:
        """Return how many requests of each route and tier there were to send."""
        return self.counts() + self.lost + self.withheld

    def errors(self) -> Counter[Key]:
        """Return how many of the full ones were errors of the server."""
        return Counter(
            (one.route, one.tier)
            for one in self.answers
            if one.status >= SERVER_ERROR and one.smaller is None
        )

    def smaller(self) -> Counter[tuple[Key, str]]:
        """Return how many of them were smaller ones, by what was sent."""
        return Counter(
            ((one.route, one.tier), one.smaller) for one in self.answers if one.smaller is not None
        )

    def times_s(self, key: Key) -> list[float]:
        """Return how long the answers of a route and tier took."""
        return [one.took_s for one in self.answers if (one.route, one.tier) == key]


def plan(seconds: float, rng: random.Random) -> list[Shot]:
    """Return the requests of a phase: random arrivals, in order, at each tier's rate."""
    shots = []
    for tier, rate in RATES.items():
        at_s = rng.expovariate(rate)
        while at_s < seconds:
            (route,) = rng.choices(list(ROUTES), list(ROUTES.values()))
            shots.append(_shot(at_s, route, tier, rng))
            at_s += rng.expovariate(rate)
    return sorted(shots, key=lambda shot: shot.at_s)


class Callers:
    """One HTTP client per tier, as an ``async with`` block.

    Args:
        address: Where the service answers.

    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._stack = AsyncExitStack()
        self._clients: dict[str, httpx2.AsyncClient] = {}

    async def __aenter__(self) -> Self:
        for tier in (*RATES, "operator"):
            client = httpx2.AsyncClient(
                base_url=self._address,
                headers={KEY_HEADER: f"demo-{tier}"},
                timeout=TIMEOUT_S,
                limits=httpx2.Limits(max_connections=MOST_IN_FLIGHT, keepalive_expiry=KEEP_ALIVE_S),
            )
            self._clients[tier] = await self._stack.enter_async_context(client)
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self._stack.aclose()

    async def metrics(self) -> str:
        """Return the server's metrics as text."""
        return (await self._operate("GET", "/metrics")).text

    async def busy_disk(self, wait_ms: float, for_s: float) -> None:
        """Make the server's disk busy, or idle again."""
        await self._operate("PUT", "/admin/disk", {"wait_ms": wait_ms, "for_s": for_s})

    async def export(self) -> None:
        """Start the nightly export."""
        await self._operate("POST", "/admin/exports")

    async def drive(
        self,
        shots: Iterable[Shot],
        tape: Tape,
        heard: Callable[[Answer], None] = lambda _: None,
    ) -> None:
        """Send *shots* when they are due and put the answers on *tape*; returns with the last."""
        start = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            flying: set[asyncio.Task[None]] = set()
            for shot in shots:
                await asyncio.sleep(max(0.0, start + shot.at_s - time.perf_counter()))
                if len(flying) >= MOST_IN_FLIGHT:
                    tape.withheld[shot.route, shot.tier] += 1
                    continue
                task = tasks.create_task(self._send(shot, start, tape, heard))
                flying.add(task)
                task.add_done_callback(flying.discard)

    async def _send(
        self,
        shot: Shot,
        start: float,
        tape: Tape,
        heard: Callable[[Answer], None],
    ) -> None:
        client = self._clients[shot.tier]
        before = time.perf_counter()
        try:
            response = await client.request(shot.method, shot.path, json=shot.body)
        except httpx2.HTTPError:
            tape.lost[shot.route, shot.tier] += 1
            return
        after = time.perf_counter()
        answer = Answer(
            shot.route,
            shot.tier,
            response.status_code,
            after - before,
            after - start,
            response.headers.get(ANSWER_HEADER),
        )
        tape.answers.append(answer)
        heard(answer)

    async def _operate(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
    ) -> httpx2.Response:
        response = await self._clients["operator"].request(method, path, json=body)
        return response.raise_for_status()


def _shot(at_s: float, route: str, tier: str, rng: random.Random) -> Shot:
    symbol = rng.choice(SYMBOLS)
    if route == "orders":
        body = {"symbol": symbol, "quantity": rng.randint(1, 100)}
        return Shot(at_s, route, tier, "POST", "/orders", body)
    path = "/reports/ticks" if route == "report" else f"/{route}/{symbol}"
    return Shot(at_s, route, tier, "GET", path, None)
