"""Quotas: the late rate that is held in the long run, the degraded share that is not exceeded."""

from __future__ import annotations

import random

import pytest

from budgetware._core import quota as quota_module
from budgetware._core.quota import LEAST_CAUTION, MOST_CAUTION, SLICES, DegradedQuota, LateQuota


def test_caution_rises_with_late_answers_and_falls_without() -> None:
    """It moves with each answer and stays within its limits."""
    quota = LateQuota(0.05)
    quota.count(late=True)
    assert quota.caution == pytest.approx(0.0095)
    quota.count(late=False)
    assert quota.caution == pytest.approx(0.009)
    for _ in range(1000):
        quota.count(late=True)
    assert quota.caution == MOST_CAUTION
    for _ in range(5000):
        quota.count(late=False)
    assert quota.caution == LEAST_CAUTION


def test_the_promised_rate_is_held() -> None:
    """Where more caution means fewer late answers, their share comes to what was promised."""
    draw = random.Random(1)
    quota = LateQuota(0.02)
    late = 0
    for _ in range(20_000):
        happened = draw.random() < 0.1 - 0.25 * quota.caution
        late += happened
        quota.count(late=happened)

    assert late / 20_000 == pytest.approx(0.02, abs=0.005)


def test_the_share_of_smaller_answers_is_not_exceeded() -> None:
    """Of whatever number of answers, no more than the share are smaller ones, one apart."""
    quota = DegradedQuota(0.01)
    degraded = 0
    for index in range(5000):
        now_s = index / 100
        smaller = not quota.used_up(now_s)
        degraded += smaller
        quota.count(now_s, degraded=smaller)
        assert degraded <= max(1.0, 0.01 * (index + 1))

    assert degraded == 50


def test_the_window_moves_on() -> None:
    """What is an hour old does not count any more, and what is younger does."""
    quota = DegradedQuota(0.5, window_s=60.0)
    quota.count(0.0, degraded=True)

    assert quota.used_up(30.0)
    assert quota.used_up(59.0)
    assert not quota.used_up(61.0)
    assert sum(quota._answers) == 0


def test_a_clock_that_jumps_ahead_empties_the_window_once() -> None:
    """A laptop that wakes up after a year takes no time to find out."""
    quota = DegradedQuota(0.5, window_s=60.0)
    quota.count(5.0, degraded=True)
    quota.count(1e9, degraded=True)
    quota.count(4.0, degraded=True)

    assert (sum(quota._answers), sum(quota._degraded), len(quota._answers)) == (2, 2, SLICES)


def test_the_counts_are_those_of_the_window() -> None:
    """What the promise is compared with can be seen, and looking makes time pass as well."""
    quota = DegradedQuota(0.25, window_s=60.0)
    for second in range(10):
        quota.count(float(second), degraded=second % 5 == 0)

    assert quota.most == 0.25
    assert quota.counts(9.0) == (2, 10)
    assert quota.counts(60.0) == (1, 9)
    assert quota.counts(1000.0) == (0, 0)


def test_all_is_no_limit() -> None:
    """A share of one is never used up."""
    quota = DegradedQuota(1.0)
    for _ in range(10):
        quota.count(0.0, degraded=True)

    assert not quota.used_up(0.0)


def test_a_fork_leaves_the_child_its_own_lock() -> None:
    """What a thread of the parent held does not stop the child."""
    quota = DegradedQuota(0.1)
    before = quota._lock
    quota_module._renew_locks()

    assert quota._lock is not before
