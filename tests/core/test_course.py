"""The way of one request: where it is decided on, what it notes, and what it teaches."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest
from tests.core.decided import LIMIT_S, Decided, Turning
from tests.core.programs import TICK, current

from budgetware._core.course import MOST_PASSINGS, Course
from budgetware._core.current import handle
from budgetware._core.decide import Action, Reason
from budgetware._core.forecast import Forecast
from budgetware._core.outlook import RouteForecast
from budgetware._core.path import Path
from budgetware._core.policy import Mode, Plan
from budgetware._core.steering import MOST_UNSERVED, Steering, Traffic
from budgetware.testing import deciding

PLAN = Plan(route="signals", tier="pro", limit_s=LIMIT_S, mode=Mode.ENFORCE)


Taught = list[tuple[str, Path]]
"""What the forecast was taught, and whether as a full path or as one cut short."""


@pytest.fixture
def taught(monkeypatch: pytest.MonkeyPatch) -> Taught:
    """Return what every forecast is taught in this test, in place of learning it."""
    found: Taught = []
    for kind, name in (("full", "learn"), ("cut", "learn_cut")):

        def note(_: object, path: Path, *, legs: bool, kind: str = kind) -> None:
            del legs
            found.append((kind, path))

        monkeypatch.setattr(RouteForecast, name, note)
    return found


def steering(plan: Plan = PLAN) -> Steering:
    """Return a steering that nobody listens to."""
    return Steering(plan, Traffic(Forecast(), lambda: 0.5), 0.0, lambda _: None)


def test_a_forced_decision_asks_no_forecast_and_is_told() -> None:
    """For tests of applications."""
    play = Decided()
    course = play.begin().course
    with deciding("reject"):
        decision = course.at(None, inf, play.clock())

    assert (decision.action, decision.reason) == (Action.REJECT, Reason.FORCED)
    assert play.decisions == {"reject": 1}


def test_without_room_for_a_forecast_everything_runs() -> None:
    """And nothing is learned, but the request is counted in and out."""
    blind = steering()
    blind.forecast = None
    course = Course(blind, 0.0)

    assert course.at(None, 0.0, 5.0, 1.0, answers=True).action is Action.RUN
    course.leave(9.0, full=True)
    assert blind.traffic.now == 0


def test_a_stage_in_a_loop_is_noted_so_often_and_no_more() -> None:
    """Each of its openings is decided on all the same."""
    course = Course(steering(), 0.0)
    for index in range(MOST_PASSINGS + 5):
        course.at("ml", LIMIT_S, index * TICK)
    course.at("db", LIMIT_S, 1.0)

    assert len(course._passings) == MOST_PASSINGS
    assert course._counts == {"ml": MOST_PASSINGS + 5}


def test_an_opening_belongs_to_the_last_decision_on_its_stage() -> None:
    """One that nobody decided on is nobody's."""
    course = Course(steering(), 0.0)
    for point in (None, "ml", "ml", "db"):
        course.at(point, LIMIT_S, TICK)
    for name, opening in (("ml", "second"), ("ml", "first"), ("ml", "none"), ("auth", "none")):
        course.opened(name, opening)

    assert [noted for *_, noted in course._passings] == [None, "first", "second", None]


def _history(play: Decided) -> Turning:
    """Serve a route that has become hopeless; return the next request."""
    for _ in range(30):
        play.serve(70 * TICK, 20 * TICK)
    return play.begin()


def test_a_hopeless_request_is_answered_or_is_a_probe() -> None:
    """A probe holds a permit, runs to its end undecided on, and its outcome is settled."""
    play = Decided()
    _history(play).course.leave(play.clock(), full=False)
    actions = []
    for _ in range(60):
        budget = play.begin()
        course = budget.course
        now_s = play.clock()
        decision = course.at(None, LIMIT_S, now_s, TICK, answers=True, behind=True)
        course.smaller = True
        assert course.probing == (decision.action is Action.PROBE)
        if course.probing:
            again = course.at(None, LIMIT_S, now_s, TICK, answers=True, behind=True)
            assert (again.action, again.reason) == (Action.RUN, Reason.PROBE_DUE)
        actions.append(decision.action)
        play.clock.advance(94 * TICK)
        course.leave(play.clock(), full=course.probing)

    assert set(actions) == {Action.ANSWER, Action.PROBE}


def test_a_probe_that_nobody_may_pay_for_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the question and the answer another request may have taken the last one."""
    play = Decided()
    course = _history(play).course
    probes = course._steering.probes
    monkeypatch.setattr(type(probes), "due", lambda *_: True)
    monkeypatch.setattr(type(probes), "take", lambda *_, **__: None)

    decision = course.at(None, LIMIT_S, play.clock(), TICK, answers=True, behind=True)

    assert decision.action is Action.ANSWER
    assert not course.probing


def test_a_request_that_waited_begins_when_it_comes_in(taught: Taught) -> None:
    """Neither the queue nor an upload is the service's time."""
    course = Course(steering(), 100.0)
    course.at(None, LIMIT_S, 100.0)
    course.wait_until(103.0)
    course.pause(2.0)
    course.leave(106.0, full=True)

    ((_, path),) = taught
    assert path.duration_s == 1.0
    assert path.passings[0][1] == 0.0


def test_under_another_tier_it_is_counted_as_that_tiers() -> None:
    """What was forecast of the promise before says nothing of this one."""
    before, after = steering(), steering(replace(PLAN, tier="free", mode=Mode.SHADOW))
    course = Course(before, 0.0)
    course.at(None, LIMIT_S, 0.0)
    course.under(after)

    assert (course.foreseen, course.acts) == (None, False)


def test_the_durations_of_openings_are_taught(taught: Taught) -> None:
    """An opening that was never left teaches none."""
    play = Decided()
    budget = play.begin()
    course = budget.course
    with current(budget):
        for name, leaves in (("db", True), ("auth", False)):
            course.at(name, LIMIT_S, play.clock())
            opening = handle.stage(name)
            course.opened(name, opening)
            play.clock.advance(2 * TICK)
            if leaves:
                opening.__exit__(None, None, None)
    play.end(budget)

    assert [stage_s for *_, stage_s in taught[0][1].passings] == [2 * TICK, None]


def test_what_was_cut_short_teaches_that_it_would_have_taken_longer(taught: Taught) -> None:
    """What had a stage left out teaches nothing."""
    steered = steering()
    for full, skipped in ((True, None), (False, None), (True, "unlikely"), (False, "unlikely")):
        course = Course(steered, 0.0)
        course.skipped = skipped
        course.leave(1.0, full=full)

    assert [kind for kind, _ in taught] == ["full", "cut"]


def test_what_was_foreseen_is_compared_with_what_came() -> None:
    """Of those that went their full way, and for which there was a forecast."""
    heard: list[tuple[float, bool]] = []

    def foreseen(fits: float, *, late: bool) -> None:
        heard.append((fits, late))

    traffic = Traffic(Forecast(), lambda: 0.5)
    steered = Steering(PLAN, traffic, 0.0, lambda _: None, foreseen)
    for said, took_s, full in ((0.9, TICK, True), (0.2, 1.0, True), (0.3, 1.0, False)):
        course = Course(steered, 0.0)
        course.foreseen = said
        course.leave(took_s, full=full)

    assert heard == [(0.9, False), (0.2, True)]


def test_a_course_whose_length_is_unknown_teaches_nothing(taught: Taught) -> None:
    """It is counted out, once, and a probe's permit is given back for another to try at once."""
    steered = steering()
    course = Course(steered, 0.0)
    course.at(None, LIMIT_S, TICK)
    course.permit = steered.probes.take("ml", 0.0, inf, behind=False)
    assert steered.traffic.now == 1

    course.abandon()
    course.abandon()
    course.leave(9.0, full=True)

    assert (steered.traffic.now, taught) == (0, [])
    assert steered.probes.due("ml", 0.0, inf)


def test_an_abandoned_course_teaches_nothing_and_is_over(taught: Taught) -> None:
    """Its request is counted out, once, and gives back the right to probe."""
    steered = steering()
    course = Course(steered, 0.0)
    course.permit = steered.probes.take(None, 100.0, 100.0, behind=True)
    assert course.permit is not None
    for _ in range(2):
        course.abandon()
    course.leave(1.0, full=True)

    assert taught == []
    assert steered.traffic.now == 0


def test_a_refused_request_teaches_only_what_refusing_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It proves nothing of full work, and another may probe at once."""
    refusals: list[Path] = []
    monkeypatch.setattr(
        RouteForecast, "learn_refusal", lambda _, path: refusals.append(path), raising=True
    )
    play = Decided()
    course = play.begin().course
    course.leave(play.clock() + TICK, full=True, status=404)

    assert len(refusals) == 1


@pytest.mark.parametrize("serves", [True, False])
def test_a_redirect_teaches_where_that_is_what_the_route_is_for(
    taught: Taught, *, serves: bool
) -> None:
    """On a route that also serves it is the way to a login page, mostly, and done at once."""
    steered = steering()
    for number in range(2 * MOST_UNSERVED):
        status = 200 if serves and number == MOST_UNSERVED - 1 else 302
        Course(steered, 0.0).leave(TICK, full=True, status=status)

    assert len(taught) == (1 if serves else MOST_UNSERVED)


def test_what_the_clock_answers_is_told_once() -> None:
    """In a mode that acts by whoever answers; in shadow when the request is looked back on."""
    for late, told in ((True, {"answer": 1}), (False, {})):
        play = Decided(Mode.SHADOW)
        course = play.begin().course
        course.raced, course.cost_s = True, TICK
        course.responds(play.clock() + (2 * LIMIT_S if late else TICK))
        course.leave(play.clock() + 3 * LIMIT_S, full=True)
        assert play.decisions == told
