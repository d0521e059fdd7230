"""The accounting: whose each instant is, and which rung something went over."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from math import inf
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.programs import (
    NAMES,
    OPERATIONS,
    TICK,
    Leave,
    Open,
    Opening,
    Oracle,
    Play,
    Step,
    Wait,
    Work,
    balance,
    by_key,
    leaves,
    opens,
    programs,
    works,
)

from budgetware._core import budget as budget_module
from budgetware._core.policy import Ladder
from budgetware._core.record import (
    Ending,
    Interval,
    Level,
    Outcome,
    level_of,
    outcome_of,
    settle,
    union_length,
)


def _oracle(program: list[Step]) -> Oracle:
    oracle = Oracle()
    for step in program:
        oracle.take(step)
    return oracle


def _agree(program: list[Step], play: Play) -> None:
    record, oracle = play.run(program), _oracle(program)
    assert by_key(record) == oracle.totals()
    assert record.duration_s == oracle.now * TICK
    assert record.unattributed_s == oracle.owners().count(None) * TICK
    assert balance(record) == record.duration_s


@given(programs())
def test_every_instant_is_accounted_for_once(program: list[Step]) -> None:
    """Nested, parallel, reused, abandoned, waited for: the account is the oracle's."""
    _agree(program, Play())


def _left_once(program: list[Step]) -> list[Step]:
    left: set[int] = set()
    opened = 0
    kept: list[Step] = []
    for step in program:
        opened += isinstance(step, Open)
        if isinstance(step, Leave) and opened:
            if step.which % opened in left:
                continue
            left.add(step.which % opened)
            step = Leave(step.which % opened)  # noqa: PLW2901 - now it means the same for ever
        kept.append(step)
    return kept


waits_alone = st.builds(Wait, st.integers(1, 3))


@given(programs(opens, leaves, works, waits_alone, most=60), st.integers(1, 5))
def test_settling_early_changes_nothing(program: list[Step], most: int) -> None:
    """However often the older stages are settled, the account stays the oracle's."""
    program = _left_once(program)
    with patch.object(budget_module, "MOST_STAGES", most):
        _agree(program, Play())


@given(programs(opens, works, most=60), st.integers(1, 5))
def test_stages_nobody_leaves_are_abandoned_with_the_request(
    program: list[Step],
    most: int,
) -> None:
    """A stage that was never closed ends with the request, also if the time was settled before."""
    with patch.object(budget_module, "MOST_STAGES", most):
        record = Play().run(program)

    assert by_key(record) == _oracle(program).totals()
    assert {one.ending for one in record.openings} <= {Ending.ABANDONED}


intervals = st.builds(
    lambda name, operation, start, length: Interval(name, operation, start, start + length),
    st.sampled_from(NAMES),
    st.sampled_from(OPERATIONS),
    st.integers(0, 12).map(float),
    st.integers(0, 8).map(float),
)


@given(
    st.lists(intervals, max_size=12).map(lambda found: sorted(found, key=lambda one: one.start)),
    st.integers(0, 20),
)
def test_settling_piece_by_piece_is_settling_at_once(found: list[Interval], at: int) -> None:
    """Cut in two anywhere, the shares of a stretch of time add up to those of the whole."""
    whole = settle(found, 0.0, 20.0)
    pieces = settle(found, 0.0, float(at)), settle(found, float(at), 20.0)

    for key, (spent, exclusive) in whole.items():
        assert spent == sum(piece[key].spent for piece in pieces)
        assert exclusive == sum(piece[key].exclusive for piece in pieces)
    covered = union_length((one.start, min(one.end, 20.0)) for one in found)
    assert sum(share.exclusive for share in whole.values()) == covered


@given(st.lists(intervals, max_size=12))
def test_intervals_in_any_order_give_the_oracles_shares(found: list[Interval]) -> None:
    """Threads may register stages out of order; the later start still takes the instant."""
    ordered = sorted(found, key=lambda one: one.start)
    oracle = Oracle(
        [Opening(one.name, one.operation, int(one.start), int(one.end)) for one in ordered],
        now=20,
    )

    shares = settle(found, 0.0, 20.0)

    assert {key: tuple(share) for key, share in shares.items()} == {
        key: (spent / TICK, exclusive / TICK)
        for key, (spent, exclusive, _) in oracle.totals().items()
    }


@pytest.mark.parametrize(
    ("spans", "length"),
    [
        ([], 0.0),
        ([(0.0, 1.0)], 1.0),
        ([(2.0, 3.0), (0.0, 1.0)], 2.0),
        ([(0.0, 2.0), (1.0, 3.0)], 3.0),
        ([(0.0, 9.0), (1.0, 3.0), (4.0, 5.0)], 9.0),
        ([(1.0, 1.0)], 0.0),
    ],
)
def test_what_overlaps_is_counted_once(spans: list[tuple[float, float]], length: float) -> None:
    """A union is as long as the time it covers."""
    assert union_length(spans) == length


@pytest.mark.parametrize(
    ("spent", "level", "outcome"),
    [
        (0.0, None, Outcome.MET),
        (80.0, None, Outcome.MET),
        (80.5, Level.WARNING, Outcome.WARNING),
        (100.0, Level.WARNING, Outcome.WARNING),
        (100.5, Level.CRITICAL, Outcome.EXCEEDED),
        (150.0, Level.CRITICAL, Outcome.EXCEEDED),
        (150.5, Level.BREACH, Outcome.BREACHED),
        (1e9, Level.BREACH, Outcome.BREACHED),
    ],
)
def test_exactly_at_a_rung_is_still_below_it(
    spent: float,
    level: Level | None,
    outcome: Outcome,
) -> None:
    """Only strictly more than a rung is over it, so a whole budget used up is a budget met."""
    ladder = Ladder()

    assert level_of(spent, 100.0, ladder) is level
    assert outcome_of(spent, 100.0, ladder) is outcome


def test_without_a_limit_there_is_no_level() -> None:
    """Nothing promised is nothing broken."""
    assert level_of(1e9, inf, Ladder()) is None
    assert outcome_of(1e9, inf, Ladder()) is Outcome.UNBUDGETED


def test_records_cannot_be_changed() -> None:
    """Observers get facts, not something to write to."""
    record = Play().run([Open("db"), Work(1), Leave(0)])

    with pytest.raises(FrozenInstanceError):
        record.route = "other"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        record.stages[0].name = "other"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        record.openings[0].name = "other"  # type: ignore[misc]
