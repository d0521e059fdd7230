"""Probes: how often, how many, and what becomes of those that are never heard of again."""

from __future__ import annotations

import random
import threading
from itertools import pairwise
from math import inf

import pytest

from budgetware._core import probe as probe_module
from budgetware._core.probe import (
    BEHIND_S,
    BURST,
    IN_FRONT_S,
    JITTER,
    LEASE_S,
    MOST_OUT,
    MOST_TIMERS,
    PROBE_SHARE,
    Allowance,
    Permit,
    Probes,
)


def rich() -> Allowance:
    """Return an allowance that never runs out in a test."""
    return Allowance(burst=1e6)


def steady(allowance: Allowance | None = None, jitter: float = 0.0) -> Probes:
    """Return probes whose intervals are all longer by the same part of the jitter."""
    return Probes(allowance or rich(), lambda: jitter)


def times_of(probes: Probes, until_s: float, *, behind: bool = True) -> list[float]:
    """Return when failing probes are made if one is asked for every 10 ms."""
    times = []
    for tick in range(int(until_s * 100)):
        permit = probes.take("db", tick / 100, inf, behind=behind)
        if permit is not None:
            times.append(tick / 100)
            probes.settle(permit, good=False)
    return times


def longest_gap_s(times: list[float]) -> float:
    """Return the seconds of the longest pause between *times*."""
    return max(after - before for before, after in pairwise(times))


@pytest.mark.parametrize(
    ("behind", "expected"),
    [
        (True, [0.0, 0.1, 0.3, 0.7, 1.5, 2.5, 3.5]),
        (False, [0.0, 0.5, 1.5, 3.5]),
    ],
)
def test_intervals_double_while_probes_fail(behind: bool, expected: list[float]) -> None:  # noqa: FBT001
    """Behind an answer from 0.1 s to 1 s, in front of users from 0.5 s to 8 s."""
    assert times_of(steady(), 4.0, behind=behind) == pytest.approx(expected, abs=0.05)


def test_they_go_on_for_ever_at_the_longest_interval() -> None:
    """However long an outage, the next probe is never further than the longest interval."""
    behind, in_front = times_of(steady(), 60.0), times_of(steady(), 60.0, behind=False)

    assert longest_gap_s(behind) == pytest.approx(BEHIND_S[1], abs=0.02)
    assert longest_gap_s(in_front) == pytest.approx(IN_FRONT_S[1], abs=0.02)


def test_a_good_one_makes_the_next_due_at_once() -> None:
    """Recovery is not rationed: no wait, no cost, and the intervals begin anew."""
    allowance = Allowance(burst=50.0)
    probes = steady(allowance)
    now_s = times_of(probes, 3.0)[-1]
    before = allowance.left
    permit = probes.take("db", now_s + 1.0, inf, behind=True)
    assert permit is not None
    probes.settle(permit, good=True)

    assert allowance.left == pytest.approx(before)
    assert probes.due("db", now_s + 1.0, 0.0)
    assert probes.take("db", now_s + 1.0, 0.0, behind=True) is not None
    assert not probes.due("db", now_s + 1.05, inf)
    assert probes.due("db", now_s + 1.11, inf)


def test_nobody_probes_what_others_are_trying_anyway() -> None:
    """As long as full requests pass the point, no probe is due."""
    probes = steady()
    assert not probes.due("db", 0.0, 0.05)
    assert probes.take("db", 0.0, inf, behind=True) is not None
    probes.proved("db")

    assert not probes.due("db", 5.0, 0.05)
    assert probes.due("db", 5.0, 0.1)


def test_a_good_request_shortens_the_interval() -> None:
    """After ordinary success the next failure is followed up soon."""
    probes = steady()
    times_of(probes, 4.0)
    probes.proved("db")
    probes.proved("unheard-of")
    permit = probes.take("db", 9.0, inf, behind=True)

    assert permit is not None
    assert probes.due("db", 9.1, inf)


def test_processes_do_not_probe_in_step() -> None:
    """Each interval is longer by a random part of itself."""
    probes = steady(jitter=1.0)
    assert probes.take("db", 0.0, inf, behind=True) is not None

    assert not probes.due("db", 0.1, inf)
    assert probes.due("db", 0.1 * (1.0 + JITTER), inf)


def test_probes_are_a_small_share_of_requests() -> None:
    """In an endless outage at a thousand requests a second, no more than they have earned."""
    allowance = Allowance()
    probes = [Probes(allowance, random.Random(1).random) for _ in range(60)]
    made = 0
    for index in range(20_000):
        allowance.earn()
        permit = probes[index % 60].take(None, index / 1000, inf, behind=True)
        if permit is not None:
            made += 1
            probes[index % 60].settle(permit, good=False)

    assert made <= 20_000 * PROBE_SHARE + BURST
    assert made > 20_000 * PROBE_SHARE * 0.9


def test_what_is_saved_up_is_bounded() -> None:
    """A million quiet requests earn no more than a burst."""
    allowance = Allowance()
    for _ in range(100_000):
        allowance.earn()
    allowance.refund()

    assert allowance.left == BURST
    assert [allowance.spend() for _ in range(6)] == [True] * 5 + [False]


def test_asking_what_is_left_earns_nothing() -> None:
    """Only requests do."""
    allowance = Allowance()
    while allowance.spend():
        pass
    for _ in range(1000):
        assert allowance.left < 1.0
    for _ in range(50):
        allowance.earn()

    assert allowance.left == pytest.approx(1.0)


def test_probes_that_are_never_heard_of_again_do_not_stop_the_others() -> None:
    """With every probe hanging, the next is made no later than when the leases run out."""
    probes = steady()
    times = [tick / 100 for tick in range(6000) if probes.take("db", tick / 100, inf, behind=True)]

    assert longest_gap_s(times) <= LEASE_S
    assert len(probes._timers["db"].out) <= MOST_OUT


def test_there_are_never_many_at_once() -> None:
    """Probes that are still out hold back new ones until their leases end."""
    probes = steady()
    taken = []
    for index in range(20):
        probes.proved("db")
        taken.append(probes.take("db", index * 0.11, inf, behind=True))

    most = max(
        sum(1 for start in range(20) if taken[start] and start <= at < start + LEASE_S / 0.11)
        for at in range(20)
    )
    assert most <= MOST_OUT


def test_settling_twice_or_late_is_harmless() -> None:
    """A permit that has expired, or was never given, changes no others."""
    probes = steady()
    permit = probes.take("db", 0.0, inf, behind=True)
    assert permit is not None
    probes.settle(permit, good=False)
    probes.settle(permit, good=False)
    probes.settle(Permit("unheard-of", 3), good=True)

    assert probes.take("db", 0.1, inf, behind=True) is not None


def test_points_with_probes_are_bounded() -> None:
    """Made-up stages use up their share of timers; there are no probes at others."""
    probes = steady()
    taken = [probes.take(f"stage{index}", 0.0, inf, behind=True) for index in range(100)]

    assert sum(permit is not None for permit in taken) == len(probes._timers) == MOST_TIMERS
    assert not probes.due("another", 9.0, inf)


def test_many_threads_take_one_permit() -> None:
    """Thirty-two threads that find the same probe due are given one between them."""
    probes = steady()
    taken: list[Permit | None] = []
    start = threading.Barrier(32)

    def take() -> None:
        start.wait()
        taken.append(probes.take("db", 0.0, inf, behind=True))

    threads = [threading.Thread(target=take) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(permit is not None for permit in taken) == 1


def test_many_threads_spend_only_what_there_is() -> None:
    """Earning and spending at once from all sides neither loses nor invents anything."""
    allowance = Allowance()
    spent: list[bool] = []

    def work() -> None:
        for _ in range(200):
            allowance.earn()
            spent.append(allowance.spend())

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(spent) + allowance.left <= BURST + 3200 * PROBE_SHARE + 1e-6


def test_a_fork_leaves_the_child_its_own_locks() -> None:
    """What a thread of the parent held does not stop the child."""
    allowance = Allowance()
    probes = steady(allowance)
    before = (allowance._lock, probes._lock)
    probe_module._renew_locks()

    assert allowance._lock is not before[0]
    assert probes._lock is not before[1]
