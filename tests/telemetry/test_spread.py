"""Arithmetic on distributions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.telemetry.driving import expected

from budgetware._core.distribution import Distribution
from budgetware.telemetry.spread import NO_EXTREMES, Spread, wider

BOUNDS = st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.5, 0.8, 1.0]), unique=True).map(
    lambda bounds: tuple(sorted(bounds)),
)
VALUES = st.lists(st.sampled_from([0.05, 0.1, 0.15, 0.2, 0.5, 0.7, 1.0, 3.0]), max_size=20)


def _distribution(values: list[float], bounds: tuple[float, ...]) -> Distribution:
    durations = Distribution(bounds)
    durations.add(sorted(values))
    return durations


def _says(spread: Spread, values: list[float]) -> None:
    count, counts, *_ = expected(values or [0.0], spread.bounds)
    if not values:
        count, counts = 0, [0] * len(counts)
    assert (spread.count, list(spread.counts)) == (count, counts)
    assert spread.total == pytest.approx(sum(values))


@given(VALUES, VALUES, BOUNDS, BOUNDS)
def test_together_they_say_what_one_would(
    mine: list[float],
    theirs: list[float],
    my_bounds: tuple[float, ...],
    their_bounds: tuple[float, ...],
) -> None:
    """The sum of two spreads is the spread of all values, in the boundaries both have."""
    together = Spread.of(_distribution(mine, my_bounds)).plus(
        Spread.of(_distribution(theirs, their_bounds)),
    )

    assert set(together.bounds) == set(my_bounds) & set(their_bounds)
    _says(together, mine + theirs)
    if mine + theirs:
        assert together.extremes == (min(mine + theirs), max(mine + theirs))


@given(VALUES, VALUES, BOUNDS)
def test_what_came_since_is_the_difference(
    before: list[float],
    after: list[float],
    bounds: tuple[float, ...],
) -> None:
    """An interval has the values that came in it, with their own extremes."""
    durations = _distribution(before, bounds)
    earlier = Spread.of(durations)
    durations.add(sorted(after))
    now = Spread.of(durations)

    added = now.since(earlier, now.latest)

    _says(added, after)
    assert added.extremes == ((min(after), max(after)) if after else NO_EXTREMES)


def test_what_is_recent_is_told_once() -> None:
    """The latest extremes are those since the last look, and none when nothing came."""
    durations = _distribution([0.1, 0.4], (1.0,))

    assert Spread.of(durations).latest == (0.1, 0.4)
    assert Spread.of(durations).latest == NO_EXTREMES
    assert wider((0.1, 0.2), NO_EXTREMES) == (0.1, 0.2)
