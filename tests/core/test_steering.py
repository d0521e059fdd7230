"""The way of one request: what it is counted as, what it teaches, and what it may not."""

from __future__ import annotations

import os
import threading
from dataclasses import replace

import pytest

from budgetware._core.course import Course
from budgetware._core.decide import Action, Decision
from budgetware._core.forecast import Forecast
from budgetware._core.policy import Mode, Plan
from budgetware._core.steering import Steering, Traffic

PLAN = Plan(route="signals", tier="pro", limit_s=0.1, mode=Mode.ENFORCE)


class Play:
    """One lane's steering on a clock of its own."""

    def __init__(self, plan: Plan = PLAN) -> None:
        self.now_s = 1000.0
        self.told: list[Decision] = []
        self.traffic = Traffic(Forecast(), lambda: 0.5)
        self.steering = Steering(plan, self.traffic, self.now_s, self.told.append)

    def enter(self) -> tuple[Course, Decision]:
        """Begin a request."""
        course = Course(self.steering, self.now_s)
        return course, course.at(None, 0.1, self.now_s, 0.003, answers=True, behind=True)

    def serve(self, seconds: float, *, full: bool = True) -> Decision:
        """Serve a request that takes so many seconds whatever was decided."""
        course, decision = self.enter()
        self.now_s += seconds
        course.smaller = decision.action is Action.ANSWER
        course.leave(self.now_s, full=full)
        return decision


def test_a_cold_start_runs() -> None:
    """The first requests are let through, whatever they take."""
    play = Play()

    assert [play.serve(0.5).action for _ in range(3)] == [Action.RUN] * 3


def test_what_never_fits_is_answered() -> None:
    """Decisions that took a second thought are told of, with their numbers."""
    play = Play()
    for _ in range(3):
        play.serve(0.5)

    decision = play.serve(0.5, full=False)

    assert decision.action in {Action.ANSWER, Action.PROBE}
    assert decision.fits < 0.1
    assert play.told[-1] == decision


def test_what_fits_is_not_worth_a_word() -> None:
    """The hot case tells nobody."""
    play = Play()

    assert [play.serve(0.01).action for _ in range(50)] == [Action.RUN] * 50
    assert play.told == []


def test_a_request_with_a_stage_left_out_teaches_nothing() -> None:
    """Its time is neither that of the whole work nor a lower bound of it."""
    play = Play()
    for _ in range(20):
        play.serve(0.5)
    for _ in range(50):
        course, _ = play.enter()
        course.skipped = "own_fallback"
        course.leave(play.now_s + 0.001, full=True)

    _, decision = play.enter()

    assert decision.action is not Action.RUN


def test_shadow_never_probes() -> None:
    """Its requests run anyway."""
    play = Play(replace(PLAN, mode=Mode.SHADOW))
    actions = [play.serve(0.5).action for _ in range(20)]

    assert actions[:3] == [Action.RUN] * 3
    assert set(actions[5:]) == {Action.ANSWER}
    assert not play.steering.acts


def test_a_course_is_left_once() -> None:
    """However often the door says so."""
    play = Play()
    course, _ = play.enter()
    assert play.traffic.now == 1

    course.leave(play.now_s, full=True)
    course.leave(play.now_s, full=True)

    assert play.traffic.now == 0


def test_traffic_is_counted_exactly_from_many_threads() -> None:
    """In and out a hundred thousand times leaves nobody behind."""
    traffic = Traffic(Forecast(), lambda: 0.5)

    def pass_through() -> None:
        for _ in range(5000):
            traffic.enter()
            traffic.leave()

    threads = [threading.Thread(target=pass_through) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert traffic.now == 0


def test_a_promised_rate_of_late_answers_moves_the_bar() -> None:
    """More late ones than promised make it more careful; fewer, bolder."""
    play = Play(replace(PLAN, max_late=0.5))
    bars = [play.steering.least_fits]
    for took_s in (0.5, 0.5, 0.01, 0.01, 0.01):
        course = Course(play.steering, play.now_s)
        play.now_s += took_s
        course.leave(play.now_s, full=True)
        bars.append(play.steering.least_fits)

    assert bars[0] < bars[1] < bars[2]
    assert bars[2] > bars[3] > bars[4] > bars[5]
    assert play.steering.caution() == pytest.approx(-0.005)
    assert Play().steering.caution() == 0.0


def test_a_used_up_share_of_smaller_answers_is_seen_by_every_course() -> None:
    """Without such a promise there is no end of them."""
    plan = replace(PLAN, degraded=0.5)
    rationed, free = Play(plan), Play()
    for play in (rationed, free):
        for _ in range(3):
            course, _ = play.enter()
            course.smaller = True
            course.leave(play.now_s, full=False)

    assert rationed.enter()[0].rationed
    assert not free.enter()[0].rationed


def test_work_that_is_only_to_learn_is_rationed() -> None:
    """A process has a few to begin with, and earns more with its requests."""
    play = Play()
    course, _ = play.enter()
    first = 0
    while course.spend():
        first += 1
    for _ in range(200):
        play.serve(0.01)

    assert 0 < first < 10
    assert course.spend()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_begins_without_its_parents_requests() -> None:
    """They will never leave there."""
    traffic = Traffic(Forecast(), lambda: 0.5)
    traffic.enter()
    child = os.fork()
    if child == 0:
        os._exit(0 if traffic.now == 0 else 1)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert traffic.now == 1
