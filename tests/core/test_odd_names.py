"""Names come from the application: whatever they are, the request keeps its account."""

from __future__ import annotations

from typing import cast

import pytest
from tests.core.programs import TICK, Play, current

from budgetware._core.current import handle
from budgetware._core.lane import LONGEST_NAME
from budgetware._core.policy import Amount, Match, Policy, Route, StagePolicy
from budgetware._core.record import Level
from budgetware.names import OTHER

POLICY = Policy(
    routes={
        "x": Route(
            name="x",
            match=(Match("GET", "/x"),),
            budget=1000 * TICK,
            stages={
                "db": StagePolicy(budget=Amount(TICK), operations={"select": Amount(TICK)}, calls=9)
            },
        )
    }
)


@pytest.mark.parametrize("odd", [["x"], {}, 5, b"x", "x" * (LONGEST_NAME + 1)])
@pytest.mark.parametrize("openings", [1, 300])
def test_odd_names_are_other_and_cost_nobody_else(odd: object, openings: int) -> None:
    """Beside a name that is none, a stage that is over its limit is still found and counted."""
    play, name = Play(POLICY), cast("str", odd)
    budget = play.engine.begin("GET", "/x")
    with current(budget):
        for _ in range(openings):
            with handle.stage(name), handle.stage("db", name):
                play.clock.advance(2 * TICK)
        assert handle.pool() == (1000 - 2 * openings) * TICK
    play.engine.finish(budget)
    play.engine.absorb()

    assert play.faults == []
    assert play.engine.tally.faults == {}
    totals = play.records[0].stages
    assert {(total.name, total.operation): total.calls for total in totals} == {
        (OTHER, None): openings,
        ("db", None): openings,
        ("db", OTHER): openings,
    }
    series = play.engine.tally.stages
    assert series["x", OTHER].durations.count == series["x", "db"].durations.count == openings
    assert series["x", "db"].violations == {(None, Level.BREACH): 1}
