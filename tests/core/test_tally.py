"""Running totals: every duration in its bucket once, whatever happens meanwhile."""

from __future__ import annotations

import gc
import random
import threading
from collections.abc import Callable
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgetware._core import tally as tally_module
from budgetware._core.decide import Action, Decision, Reason
from budgetware._core.distribution import Distribution
from budgetware._core.policy import (
    Amount,
    Ladder,
    Mode,
    Plan,
    Policy,
    Route,
    StagePolicy,
    TierPolicy,
)
from budgetware._core.quota import DegradedQuota
from budgetware._core.record import Outcome, outcome_of
from budgetware._core.tally import (
    MOST_BOUNDS,
    SECONDS_BOUNDS,
    UNDECLARED_NAMES,
    Intake,
    RequestSeries,
    StageSeries,
    Tally,
    bounds_of,
)
from budgetware.names import OTHER

# Quarters: sums of them are exact, and many are exactly at a bound.
seconds = st.integers(0, 60).map(lambda quarters: quarters / 4)


class Owner:
    """Somebody who leaves durations."""


rungs = st.lists(st.integers(1, 12).map(lambda eighths: eighths / 4), min_size=3, max_size=3)


@given(
    st.lists(seconds, max_size=30),
    st.sampled_from([0.25, 1.0, 2.0, 4.0, inf]),
    rungs.map(sorted),
)
def test_outcomes_follow_from_durations(
    durations: list[float],
    limit_s: float,
    steps: list[float],
) -> None:
    """What an intake counts is what ``outcome_of`` says of each, exactly at a rung too."""
    ladder = Ladder(warning=steps[0], critical=steps[1], breach=steps[2])
    series, owner = RequestSeries("signals", None, Distribution(SECONDS_BOUNDS)), Owner()
    intake = Intake(series, limit_s, ladder, owner, lambda _: None)
    intake.pending.extend(durations)

    taken = intake.take()

    assert taken == (series, sorted(durations))
    assert intake.pending == []
    expected = dict.fromkeys((outcome.value for outcome in Outcome), 0)
    for duration in durations:
        expected[outcome_of(duration, limit_s, ladder).value] += 1
    assert series.outcomes == expected


def test_what_a_lane_left_outlives_it() -> None:
    """Durations of an owner that is gone are absorbed; only then its intake is forgotten."""
    tally, owner = Tally(), Owner()
    series = tally.request("signals", "pro")
    tally.intake(series, 1.0, Ladder(), owner).pending.extend([0.5, 3.0])
    del owner
    gc.collect()
    heir = Owner()
    tally.intake(series, 1.0, Ladder(), heir)
    assert len(tally._intakes) == 2

    tally.absorb()

    assert len(tally._intakes) == 1
    assert series.durations.count == 2
    assert series.outcomes[Outcome.MET] == series.outcomes[Outcome.BREACHED] == 1


def test_drained_durations_go_to_whoever_asked() -> None:
    """They are handed over outside the lock and do not reach the buckets."""
    tally, owner = Tally(), Owner()
    requests, stages = tally.request("signals", "pro"), tally.stage("signals", "db")
    quiet = tally.stage("signals", "ml")
    tally.intake(requests, 1.0, Ladder(), owner).pending.extend([0.5, 0.25])
    idle = Owner()
    tally.intake(tally.request("report", "pro"), 1.0, Ladder(), idle)
    stages.pending.append(0.125)
    seen: list[tuple[object, list[float]]] = []

    def note(series: RequestSeries | StageSeries, values: list[float]) -> None:
        seen.append((series, values))

    tally.drain(note, note)

    assert seen == [(requests, [0.25, 0.5]), (stages, [0.125])]
    assert requests.outcomes[Outcome.MET] == 2
    assert requests.durations.count == stages.durations.count == quiet.durations.count == 0


def test_totals_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the cap everything is one ``_OTHER``; what had totals keeps them."""
    monkeypatch.setattr(tally_module, "MOST_SERIES", 3)
    tally = Tally()
    for number in range(10):
        tally.request(f"r{number}", "pro")
        tally.stage("signals", f"s{number}")

    assert list(tally.requests) == [("r0", "pro"), ("r1", "pro"), ("r2", "pro"), (OTHER, None)]
    assert tally.request("r7", "free") is tally.requests[OTHER, None]
    assert tally.request("r1", "pro").route == "r1"
    assert list(tally.stages)[3:] == [(OTHER, OTHER)]
    assert tally.stage("x", "y") is tally.stages[OTHER, OTHER]


def test_smaller_answers_are_counted_with_their_durations() -> None:
    """Outcome and duration come together, whether sorted into buckets or handed over."""
    tally = Tally()
    pro, free = tally.request("signals", "pro"), tally.request("signals", "free")
    tally.smaller += [(pro, "degraded", 0.25), (free, "rejected", 0.125), (pro, "degraded", 0.5)]
    assert pro.outcomes[Outcome.DEGRADED] == pro.durations.count == 0

    tally.absorb()

    assert (pro.outcomes[Outcome.DEGRADED], free.outcomes[Outcome.REJECTED]) == (2, 1)
    assert (pro.durations.count, pro.durations.total) == (2, 0.75)
    assert free.durations.count == 1

    tally.smaller += [(pro, "rejected", 2.0), (pro, "degraded", 1.0)]
    seen: list[tuple[object, list[float]]] = []
    tally.drain(lambda *told: seen.append(told), lambda *told: seen.append(told))

    assert seen == [(pro, [2.0, 1.0])]
    assert (pro.outcomes[Outcome.DEGRADED], pro.outcomes[Outcome.REJECTED]) == (3, 1)
    assert pro.durations.count == 2
    assert tally.smaller == []


PRO = Plan(route="signals", tier="pro", limit_s=0.1)


def test_forecasts_are_checked() -> None:
    """What was expected and what became of it are summed, by what the forecast said."""
    tally = Tally()
    for fits, late in ((0.75, False), (0.75, True), (0.25, True), (0.5, False)):
        tally.foreseen(PRO, fits, late=late)

    likely, unlikely = (tally.forecasts["signals", "pro", said] for said in (True, False))
    assert (likely.checked, likely.expected_late, likely.late) == (3, 1.0, 1)
    assert (unlikely.checked, unlikely.expected_late, unlikely.late) == (1, 0.75, 1)


@pytest.mark.parametrize("fits", [float("nan"), inf, -inf, -0.001, 1.001])
def test_what_is_no_probability_is_not_checked(fits: float) -> None:
    """One bad number does not spoil the sum for good."""
    tally = Tally()
    tally.foreseen(PRO, fits, late=True)

    assert tally.forecasts == {}


def test_checked_forecasts_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the cap they are one ``_OTHER`` for what was likely and one for what was not."""
    monkeypatch.setattr(tally_module, "MOST_SERIES", 2)
    tally = Tally()
    for number in range(6):
        tally.foreseen(Plan(route=f"r{number}"), number / 5, late=False)

    assert {key: one.checked for key, one in tally.forecasts.items()} == {
        ("r0", None, False): 1,
        ("r1", None, False): 1,
        (OTHER, None, False): 1,
        (OTHER, None, True): 3,
    }


def test_decisions_answers_and_passages_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind has its own totals; past the cap answers and passages are ``_OTHER``."""
    monkeypatch.setattr(tally_module, "MOST_SERIES", 2)
    tally = Tally()
    for reason in (Reason.COLD, Reason.COLD, Reason.LATER, Reason.FORCED):
        tally.decided(PRO, Decision(Action.RUN, reason))
    for why in ("cold", "later", "cold", "slow", "cheap"):
        tally.answered(PRO, "cached", why)
    for tier in ("pro", "free", "pro", "team"):
        tally.passed(tier, Mode.ENFORCE, "rate")

    run = ("signals", "pro", Mode.OBSERVE, Action.RUN)
    assert tally.decisions == {(*run, Reason.COLD): 2, (*run, Reason.LATER): 1}
    assert tally.degraded == {
        ("signals", "pro", "cached", "cold"): 2,
        ("signals", "pro", "cached", "later"): 1,
        (OTHER, None, "cached", OTHER): 2,
    }
    assert tally.admission == {
        ("pro", Mode.ENFORCE, "rate"): 2,
        ("free", Mode.ENFORCE, "rate"): 1,
        (OTHER, Mode.ENFORCE, "rate"): 1,
    }


def test_a_quota_is_watched_as_long_as_it_is_in_use() -> None:
    """One that was replaced, taken back or let go is not reported any more."""
    tally = Tally()
    first, second = DegradedQuota(0.1), DegradedQuota(0.2)
    other = DegradedQuota(0.3)
    tally.watch_quota(PRO, first)
    tally.watch_quota(PRO, second)
    tally.watch_quota(Plan(route="report"), other)
    del first
    gc.collect()
    assert dict(tally.quotas) == {("signals", "pro"): second, ("report", None): other}

    tally.watch_quota(PRO, None)
    tally.watch_quota(PRO, None)
    assert dict(tally.quotas) == {("report", None): other}

    del other
    gc.collect()
    assert dict(tally.quotas) == {}


def test_undeclared_names_are_admitted_up_to_a_cap() -> None:
    """The first ones keep their names for good."""
    tally = Tally()
    names = [f"s{number}" for number in range(UNDECLARED_NAMES + 5)]

    assert [tally.admits(name) for name in names] == [True] * UNDECLARED_NAMES + [False] * 5
    assert tally.admits(names[0])


def test_faults_are_counted_by_step() -> None:
    """Each step has a count of its own."""
    tally = Tally()

    assert [tally.fault("end"), tally.fault("tell"), tally.fault("end")] == [1, 1, 2]
    assert tally.faults == {"end": 2, "tell": 1}


def test_promises_are_bounds_of_their_own() -> None:
    """Budgets and allocations become exact bounds, budgets first, until there are enough."""
    stages = {f"s{number}": StagePolicy(budget=Amount(0.0001 * number)) for number in range(1, 40)}
    policy = Policy(
        tiers={"pro": TierPolicy(budget=0.042), "beta": TierPolicy()},
        routes={"signals": Route(name="signals", budget=0.033, stages=stages)},
    )

    bounds = bounds_of(policy)

    assert set(SECONDS_BOUNDS) < set(bounds)
    assert {0.042, 0.033} < set(bounds)
    assert len(bounds) == MOST_BOUNDS
    assert list(bounds) == sorted(bounds)
    assert bounds_of(Policy()) == SECONDS_BOUNDS


def test_nothing_is_lost_while_threads_append_and_absorb() -> None:
    """New series may appear, and durations come in, in the middle of it."""
    tally, owner = Tally(), Owner()
    series = tally.request("signals", None)
    pending = tally.intake(series, 1.0, Ladder(), owner).pending
    stop = threading.Event()

    def absorb() -> None:
        while not stop.is_set():
            tally.absorb()

    def append(seed: int) -> None:
        pick = random.Random(seed)
        for number in range(500):
            pending.append(pick.random())
            tally.smaller.append((series, "degraded", 0.5))
            tally.foreseen(PRO, 0.75, late=False)
            tally.stage("signals", f"s{seed}-{number % 50}").pending.append(0.5)

    absorber = threading.Thread(target=absorb)
    threads = [threading.Thread(target=append, args=(seed,)) for seed in range(8)]
    for thread in (absorber, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    absorber.join()
    tally.absorb()

    assert series.durations.count == sum(series.outcomes.values()) == 2 * 8 * 500
    assert series.outcomes[Outcome.DEGRADED] == 8 * 500
    fared = tally.forecasts["signals", "pro", True]
    assert (fared.checked, fared.expected_late, fared.late) == (8 * 500, 1000.0, 0)
    assert sum(stage.durations.count for stage in tally.stages.values()) == 8 * 500


def test_a_tally_is_idle_until_something_is_counted() -> None:
    """Be it a request, a fault or what became of the cache's part in one."""
    counts: list[Callable[[Tally], object]] = [
        lambda tally: tally.fault("begin"),
        lambda tally: tally.cached("signals", "pro", "miss", ""),
        lambda tally: tally.passed("pro", Mode.ENFORCE, "refused"),
        lambda tally: tally.answered(Plan(route="a"), "static", "deadline"),
    ]
    for count in counts:
        tally = Tally()
        assert tally.idle
        count(tally)
        assert (tally.counted, tally.idle) == (1, False)


def test_caches_are_counted_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of each is told apart, for the log; what is beyond the bound is one."""
    monkeypatch.setattr(tally_module, "MOST_SERIES", 1)
    tally = Tally()

    first = [tally.cached(route, None, "not_kept", "varies") for route in ("a", "a", "b", "c")]

    assert first == [True, False, True, False]
    assert tally.cache == {
        ("a", None, "not_kept", "varies"): 2,
        (OTHER, None, "not_kept", "varies"): 2,
    }


def test_what_a_parent_has_counted_leaves_its_child_idle() -> None:
    """Until it counts something of its own."""
    tally = Tally()
    tally.fault("begin")
    tally_module._begin_anew()

    assert (tally.counted, tally.idle) == (1, True)
    tally.fault("begin")
    assert not tally.idle
