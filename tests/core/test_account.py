"""From openings to one frozen record."""

from __future__ import annotations

from math import inf

import pytest
from tests.core.programs import TICK, Play, current, stage

from budgetware._core.account import account
from budgetware._core.current import handle
from budgetware._core.policy import (
    Amount,
    Clock,
    Match,
    Policy,
    Route,
    StagePolicy,
    TierPolicy,
)
from budgetware._core.record import Ending, Level, Outcome, RequestRecord


def _policy(clock: Clock = Clock.FIRST_BYTE) -> Policy:
    route = Route(
        name="x",
        match=(Match("GET", "/x"),),
        reserve=Amount(TICK),
        clock=clock,
        stages={
            "db": StagePolicy(budget=Amount(4 * TICK), operations={"select": Amount(2 * TICK)}),
            "ml": StagePolicy(budget=Amount(3 * TICK), optional=True),
        },
    )
    return Policy(tiers={"pro": TierPolicy(budget=10 * TICK)}, routes={"x": route}, digest="d1")


def _served(
    clock: Clock = Clock.FIRST_BYTE,
    *,
    first_byte_after: int | None = None,
    rest: int = 0,
    status: int | None = None,
) -> RequestRecord:
    play = Play(_policy(clock))
    budget = play.engine.begin("GET", "/x")
    if first_byte_after is not None:
        play.clock.advance(first_byte_after * TICK)
        budget.answering(play.clock())
    play.clock.advance(rest * TICK)
    if status is not None:
        budget.status = status
    play.engine.finish(budget)
    return play.records[-1]


@pytest.mark.parametrize(
    ("clock", "outcome", "elapsed"),
    [(Clock.FIRST_BYTE, Outcome.MET, 8), (Clock.LAST_BYTE, Outcome.BREACHED, 20)],
)
def test_the_route_says_which_byte_ends_the_budget(
    clock: Clock,
    outcome: Outcome,
    elapsed: int,
) -> None:
    """Both times are in the record; one of them is judged."""
    record = _served(clock, first_byte_after=8, rest=12, status=200)

    assert (record.first_byte_s, record.duration_s) == (8 * TICK, 20 * TICK)
    assert (record.elapsed_s, record.outcome) == (elapsed * TICK, outcome)


def test_the_only_byte_is_the_first_and_the_last() -> None:
    """A response sent in one piece has its first byte at the end; a job has none."""
    assert _served(rest=3, status=200).first_byte_s == 3 * TICK
    job = _served(rest=3)
    assert (job.first_byte_s, job.status, job.elapsed_s) == (None, None, 3 * TICK)


@pytest.mark.parametrize(
    ("rest", "outcome", "level", "overage"),
    [
        (8, Outcome.MET, None, 0),
        (9, Outcome.WARNING, Level.WARNING, 0),
        (10, Outcome.WARNING, Level.WARNING, 0),
        (11, Outcome.EXCEEDED, Level.CRITICAL, 1),
        (16, Outcome.BREACHED, Level.BREACH, 6),
    ],
)
def test_the_outcome_and_by_how_much(
    rest: int,
    outcome: Outcome,
    level: Level | None,
    overage: int,
) -> None:
    """The overage is what is above the budget, and nothing below it."""
    record = _served(rest=rest)

    assert (record.outcome, record.level) == (outcome, level)
    assert record.overage_s == overage * TICK


def test_the_record_says_everything_there_is_to_say() -> None:
    """Route, tier, limits, policy, stages with their operations, and every opening."""
    play = Play(_policy())
    budget = play.engine.begin("GET", "/x")
    budget.status = 503
    budget.error = ValueError
    with current(budget):
        with handle.stage("db", "select"):
            play.clock.advance(3 * TICK)
        with handle.stage("db"):
            play.clock.advance(2 * TICK)
        left = handle.stage("late")
        play.clock.advance(TICK)
    play.engine.finish(budget)
    left.__exit__(None, None, None)

    record = play.records[-1]
    assert (record.route, record.tier, record.policy) == ("x", "pro", "d1")
    assert (record.limit_s, record.reserve_s, record.waited_s) == (10 * TICK, TICK, 0.0)
    assert (record.status, record.error, record.pool_s) == (503, "ValueError", 5 * TICK)
    assert [(one.name, one.operation) for one in record.stages] == [
        ("db", None),
        ("late", None),
        ("db", "select"),
    ]
    db = stage(record, "db")
    assert (db.limit_s, db.spent_s, db.overage_s, db.calls) == (4 * TICK, 5 * TICK, TICK, 2)
    assert stage(record, "late").limit_s == inf
    assert stage(record, "db", "select").level is Level.CRITICAL
    assert record.violations == (db, stage(record, "db", "select"))
    assert [one.ending for one in record.openings] == [
        Ending.CLOSED,
        Ending.CLOSED,
        Ending.ABANDONED,
    ]


def test_an_optional_stage_has_a_claim_once_it_was_opened() -> None:
    """What nobody claimed is the pool; of an unlimited budget that is no figure at all."""
    play = Play(_policy())
    for opened in (False, True):
        budget = play.engine.begin("GET", "/x")
        if opened:
            with current(budget), handle.stage("ml"):
                pass
        play.engine.finish(budget)

    assert [record.pool_s for record in play.records] == [5 * TICK, 2 * TICK]


@pytest.mark.parametrize("openings", [0, 300])
def test_a_running_budget_can_be_accounted_for(openings: int) -> None:
    """What is still open counts up to now, and the budget goes on as if nobody had asked."""
    play = Play(_policy())
    budget = play.engine.begin("GET", "/x")
    with current(budget):
        for number in range(openings):
            with handle.stage(f"s{number}"):
                pass
        with handle.stage("db"):
            play.clock.advance(TICK)
            settled = getattr(budget, "settled", None)
            before = settled and settled.copy()
            so_far = [account(budget, list(budget)) for _ in range(2)]
            after = getattr(budget, "settled", None)
            play.clock.advance(TICK)
    play.engine.finish(budget)

    assert so_far[0] == so_far[1]
    assert (so_far[0].duration_s, stage(so_far[0], "db").spent_s) == (TICK, TICK)
    assert (before is None) == (after is None) == (openings == 0)
    if before is not None and after is not None:
        assert before.shares == after.shares
    assert stage(play.records[-1], "db").spent_s == 2 * TICK


def test_nobody_was_there_to_be_late_for() -> None:
    """A request whose client left has no level and no violations, however long it took."""
    play = Play(_policy())
    budget = play.engine.begin("GET", "/x")
    with current(budget), handle.stage("db"):
        play.clock.advance(50 * TICK)
    play.engine.lose(budget)

    record = play.records[-1]
    assert (record.outcome, record.level, record.violations) == (Outcome.CLIENT_GONE, None, ())
    assert stage(record, "db").level is Level.BREACH


def test_a_stage_left_after_the_end_ends_with_the_request() -> None:
    """Threads may open and leave stages between the end and the account: none outlasts it."""
    play = Play(_policy())
    budget = play.engine.begin("GET", "/x")
    with current(budget), handle.stage("db"):
        play.clock.advance(TICK)
        late = handle.stage("ml")
        play.engine.end(budget)
        play.clock.advance(TICK)
        late.__exit__(ValueError, None, None)
        late.start = play.clock()  # type: ignore[attr-defined]
    play.engine.tell(budget)

    openings = play.records[0].openings
    assert [(one.ending, one.error) for one in openings] == [(Ending.ABANDONED, None)] * 2
    assert [(one.start_s, one.duration_s) for one in openings] == [(0, TICK), (TICK, 0)]


@pytest.mark.parametrize("gone", [False, True])
def test_an_ended_budget_keeps_no_figures(*, gone: bool) -> None:
    """Contexts of tasks outlive their request; what was settled for the record does not."""
    play = Play(_policy())
    budget = play.engine.begin("GET", "/x")
    with current(budget):
        for number in range(300):
            with handle.stage(f"s{number}"):
                pass
    had = budget.settled
    (play.engine.lose if gone else play.engine.finish)(budget)

    assert had is not None
    assert budget.settled is None
    assert sum(total.calls for total in play.records[0].stages) == 300
