"""What runs in place of a stage that will not fit, and when an application is left for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from tests.core.decided import Decided, Turning
from tests.core.programs import TICK, current

from budgetware._core import alternative
from budgetware._core.alternative import fits
from budgetware._core.course import Course
from budgetware._core.current import handle
from budgetware._core.decide import Action, Decision, Reason
from budgetware._core.interrupt import AnswerNow
from budgetware._core.policy import Mode
from budgetware.testing import deciding


@handle.stage("db", fallback=lambda: "yesterday's")
def score() -> str:
    """Return today's."""
    return "today's"


@handle.stage("db", "select", fallback=lambda: "yesterday's")
async def read() -> str:
    """Return today's."""
    return "today's"


async def _old() -> str:
    await asyncio.sleep(0)
    return "yesterday's"


@handle.stage("db", fallback=_old)
async def read_slowly() -> str:
    """Return today's."""
    return "today's"


def _coroutine(function: Callable[[], object]) -> Callable[[], object]:
    return lambda: asyncio.run(function())  # type: ignore[arg-type]


EITHER = pytest.mark.parametrize(
    "call", [score, _coroutine(read), _coroutine(read_slowly)], ids=["def", "async", "both async"]
)


@EITHER
def test_outside_a_request_the_stage_runs(call: Callable[[], object]) -> None:
    """There is nothing it would not fit in."""
    with deciding("skip"):
        assert call() == "today's"


@EITHER
def test_a_stage_that_fits_runs(call: Callable[[], object]) -> None:
    """And is an opening like any other."""
    play = Decided()
    budget = play.begin()
    with current(budget):
        assert call() == "today's"
    opened = [stage.name for stage in budget]
    play.end(budget)

    assert len(opened) == 1
    assert budget.course.skipped is None
    assert play.faults == {}


@EITHER
def test_a_stage_that_will_not_fit_is_left_out(call: Callable[[], object]) -> None:
    """Its fallback runs instead, and the response is counted as a smaller one."""
    play = Decided()
    budget = play.begin()
    with current(budget), deciding("skip"):
        assert call() == "yesterday's"
    play.end(budget)

    assert [(one.outcome.value, one.answer) for one in play.alarms] == [("degraded", "partial")]
    assert play.records[-1].openings == ()
    assert play.faults == {}


def test_the_forecast_says_that_a_stage_will_not_fit() -> None:
    """Once the stage has become slow; what comes before it is still done."""
    play = Decided()
    for _ in range(30):
        play.serve(4 * TICK, 80 * TICK)
    budget = play.begin()
    play.clock.advance(4 * TICK)
    with current(budget):
        assert not handle.affords("ml")
        assert handle.affords("never opened")

    assert budget.course.skipped in {"own_fallback", "unlikely"}


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.SHADOW])
def test_modes_that_do_not_act_leave_nothing_out(mode: Mode) -> None:
    """In shadow it is counted that something would have been."""
    play = Decided(mode)
    budget = play.begin()
    with current(budget), deciding("skip"):
        assert score() == "today's"
        assert handle.affords("ml")
    play.end(budget)

    assert play.decisions == ({"skip": 2} if mode is Mode.SHADOW else {})
    assert play.alarms == []


def test_nothing_is_left_out_once_the_client_has_an_answer() -> None:
    """The work behind it is to be whole; nor is it of a request that has ended."""
    play = Decided()
    behind, over = play.begin(), play.begin()
    behind.course.smaller = True
    play.end(over)
    with deciding("skip"):
        for budget in (behind, over):
            with current(budget):
                assert handle.affords("db")
                assert score() == "today's"


def test_nothing_is_left_out_once_the_response_has_begun() -> None:
    """Its headers have left, and could not say any more that something is missing."""
    play = Decided()
    budget = play.begin()
    budget.status = 200
    with current(budget), deciding("skip"):
        assert handle.affords("db")
        assert score() == "today's"

    assert budget.course.skipped is None


def test_a_response_that_begins_while_it_is_decided_is_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another thread may begin it at any moment: then it was too late to leave something out."""
    play = Decided()
    budget = play.begin()

    def decide(*_: object) -> Decision:
        budget.status = 200
        return Decision(Action.SKIP, Reason.OWN_FALLBACK)

    monkeypatch.setattr(alternative, "_decision", decide)
    with current(budget):
        assert score() == "today's"

    assert budget.course.skipped is None
    play.end(budget)
    assert play.faults == {}


def test_affords_asks_for_itself_whatever_runs_instead() -> None:
    """Without a fallback the answer is about giving the request up."""
    play = Decided()
    budget = play.begin()

    assert fits(budget, "ml", fallback=False)
    with deciding("answer"):
        assert not fits(budget, "ml", fallback=False)


def test_the_stage_is_told_how_long_it_took() -> None:
    """Decided on once, each opening is noted once, however often the stage is opened."""
    play = Decided()
    budget = play.begin()

    @handle.stage("db", fallback=lambda: None)
    def work(ticks: int) -> None:
        play.clock.advance(ticks * TICK)

    with current(budget):
        work(3)
        with handle.stage("db"):
            play.clock.advance(TICK)
        work(5)
    openings = list(budget)
    play.end(budget)

    assert [opened for *_, opened in budget.course._passings] == [openings[0], openings[2]]


def test_a_block_cannot_be_left_out() -> None:
    """The error says what can."""
    block = handle.stage("ml", fallback=lambda: None)

    with pytest.raises(TypeError, match=r"@budget.stage\('ml', fallback=.*budget.affords\('ml'\)"):
        block.__enter__()


def test_functions_that_cannot_have_that_fallback_are_refused() -> None:
    """When they are decorated, not when the stage does not fit for the first time."""

    def parts() -> Iterator[int]:
        yield 1

    async def more_parts() -> AsyncIterator[int]:
        yield 1

    for generator in (parts, more_parts):
        with pytest.raises(TypeError, match="a generator cannot have a fallback"):
            handle.stage("ml", fallback=list)(generator)
    with pytest.raises(TypeError, match="is a plain function, so its fallback must be one"):
        handle.stage("ml", fallback=_old)(lambda: None)


def test_a_request_is_left_when_a_stage_opens_that_ends_it() -> None:
    """Only where the plan asks for that, and nothing is opened then."""
    play = Decided()
    budget = play.begin()
    with current(budget), deciding("answer"):
        with handle.stage("db"):
            play.clock.advance(TICK)
        with pytest.raises(AnswerNow) as left:
            handle.stage("ml")

    assert (left.value.budget, left.value.reason) == (budget, "forced")
    assert budget.turns == ["forced"]
    assert [stage.name for stage in budget] == ["db"]


def _has_begun(budget: Turning) -> None:
    budget.status = 200


def _is_shielded(budget: Turning) -> None:
    budget.is_shielded = True


def _is_answered(budget: Turning) -> None:
    budget.course.smaller = True


def _has_no_course(budget: Turning) -> None:
    del budget.course


@pytest.mark.parametrize("state", [_has_begun, _is_shielded, _is_answered, _has_no_course])
def test_a_request_is_not_left_when(state: Callable[[Turning], None]) -> None:
    """Its response has begun, it is held on to, answered, or nothing is decided."""
    play = Decided()
    budget = play.begin()
    state(budget)
    with current(budget), deciding("answer"), handle.stage("ml"):
        play.clock.advance(TICK)

    assert [stage.name for stage in budget] == ["ml"]
    assert budget.turns == []
    assert play.faults == {}


def test_a_request_that_fits_and_one_in_shadow_are_not_left() -> None:
    """Shadow only counts it."""
    for play, action in ((Decided(), "run"), (Decided(Mode.SHADOW), "answer")):
        budget = play.begin()
        with current(budget), deciding(action), handle.stage("ml"):
            play.clock.advance(TICK)

        assert play.decisions == {action: 1}
        assert [stage.name for stage in budget] == ["ml"]


def test_an_application_may_ask_for_something_smaller() -> None:
    """With its own reason, as a word."""
    play = Decided()
    budget = play.begin()
    with current(budget), pytest.raises(AnswerNow) as left:
        handle.degrade("Stale_prices")
    assert left.value.reason == "stale_prices"
    assert budget.turns == ["stale_prices"]

    with current(play.begin()), pytest.raises(AnswerNow) as left:
        handle.degrade("user 4711 has no prices")
    assert left.value.reason == "_OTHER"


def test_asking_for_something_smaller_in_vain() -> None:
    """Outside a request, outside ``enforce``, and once the response has begun nothing happens."""
    handle.degrade("cheap")
    for mode in (Mode.OBSERVE, Mode.SHADOW):
        with current(Decided(mode).begin()):
            handle.degrade("cheap")
    begun = Decided().begin()
    begun.status = 200
    with current(begun):
        handle.degrade("cheap")

    assert begun.turns == []


def test_whatever_fails_inside_the_application_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages run, and what failed is counted under its step."""

    def broken(*_: object, **__: object) -> Decision:
        raise RuntimeError("a fault of ours")

    for step in ("at", "opened", "acts"):
        monkeypatch.setattr(Course, step, property(broken) if step == "acts" else broken)
    play = Decided()
    with current(play.begin()):
        assert handle.affords("ml")
        assert score() == "today's"
        handle.degrade("cheap")

        with handle.stage("ml"):
            play.clock.advance(TICK)

    assert play.faults == {"decide": 3, "opened": 1, "degrade": 1}


def test_a_turn_that_cannot_be_noted_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody but the door needs the note."""

    def broken(_: object, __: str) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(Turning, "turn", broken)
    play = Decided()
    with current(play.begin()), pytest.raises(AnswerNow):
        handle.degrade("cheap")

    assert play.faults == {"turn": 1}
