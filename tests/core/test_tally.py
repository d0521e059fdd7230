"""Running totals: every duration in its bucket once, whatever happens meanwhile."""

from __future__ import annotations

import gc
import random
import threading
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgetware._core import tally as tally_module
from budgetware._core.policy import OTHER, Amount, Ladder, Policy, Route, StagePolicy, TierPolicy
from budgetware._core.record import Outcome, outcome_of
from budgetware._core.tally import (
    MOST_BOUNDS,
    SECONDS_BOUNDS,
    UNDECLARED_NAMES,
    Distribution,
    Intake,
    RequestSeries,
    StageSeries,
    Tally,
    bounds_of,
)

# Quarters: sums of them are exact, and many are exactly at a bound.
seconds = st.integers(0, 60).map(lambda quarters: quarters / 4)


class Owner:
    """Somebody who leaves durations."""


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

    assert series.durations.count == sum(series.outcomes.values()) == 8 * 500
    assert sum(stage.durations.count for stage in tally.stages.values()) == 8 * 500
