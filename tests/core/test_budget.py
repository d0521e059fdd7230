"""One request's account: time left, waits left out, and bounds on what it keeps."""

from __future__ import annotations

import gc
import weakref
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.programs import POLICY, START, TICK, Play, current, stage

from budgetware._core import budget as budget_module
from budgetware._core.budget import MOST_STAGES
from budgetware._core.current import handle


def test_remaining_is_the_deadline_less_now() -> None:
    """It depends on the clock alone, goes below zero, and stands still at the end."""
    play = Play(POLICY)
    budget = play.engine.begin("GET", "/x", "pro")
    assert (budget.remaining(), budget.elapsed()) == (32 * TICK, 0.0)

    play.clock.advance(40 * TICK)
    assert (budget.remaining(), budget.elapsed()) == (-8 * TICK, 40 * TICK)

    play.engine.finish(budget)
    play.clock.advance(40 * TICK)
    assert (budget.remaining(), budget.elapsed()) == (-8 * TICK, 40 * TICK)


def test_without_a_limit_time_never_runs_out() -> None:
    """Nothing promised leaves infinitely much, of which nobody has a claim on anything."""
    budget = Play().engine.begin("GET", "/x")

    assert budget.deadline == budget.remaining() == budget.pool() == inf


def test_the_pool_is_what_nobody_has_a_claim_on() -> None:
    """Reserve and stages still to run have claims; an optional stage has one once it is opened."""
    play = Play(POLICY)
    budget = play.engine.begin("GET", "/x", "pro")
    with current(budget):
        assert budget.pool() == (32 - 2 - 8) * TICK
        with handle.stage("ml"):
            assert budget.pool() == (32 - 2 - 8 - 6) * TICK
            play.clock.advance(2 * TICK)
            # Two ticks of time less, but ml has used two of what it claimed.
            assert budget.pool() == (32 - 2 - 8 - 6) * TICK
        with handle.stage("db"):
            play.clock.advance(10 * TICK)
        # db is done for and claims nothing; what it overdrew is gone from the pool.
        assert budget.pool() == (32 - 2 - 12 - 4) * TICK


@pytest.mark.parametrize("most", [1, 256])
def test_the_pool_counts_overlapping_openings_once(
    most: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whether kept or settled, parallel openings of a stage use its allocation up once."""
    monkeypatch.setattr(budget_module, "MOST_STAGES", most)
    play = Play(POLICY)
    budget = play.engine.begin("GET", "/x", "pro")
    with current(budget):
        opened = [handle.stage("db", "select") for _ in range(4)]
        play.clock.advance(3 * TICK)
        handle.stage("free-form")
        assert budget.pool() == (32 - 2 - 3 - 5) * TICK
        play.clock.advance(TICK)
        for one in opened:
            one.__exit__(None, None, None)

    assert budget.pool() == (32 - 2 - 4 - 4) * TICK


def test_another_tier_is_planned_from_the_same_start() -> None:
    """What was used stays used; limits, claims and totals are the new tier's."""
    play = Play(POLICY)
    budget = play.engine.begin("GET", "/x")
    with current(budget):
        play.clock.advance(10 * TICK)
        assert handle.remaining() == 54 * TICK
        handle.tier = "pro"
        assert (handle.tier, handle.remaining()) == ("pro", 22 * TICK)
        assert handle.pool() == (22 - 2 - 8) * TICK
    play.engine.finish(budget)

    assert (play.records[-1].tier, play.records[-1].limit_s) == ("pro", 32 * TICK)
    play.engine.absorb()
    assert play.engine.tally.requests["x", "pro"].durations.count == 1
    assert play.engine.tally.requests["x", "free"].durations.count == 0


def test_waits_for_the_client_are_part_of_no_figure() -> None:
    """Elapsed, stages and the first byte stand still while the client keeps us waiting."""
    play = Play(POLICY)
    budget = play.engine.begin("GET", "/x", "pro")
    with current(budget), handle.stage("db"):
        play.clock.advance(TICK)
        budget.answering(play.clock())
        play.clock.advance(5 * TICK)
        budget.pause(5 * TICK)
        play.clock.advance(TICK)
    assert budget.elapsed() == 2 * TICK
    budget.pause(0.0)
    budget.pause(-1.0)
    play.engine.finish(budget)
    budget.pause(TICK)

    record = play.records[-1]
    assert (record.duration_s, record.waited_s) == (2 * TICK, 5 * TICK)
    assert (record.elapsed_s, record.first_byte_s) == (TICK, TICK)
    assert stage(record, "db").spent_s == 2 * TICK


spells = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=4)


@given(spells)
def test_waits_that_overlap_never_lengthen_the_budget(found: list[tuple[int, int]]) -> None:
    """At most the time of all waits together is left out, however they overlap."""
    play = Play(POLICY)
    budget = play.engine.begin("GET", "/x")
    play.clock.advance(TICK)
    ends = sorted((start + length, start) for start, length in found)
    for end, start in ends:
        play.clock.advance(START + (1 + end) * TICK - play.clock())
        budget.pause((end - start) * TICK)
        assert 0.0 <= budget.elapsed() <= play.clock() - START
        assert budget.remaining() <= 64 * TICK

    covered = {tick for end, start in ends for tick in range(start, end)}
    assert getattr(budget, "waited_s", 0.0) <= len(covered) * TICK
    assert budget.elapsed() >= (1 + ends[-1][0] - len(covered)) * TICK


def test_a_wait_longer_than_the_request_leaves_out_all_of_it() -> None:
    """It may have begun before the request did; time still does not run backwards."""
    budget = Play(POLICY).engine.begin("GET", "/x")
    budget.pause(100 * TICK)

    assert (budget.elapsed(), budget.remaining()) == (0.0, 64 * TICK)


def test_waits_one_after_the_other_are_left_out_exactly() -> None:
    """Also when one begins before the other has ended."""
    play = Play(POLICY)
    budget = play.engine.begin("GET", "/x")
    play.clock.advance(5 * TICK)
    play.clock.advance(10 * TICK)
    budget.pause(10 * TICK)
    play.clock.advance(5 * TICK)
    budget.pause(10 * TICK)  # it had begun in the middle of the first one

    assert budget.elapsed() == 5 * TICK
    assert budget.waited_s == 15 * TICK


def test_a_finished_budget_is_inert() -> None:
    """Stages opened from then on cost next to nothing and are not kept."""
    play = Play(POLICY)
    budget = play.engine.begin("GET", "/x")
    play.engine.finish(budget)
    with current(budget):
        for _ in range(1000):
            with handle.stage("late"):
                play.clock.advance(TICK)
        handle.tier = "pro"

    assert len(budget) <= 1
    assert handle.tier is None
    assert (len(play.records), play.records[0].stages) == (1, ())
    play.engine.finish(budget)
    assert len(play.records) == 1


@pytest.mark.parametrize("openings", [0, 8, 3 * MOST_STAGES])
def test_a_finished_budget_is_gone_at_once(openings: int) -> None:
    """No cycle keeps it: reference counting is enough, with the collector switched off."""
    play = Play(POLICY)
    gc.disable()
    try:
        budget = play.engine.begin("GET", "/x")
        with current(budget):
            for _ in range(openings):
                with handle.stage("db"):
                    pass
        play.engine.finish(budget)
        gone = weakref.ref(budget)
        del budget
        assert gone() is None
    finally:
        gc.enable()


def test_without_a_clock_nothing_limits_a_request() -> None:
    """Its calls say so, and none of them raises."""
    play = Play(POLICY)
    budget = play.engine.begin("GET", "/x", "pro")

    def broken() -> float:
        raise ValueError

    budget.clock = broken

    assert (budget.remaining(), budget.elapsed(), budget.pool()) == (inf, 0.0, inf)
