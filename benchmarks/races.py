"""Many requests whose end, whose clock and whose server's cancellation fall into one moment.

Every request runs on a real event loop under the real clock. Its work ends within a millisecond
of the moment at which the clock answers, and every third one is cancelled from outside at about
that time. What must never happen is counted: a response begun twice, a cancellation that got
lost, anything still held when all is over.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from benchmarks.asgi import App, Message, Receive, Scope, Send, scope_of
from benchmarks.compare import WrongCountError, report
from benchmarks.telemetry import Telemetry

from budgetware import BudgetMiddleware, budget
from budgetware._core.policy import Match, Mode, Policy, Route, StaticAnswer, TierPolicy
from budgetware.answers.menu import ANSWER_S
from budgetware.testing import deciding

LIMIT_S = 0.02
AROUND_S = 0.001
AT_ONCE = 100
SLOTS = 10_000

RACED = Route(
    name="raced",
    match=(Match("GET", "/raced"),),
    answers=("static",),
    static=StaticAnswer(body="smaller"),
)
POLICY = Policy(
    mode=Mode.ENFORCE,
    concurrency=SLOTS,
    tiers={"pro": TierPolicy(budget=LIMIT_S)},
    routes={
        "raced": RACED,
        "cancelled": replace(
            RACED, name="cancelled", match=(Match("GET", "/cancelled"),), cancel_safe=True
        ),
    },
)


@dataclass
class Seen:
    """What the server was handed for one request."""

    starts: int = 0
    ends: int = 0

    async def send(self, message: Message) -> None:
        """Take a message."""
        self.starts += message["type"] == "http.response.start"
        self.ends += message["type"] == "http.response.body"


async def receive() -> Message:
    """Return the empty body of a request."""
    return {"type": "http.request", "body": b"", "more_body": False}


class Races:
    """Requests of one service, and what became of them."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.found: Counter[str] = Counter()
        options = Telemetry().options
        options["policy"] = POLICY
        self.door = BudgetMiddleware(self.work, **options)

    def moment_s(self) -> float:
        """Return a moment at most a millisecond from the clock's turn."""
        return LIMIT_S - ANSWER_S + self.random.uniform(-AROUND_S, AROUND_S)

    async def work(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer in full at a bad moment, now and then with a shield up to then."""
        if self.random.random() < 0.25:
            with budget.shield():
                await asyncio.sleep(self.moment_s())
        else:
            await asyncio.sleep(self.moment_s())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"full"})

    async def one(self, app: App) -> None:
        """Serve one request, and look at what became of it."""
        seen = Seen()
        path = self.random.choice(("/raced", "/cancelled"))
        task = asyncio.ensure_future(app(scope_of(path), receive, seen.send))
        asked = False
        if self.random.random() < 1 / 3:
            await asyncio.sleep(self.moment_s())
            asked = task.cancel()
        outcome: object = (await asyncio.gather(task, return_exceptions=True))[0]
        cancelled = isinstance(outcome, asyncio.CancelledError)
        self.found["requests"] += 1
        self.found["twice"] += seen.starts > 1 or seen.ends > seen.starts
        self.found["lost"] += asked and not cancelled
        self.found["failed"] += outcome is not None and not (asked and cancelled)
        self.found["unanswered"] += not asked and not seen.starts == seen.ends == 1
        self.found["asked"] += asked

    async def run(self, requests: int) -> None:
        """Serve so many requests, so many at once."""
        left = iter(range(requests))

        async def serve() -> None:
            for _ in left:
                await self.one(self.door)

        await asyncio.gather(*(serve() for _ in range(AT_ONCE)))

    def leaked(self) -> int:
        """Return what is held when all is over: requests in flight, and slots."""
        engine = self.door._engine  # noqa: SLF001 - this is what is measured
        slots = engine.entrance.enforced
        if slots is None:
            raise WrongCountError("nobody was asked at the entrance")
        return engine._traffic.now + slots.in_flight  # noqa: SLF001 - as above


def measure(quick: bool) -> dict[str, Any]:  # noqa: FBT001 - the one switch there is
    """Return the values of this group's rows."""
    requests = 5_000 if quick else 50_000
    races = Races(20)
    with deciding("run"):  # the forecast would see it coming, and spoil the race
        asyncio.run(races.run(requests))
    found, engine = races.found, races.door._engine  # noqa: SLF001 - as above
    engine.absorb()
    outcomes: Counter[str] = Counter()
    for series in engine.tally.requests.values():
        outcomes.update({name: count for name, count in series.outcomes.items() if count})
    if found["requests"] != requests or outcomes.total() != requests:
        raise WrongCountError(f"{requests} requests, seen {found}, counted {outcomes}")
    if not outcomes["degraded"] or not (outcomes["met"] or outcomes["warning"]):
        raise WrongCountError(f"one side has won every race: {outcomes}")
    faults = sum(engine.tally.faults.values())
    counted = ", ".join(f"{count} {name}" for name, count in sorted(outcomes.items()))
    return {
        "rows": {
            "races-twice": {"value": found["twice"] + found["unanswered"], "remark": counted},
            "races-lost": {"value": found["lost"], "remark": f"{found['asked']} cancelled"},
            "races-leaked": {
                "value": races.leaked() + found["failed"] + faults,
                "remark": f"{requests} requests",
            },
        },
        "details": {**found, **outcomes},
    }


if __name__ == "__main__":
    sys.exit(report(measure))
