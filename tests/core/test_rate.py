"""Rates: what a caller may do in the long run and at once, and what it may never gain."""

from __future__ import annotations

import os
import random
import threading
import tracemalloc
from collections import Counter
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgetware._core.rate import LONGEST_WAIT_S, Rates, burst_of, retry_after_s


def test_a_burst_and_then_the_rate() -> None:
    """Ten at once, then one every tenth of a second; each refusal says when the next may come."""
    rates = Rates()

    answers = [rates.take("pro", "ann", 10.0, 10.0, 100.0) for _ in range(12)]

    assert answers[:10] == [0.0] * 10
    assert answers[10:] == pytest.approx([0.1, 0.1])
    assert rates.take("pro", "ann", 10.0, 10.0, 100.06) == pytest.approx(0.04)
    assert rates.take("pro", "ann", 10.0, 10.0, 100.1) == 0.0
    assert rates.take("pro", "ann", 10.0, 10.0, 100.1) > 0.0


def test_callers_and_tiers_do_not_touch_each_other() -> None:
    """Another caller, and the same name in another tier, have rates of their own."""
    rates = Rates()
    assert rates.take("free", "ann", 1.0, 1.0, 5.0) == 0.0
    assert rates.take("free", "ann", 1.0, 1.0, 5.0) > 0.0

    assert rates.take("free", "bob", 1.0, 1.0, 5.0) == 0.0
    assert rates.take("pro", "ann", 1.0, 1.0, 5.0) == 0.0
    assert rates.take(None, "ann", 1.0, 1.0, 5.0) == 0.0


def test_callers_nobody_knows_share_their_tiers_rate() -> None:
    """Without an identity the whole tier is one caller, which is not one named ``None``."""
    rates = Rates()
    assert rates.take("free", None, 1.0, 1.0, 5.0) == 0.0

    assert rates.take("free", None, 1.0, 1.0, 5.5) == pytest.approx(0.5)
    assert rates.take("free", "None", 1.0, 1.0, 5.5) == 0.0
    assert rates.take("pro", None, 1.0, 1.0, 5.5) == 0.0


def test_exactly_at_the_rate_is_within_it() -> None:
    """A caller that comes every interval is never refused, however the sums round."""
    rates = Rates()
    start_s = 86_400.0 * 400

    assert all(
        rates.take("t", "ann", 30.0, 1.0, start_s + number / 30.0) == 0.0
        for number in range(20_000)
    )


times = st.lists(st.floats(0, 3), min_size=1, max_size=80)


@given(times, st.floats(0.1, 50), st.floats(1, 20), st.integers(1, 4))
def test_no_window_sees_more_than_a_burst_and_the_rate(
    steps: list[float],
    rate: float,
    burst: float,
    most: int,
) -> None:
    """Whatever the pattern, and however small the table, any stretch admits burst + rate x time."""
    rates, now_s, admitted = Rates(most), 0.0, []
    pick = random.Random(len(steps))
    for step_s in steps:
        now_s += step_s * pick.choice((0, 0, 1))
        if rates.take("t", "ann", rate, burst, now_s) == 0.0:
            admitted.append(now_s)
        # Strangers that push others out.
        rates.take("t", pick.random(), rate, burst, now_s)

    for first, since_s in enumerate(admitted):
        for last in range(first, len(admitted)):
            allowed = burst + rate * (admitted[last] - since_s)
            assert last - first + 1 <= allowed + 1e-3


@given(st.floats(0, 10), st.floats(0.1, 50), st.floats(1, 20))
def test_waiting_as_long_as_told_is_enough(elapsed_s: float, rate: float, burst: float) -> None:
    """A caller that comes back after the seconds it was told is admitted."""
    rates = Rates()
    wait_s = 0.0
    while not wait_s:
        wait_s = rates.take("t", "ann", rate, burst, elapsed_s)

    assert rates.take("t", "ann", rate, burst, elapsed_s + wait_s) == 0.0


def test_a_million_callers_are_as_many_entries_as_there_may_be() -> None:
    """The table stays at its cap while a million different callers pass."""
    rates = Rates(10_000)
    for number in range(1_000_000):
        rates.take("free", number * 7919, 1.0, 1.0, number * 1e-5)

    assert len(rates) == len(rates._oldest) == 10_000
    assert rates._forgotten is not None
    assert len(rates._forgotten) == 10_000


def test_an_entry_is_small_whatever_a_caller_calls_itself() -> None:
    """Ten times as many callers as entries, all with long names, are those entries."""
    tracemalloc.start()
    rates = Rates(2000)
    for number in range(20_000):
        rates.take("free", f"{number}" * 500, 1.0, 1.0, number * 1e-5)
    size_bytes = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()

    assert size_bytes < 2000 * 250


def test_a_caller_that_was_forgotten_gets_no_new_burst() -> None:
    """A flooder that hides behind a crowd of strangers still has its rate and nothing more."""
    rates, now_s, admitted = Rates(64), 0.0, 0
    for stranger in range(20_000):
        now_s += 0.001
        rates.take("t", ("stranger", stranger), 1.0, 1.0, now_s)
        admitted += rates.take("t", "flooder", 2.0, 5.0, now_s) == 0.0

    assert admitted <= 5 + 2 * now_s


def test_few_callers_are_judged_by_themselves_alone() -> None:
    """As long as there is room, nobody is refused for what somebody else did."""
    rates = Rates(1000)
    pick = random.Random(5)
    owed: Counter[int] = Counter()
    for _ in range(20_000):
        caller = pick.randrange(1000)
        refused = rates.take("t", caller, 1.0, 5.0, 7.0) > 0
        assert refused == (owed[caller] >= 5)
        owed[caller] += not refused


def test_those_who_owe_nothing_make_room_first() -> None:
    """A newcomer takes the place of somebody long idle, not of who came before it."""
    rates = Rates(3)
    rates.take("t", "busy", 0.001, 1.0, 0.0)
    rates.take("t", "idle", 1.0, 1.0, 0.0)
    rates.take("t", "late", 0.001, 1.0, 0.0)

    assert rates.take("t", "new", 1.0, 1.0, 50.0) == 0.0

    assert hash(("t", "idle")) not in rates._arrival_s
    assert hash(("t", "busy")) in rates._arrival_s
    assert rates._forgotten is None


def test_a_clock_that_jumps_back_delays_nobody_for_long() -> None:
    """What was promised to a future that did not come is at most one burst."""
    rates = Rates()
    rates.take("t", "ann", 1.0, 3.0, 1e9)

    assert rates.take("t", "ann", 1.0, 3.0, 10.0) == pytest.approx(1.0)
    assert rates.take("t", "ann", 1.0, 3.0, 11.1) == 0.0


def test_a_faster_rate_forgives_old_debts() -> None:
    """After a reload nobody waits for a minute because of a rate that is gone."""
    rates = Rates()
    rates.take("t", "ann", 1 / 60, 1.0, 0.0)

    assert rates.take("t", "ann", 10.0, 10.0, 0.0) == pytest.approx(0.1)


@pytest.mark.parametrize("rate", [0.0, -1.0, nan])
def test_no_rate_admits_nothing(rate: float) -> None:
    """A rate of nothing is a no, with a finite wait."""
    assert Rates().take("t", "ann", rate, 1.0, 0.0) == LONGEST_WAIT_S


def test_odd_numbers_stay_finite() -> None:
    """The smallest rate admits one, an endless one everything, an odd burst counts as 1."""
    rates = Rates()
    assert [rates.take("t", 1, 5e-324, 1.0, 0.0) for _ in range(2)] == [0.0, LONGEST_WAIT_S]
    assert [rates.take("t", 2, inf, 1.0, 0.0) for _ in range(3)] == [0.0] * 3
    assert rates.take("t", 3, 1.0, nan, 0.0) == 0.0
    assert rates.take("t", 3, 1.0, 0.1, 0.0) == 1.0
    with pytest.raises(ValueError, match="room for one"):
        Rates(0)


def test_threads_together_get_what_one_would() -> None:
    """Thirty-two threads that share a caller are admitted its burst, exactly."""
    rates = Rates()
    barrier = threading.Barrier(32)
    admitted: list[int] = []

    def knock() -> None:
        barrier.wait()
        admitted.append(sum(rates.take("t", "ann", 1.0, 500.0, 1.0) == 0.0 for _ in range(200)))

    threads = [threading.Thread(target=knock) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(admitted) == 500


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_a_child_process_does_not_inherit_a_held_lock() -> None:
    """A fork while another thread is at it leaves the child able to go on."""
    rates = Rates()
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with rates._lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if child == 0:
        free = rates._lock.acquire(timeout=5)
        os._exit(0 if free and rates.take("t", "ann", 1.0, 1.0, 0.0) == 0.0 else 1)
    done.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0


def test_a_burst_is_a_seconds_worth() -> None:
    """And never less than one request."""
    assert [burst_of(rate) for rate in (0.2, 1.0, 50.0)] == [1.0, 1.0, 50.0]


@given(st.floats(0, 5000), st.floats(0, 1, exclude_max=True))
def test_retry_after_is_never_too_early(wait_s: float, draw: float) -> None:
    """Whole seconds, at least 1, not before the wait is over and not much later."""
    seconds = retry_after_s(wait_s, draw)

    assert seconds >= 1
    assert wait_s <= seconds <= wait_s + max(2.0, wait_s) + 1


def test_clients_refused_together_do_not_come_back_together() -> None:
    """The seconds are spread, for a short wait as for a long one, and odd waits are finite."""
    pick = random.Random(1)

    assert set(Counter(retry_after_s(0.1, pick.random()) for _ in range(500))) == {1, 2, 3}
    assert len({retry_after_s(20.0, pick.random()) for _ in range(500)}) == 20
    assert retry_after_s(inf, 0.0) == LONGEST_WAIT_S
    assert retry_after_s(nan, 0.0) == retry_after_s(-1.0, 0.0) == 1
