"""A new policy while requests are running: each keeps the promise it began with."""

from __future__ import annotations

import gc
import weakref

from tests.core.programs import TICK

from budgetware._core.engine import Engine
from budgetware._core.policy import Match, Policy, Route, TierPolicy
from budgetware._core.record import Outcome
from budgetware.testing import FakeClock

POLICY = Policy(
    tiers={"free": TierPolicy(budget=64 * TICK), "pro": TierPolicy(budget=16 * TICK)},
    routes={"signals": Route(name="signals", match=(Match("GET", "/signals/{symbol}"),))},
    digest="one",
)


def test_running_requests_keep_the_promise_they_began_with() -> None:
    """A reload is for requests that begin later; totals go on, and nothing is lost."""
    clock = FakeClock()
    engine = Engine(POLICY, clock=clock)
    running, old = engine.begin("GET", "/signals/x", "pro"), weakref.ref(engine.begin_job("x").lane)
    tighter = Policy(tiers={"pro": TierPolicy(budget=TICK)}, routes=POLICY.routes, digest="two")
    engine.adopt(tighter)
    later = engine.begin("GET", "/signals/x", "pro")
    assert engine.policy is tighter
    assert (running.lane.limit_s, later.lane.limit_s) == (16 * TICK, TICK)
    assert (running.lane.policy, later.lane.policy) == ("one", "two")

    clock.advance(2 * TICK)
    engine.finish(running)
    engine.finish(later)
    del running
    gc.collect()
    assert old() is None
    engine.adopt(POLICY)
    engine.adopt(tighter)
    gc.collect()
    engine.absorb()

    series = engine.tally.requests["signals", "pro"]
    assert series.durations.count == 2
    assert (series.outcomes[Outcome.MET], series.outcomes[Outcome.BREACHED]) == (1, 1)


def test_hundreds_of_reloads_leave_nothing_behind() -> None:
    """Lanes of old policies go once their durations are taken."""
    engine = Engine(POLICY, clock=FakeClock())
    for _ in range(300):
        engine.finish(engine.begin("GET", "/signals/x"))
        engine.adopt(POLICY)
        if len(engine.tally._intakes) > 100:
            gc.collect()
            engine.absorb()
    engine.absorb()
    gc.collect()
    engine.adopt(POLICY)
    gc.collect()
    engine.adopt(POLICY)

    assert len(engine.tally._intakes) <= 20
    assert engine.tally.requests["signals", "free"].durations.count == 300
