"""Requests that are answered with something smaller, as the engine counts and tells them."""

from __future__ import annotations

from math import inf

import pytest
from tests.core.decided import LIMIT_S, Decided
from tests.core.programs import TICK, Play, current

from budgetware._core.audience import Observing
from budgetware._core.budget import Budget
from budgetware._core.current import handle
from budgetware._core.engine import ABSORB_AT, Engine
from budgetware._core.lane import Lane
from budgetware._core.policy import Mode
from budgetware._core.record import Outcome, RequestRecord


def test_a_lane_is_looked_up_before_its_budget_begins() -> None:
    """For doors that choose the kind of budget by it; what matches nothing has one, too."""
    play = Decided()
    lane = play.engine.lane("GET", "/signals", "pro", None)
    budget = play.engine.begin_in(Budget, lane)

    assert budget.lane is lane
    assert budget.deadline == play.clock() + LIMIT_S / 2
    assert play.engine.lane("GET", "/signals/", "gold", None).plan.tier == "free"
    assert play.engine.lane("GET", "/nowhere", None, None).plan.tier == "free"


def test_only_modes_that_decide_have_steering() -> None:
    """And of them only lanes that promise something."""
    for mode in Mode:
        lane = Decided(mode).engine.lane("GET", "/signals", "pro", None)
        assert (lane.steering is None) == (mode is Mode.OBSERVE)
    assert Engine().begin("GET", "/signals").lane.steering is None


def test_an_answer_is_counted_when_it_is_sent_and_told_once_it_has_left() -> None:
    """The work goes on, is in nobody's duration, and its stages are kept."""
    play = Decided()
    budget = play.begin()
    with current(budget):
        running = handle.stage("db")
        play.clock.advance(8 * TICK)
        record = play.engine.answered(budget, "static", "deadline", 202)
        assert play.alarms == []
        play.engine.announce(budget, record)
        play.clock.advance(100 * TICK)
        running.__exit__(None, None, None)
    play.engine.outlived(budget)
    play.engine.outlived(budget)
    play.engine.absorb()

    assert play.alarms == play.records == [record]
    assert record is not None
    assert (record.status, record.first_byte_s) == (202, record.duration_s)
    assert (record.outcome, record.answer, record.reason) == (
        Outcome.DEGRADED,
        "static",
        "deadline",
    )
    assert (record.elapsed_s, record.level) == (8 * TICK, None)
    series = play.engine.tally.requests["signals", "free"]
    assert {name: count for name, count in series.outcomes.items() if count} == {"degraded": 1}
    assert (series.durations.count, series.durations.total) == (1, 8 * TICK)
    assert play.engine.tally.stages["signals", "db"].durations.total == 108 * TICK
    assert play.engine.tally.degraded == {("signals", "free", "static", "deadline"): 1}


def test_a_refusal_is_an_outcome_of_its_own() -> None:
    """It counts as no smaller answer."""
    play = Decided()
    budget = play.begin()
    play.engine.announce(budget, play.engine.answered(budget, "reject", "unlikely"))
    play.engine.outlived(budget)
    play.engine.absorb()

    outcomes = play.engine.tally.requests["signals", "free"].outcomes
    assert {name: count for name, count in outcomes.items() if count} == {"rejected": 1}


def test_a_smaller_answer_that_is_late_is_a_late_one() -> None:
    """The promise was broken, whatever it was broken with."""
    play = Decided()
    budget = play.begin()
    play.clock.advance(LIMIT_S + 100 * TICK)
    play.engine.announce(budget, play.engine.answered(budget, "cached", "last_exit"))
    play.engine.absorb()

    outcomes = play.engine.tally.requests["signals", "free"].outcomes
    assert outcomes["breached"] == 1
    assert play.alarms[0].level is not None


def test_waits_for_the_client_are_left_out_of_an_answers_time() -> None:
    """As they are for any other response."""
    play = Decided()
    budget = play.begin()
    play.clock.advance(10 * TICK)
    budget.pause(6 * TICK)
    record = play.engine.answered(budget, "static", "deadline")

    assert record is not None
    assert (record.elapsed_s, record.waited_s) == (4 * TICK, 6 * TICK)


@pytest.mark.parametrize(("took", "outcome"), [(TICK, "degraded"), (LIMIT_S * 3, "breached")])
def test_an_answer_with_a_stage_left_out_is_partial(took: float, outcome: str) -> None:
    """It is counted as degraded if it came in time."""
    play = Decided()
    budget = play.begin()
    budget.course.skipped, budget.odd = "own_fallback", True
    play.clock.advance(took)
    play.end(budget)
    play.engine.absorb()

    outcomes = play.engine.tally.requests["signals", "free"].outcomes
    assert {name: count for name, count in outcomes.items() if count} == {outcome: 1}
    assert play.engine.tally.degraded == {("signals", "free", "partial", "own_fallback"): 1}
    assert [one.reason for one in play.alarms] == ["own_fallback"]


def test_many_answers_are_absorbed_on_the_way() -> None:
    """What is pending stays bounded however long nobody looks."""
    play = Decided()
    for _ in range(3 * ABSORB_AT):
        budget = play.begin()
        play.engine.announce(budget, play.engine.answered(budget, "static", "unlikely"))
        play.engine.outlived(budget)

    assert len(play.engine.tally.smaller) < ABSORB_AT
    play.engine.absorb()
    outcomes = play.engine.tally.requests["signals", "free"].outcomes
    assert outcomes["degraded"] == 3 * ABSORB_AT


def test_who_would_be_told_before_an_answer_is_told_of_it_after() -> None:
    """What is sent by the clock waits for nobody."""
    play, early = Decided(), list[RequestRecord]()
    play.engine.observe(Observing(early.append, before_answer=True))
    budget = play.begin()
    play.engine.announce(budget, play.engine.answered(budget, "static", "deadline"))

    assert [one.answer for one in early] == ["static"]


def test_an_early_observer_that_fails_costs_nothing_but_its_own_count() -> None:
    """The request is in the totals."""
    play = Play()

    def broken(record: RequestRecord) -> None:
        raise RuntimeError(record.route)

    play.engine.observe(Observing(broken, before_answer=True))
    play.engine.finish(play.engine.begin("GET", "/x"))
    play.engine.absorb()

    assert [(step, str(error)) for step, error in play.faults] == [("observe", "_unmatched")]
    assert sum(one.durations.count for one in play.engine.tally.requests.values()) == 1


def test_whatever_fails_while_an_answer_is_counted_is_a_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The client has its answer all the same, and nothing is announced that was not counted."""
    play = Decided()
    budget = play.begin()

    def broken(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    counted = play.engine.answered(budget, "static", "deadline")
    for step in ("outlive", "answer", "violate"):
        monkeypatch.setattr(Lane, step, broken)
    monkeypatch.setattr(play.engine._audience, "listeners", broken)
    record = play.engine.answered(budget, "static", "deadline")
    play.engine.announce(budget, record)
    play.engine.announce(budget, counted)
    play.engine.outlived(budget)

    assert record is None
    assert play.faults == {"answered": 1, "announce": 1, "outlived": 1}


def test_an_answer_without_a_promise_is_counted_too() -> None:
    """A refusal at the entrance may come before any budget."""
    engine = Engine()
    budget = engine.begin("GET", "/x")
    record = engine.answered(budget, "reject", "overloaded")

    assert record is not None
    assert (record.outcome, record.limit_s) == (Outcome.REJECTED, inf)


def test_a_request_whose_end_nobody_knows_is_in_no_total(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its budget is closed, its course is over, and the fault is counted."""
    for end in ("end", "lose", "outlived"):
        play = Decided()
        budget = play.begin()

        def broken() -> float:
            raise ValueError

        monkeypatch.setattr(play.engine, "clock", broken)
        getattr(play.engine, end)(budget)
        play.engine.absorb()

        assert budget.end == budget.start
        assert budget.course.left
        assert play.engine._traffic.now == 0
        assert play.engine.tally.faults == {end: 1}
        assert not any(one.outcomes[Outcome.MET] for one in play.engine.tally.requests.values())


def test_what_becomes_of_the_caches_part_is_counted_and_told_once() -> None:
    """Whoever listens hears of each reason once; a fault of theirs is counted."""
    heard: list[tuple[object, ...]] = []
    engine = Engine(on_not_kept=lambda *what: heard.append(what))
    for _ in range(2):
        engine.cached("signals", "pro", "not_kept", "varies", "on *")
    engine.cached("signals", "pro", "hit", "", "")

    assert heard == [("signals", "pro", "varies", "on *")]
    assert engine.tally.faults == {}

    def fails(*_: object) -> None:
        raise ValueError

    engine = Engine(on_not_kept=fails)
    engine.cached("signals", "pro", "not_kept", "varies", "on *")
    assert engine.tally.faults == {"cached": 1}


def test_a_clock_that_fails_at_the_start_lets_the_application_start() -> None:
    """Under a policy that decides, too."""

    def broken() -> float:
        raise ValueError

    engine = Engine(Decided().engine.policy, clock=broken)

    assert engine.lane("GET", "/signals", "pro", None).steering is not None
