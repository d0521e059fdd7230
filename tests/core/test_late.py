"""Requests that come too late: some may be refused for it, never all at once."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgetware._core.late import LateArrivals


def test_when_all_are_late_a_fifth_is_refused() -> None:
    """However many come, four of five are served all the same."""
    late, refused = LateArrivals(), 0
    for number in range(10_000):
        late.arrived(number * 0.01)
        refused += late.may_refuse(number * 0.01)

    assert refused == 2000


def test_a_few_late_ones_are_all_refused() -> None:
    """One in ten is less than a fifth, once there was some traffic."""
    late, refused = LateArrivals(), 0
    for number in range(1000):
        late.arrived(number * 0.01)
        if number % 10 == 9:
            refused += late.may_refuse(number * 0.01)

    assert refused == 100


def test_what_is_long_ago_counts_for_nothing() -> None:
    """Neither the traffic of an hour ago allows refusals, nor do its refusals forbid any."""
    late = LateArrivals(0.5, 10.0)
    for _ in range(100):
        late.arrived(5.0)
    assert late.may_refuse(14.9)
    assert not late.may_refuse(3600.0)
    late.arrived(3600.0)
    late.arrived(3600.0)
    assert [late.may_refuse(3600.0) for _ in range(2)] == [True, False]


@pytest.mark.parametrize(("share", "allowed"), [(0.0, 0), (1.0, 50)])
def test_none_and_all_are_shares_too(share: float, allowed: int) -> None:
    """Refusing can be forbidden, and left without a limit."""
    late = LateArrivals(share)
    for _ in range(50):
        late.arrived(1.0)

    assert sum(late.may_refuse(1.0) for _ in range(60)) == allowed


@given(st.lists(st.tuples(st.floats(-1, 5), st.booleans()), max_size=200))
def test_no_window_refuses_more_than_its_share(steps: list[tuple[float, bool]]) -> None:
    """The counts are those of going through the slices one by one, whatever the clock does."""
    late, seen, newest = LateArrivals(0.2, 10.0), [], 0
    times = accumulate((step_s for step_s, _ in steps), initial=100.0)
    for now_s, (_, is_late) in zip(times, steps, strict=False):
        newest = max(newest, int(now_s))
        late.arrived(now_s)
        refused = is_late and late.may_refuse(now_s)
        seen.append((newest, refused))
        window = [one for at, one in seen if at > newest - 10]
        assert (late._arrived, late._refused) == (len(window), sum(window))
        assert not refused or sum(window) <= 0.2 * len(window)
