"""A new policy while requests are running: each keeps the promise it began with."""

from __future__ import annotations

import gc
import weakref

import pytest
from tests.core.programs import TICK, current

from budgetware._core.current import handle
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


@pytest.mark.parametrize("running", [False, True])
def test_a_retired_policy_goes_without_the_collector(*, running: bool) -> None:
    """A reload leaves no lanes and no places for durations behind, once no request needs them."""
    clock = FakeClock()
    engine = Engine(POLICY, clock=clock)
    gc.disable()
    try:
        budget = engine.begin("GET", "/signals/x")
        engine.finish(engine.begin_job("other"))
        engine.finish(engine.begin_job("signals"))
        if not running:
            engine.finish(budget)
        for _ in range(3):
            engine.adopt(POLICY)
        clock.advance(TICK)
        engine.finish(budget)
        del budget
        engine.absorb()

        assert len(engine.tally._intakes) == 4
        assert engine.tally.requests["signals", "free"].durations.count == 1
    finally:
        gc.enable()


def test_a_tier_may_still_be_changed_after_a_reload() -> None:
    """A running request moves to a tier of its own policy, which is not shown as in force."""
    clock = FakeClock()
    engine = Engine(POLICY, clock=clock)
    budget = engine.begin("GET", "/signals/x")
    tighter = Policy(tiers={"pro": TierPolicy(budget=TICK)}, routes=POLICY.routes, digest="two")
    engine.adopt(tighter)
    with current(budget):
        handle.tier = "nobody"
        handle.tier = "pro"

    lane = budget.lane
    assert (lane.limit_s, lane.policy, lane.plan.tier) == (16 * TICK, "one", "pro")
    assert (list(lane.lanes), len(lane.lanes)) == (["free", "pro", None], 3)
    assert engine.tally.requests["signals", "pro"].limit_s == TICK
    clock.advance(2 * TICK)
    engine.finish(budget)
    engine.absorb()
    assert engine.tally.requests["signals", "pro"].durations.count == 1
    assert engine.tally.faults == {"unknown_tier": 1}


def test_each_lane_is_registered_without_looking_at_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Compiling a policy is linear in its routes and tiers: no place is asked for its owner."""
    asked = list[object]()
    monkeypatch.setattr("budgetware._core.tally.Intake.in_use", property(asked.append))
    Engine(Policy(routes={f"r{number}": Route(name=f"r{number}") for number in range(100)}))

    assert asked == []
