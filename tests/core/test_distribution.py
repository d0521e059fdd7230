"""Distributions: every duration in its bucket once."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgetware._core.distribution import Distribution

# Quarters: sums of them are exact, and many are exactly at a bound.
seconds = st.integers(0, 60).map(lambda quarters: quarters / 4)


@given(
    st.sets(seconds, min_size=1, max_size=6).map(sorted),
    st.lists(st.lists(seconds, max_size=20), max_size=4),
)
def test_a_distribution_is_a_naive_count(bounds: list[float], batches: list[list[float]]) -> None:
    """Counts, sum and extremes are those of going through the values one by one."""
    distribution = Distribution(bounds)
    for batch in batches:
        distribution.add(batch.copy())

    values = [value for batch in batches for value in batch]
    counts = [0] * (len(bounds) + 1)
    for value in values:
        counts[sum(bound < value for bound in bounds)] += 1
    assert distribution.counts == counts
    assert distribution.count == len(values)
    assert distribution.total == sum(values)
    assert distribution.least == min(values, default=inf)
    assert distribution.most == max(values, default=-inf)
    assert distribution.latest() == (distribution.least, distribution.most)


def test_the_latest_extremes_begin_anew_when_asked() -> None:
    """A reader that collects regularly sees the extremes of its own interval."""
    distribution = Distribution([1.0])
    distribution.add([3.0, 1.0])
    assert distribution.latest() == (1.0, 3.0)

    distribution.add([2.0])
    assert distribution.latest() == (2.0, 2.0)
    assert distribution.latest() == (inf, -inf)
    assert (distribution.least, distribution.most) == (1.0, 3.0)


@pytest.mark.parametrize("values", [[-3600.0], [-1.0, 0.002], [2.0, -1.0, 0.5], [-2.0, -1.0]])
@pytest.mark.parametrize("ordered", [True, False])
def test_a_time_that_ran_backwards_is_none(values: list[float], *, ordered: bool) -> None:
    """A clock that has gone back makes no sum smaller."""
    distribution = Distribution([0.001, 1.0])
    distribution.add(sorted(values) if ordered else values.copy(), ordered=ordered)

    kept = [max(0.0, value) for value in values]
    assert distribution.total == sum(kept)
    assert (distribution.least, distribution.most) == (min(kept), max(kept))
    assert distribution.counts == [
        sum(value <= 0.001 for value in kept),
        sum(0.001 < value <= 1.0 for value in kept),
        sum(value > 1.0 for value in kept),
    ]
