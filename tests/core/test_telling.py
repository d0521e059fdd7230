"""Observers are applications, too: what they open is counted and told to nobody."""

from __future__ import annotations

import pytest
from tests.core.programs import TICK

from budgetware._core.audience import Observing
from budgetware._core.engine import Engine
from budgetware._core.policy import Policy, Route
from budgetware._core.record import RequestRecord
from budgetware.testing import FakeClock


@pytest.mark.parametrize("observers", [1, 2])
@pytest.mark.parametrize("kind", ["observer", "early", "alarm"])
@pytest.mark.parametrize("lost", [False, True])
def test_an_observer_may_run_a_job(kind: str, observers: int, *, lost: bool) -> None:
    """The job is counted, its violation too, and telling of a request comes to an end."""
    clock, told = FakeClock(), list[str]()

    def observe(record: RequestRecord) -> None:
        told.append(record.route)
        job = engine.begin_job("job")
        clock.advance(2 * TICK)
        (engine.lose if lost else engine.finish)(job)

    engine = Engine(
        Policy(routes={"job": Route(name="job", budget=TICK)}),
        clock=clock,
        observers=[
            Observing(observe, before_answer=kind == "early")
            for _ in range(observers)
            if kind != "alarm"
        ],
        alarms=[observe] * observers if kind == "alarm" else [],
    )
    for _ in range(2):
        request = engine.begin_job("job")
        clock.advance(2 * TICK)
        engine.finish(request)
    engine.absorb()

    assert told == ["job"] * observers * 2
    series = engine.tally.requests["job", None]
    assert sum(series.outcomes.values()) == 2 * (1 + observers)
    assert sum(series.violations.values()) == (2 if lost else 2 * (1 + observers))
    assert engine.tally.faults == {}
