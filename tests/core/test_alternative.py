"""What runs in place of a stage that will not fit, and when an application is left for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any
from unittest.mock import Mock

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

    @handle.stage("db", fallback=lambda _: None)
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


def _any(*args: Any, **named: Any) -> Any:
    return args, named


def _two(user: str, depth: int = 1) -> Any:
    return user, depth


def _named(user: str, *, depth: int) -> Any:
    return user, depth


class _Model:
    def __init__(self, user: str) -> None:
        self.user = user

    def __call__(self, user: str) -> str:
        return user

    def score(self, user: str) -> str:
        return user


class _AsyncModel:
    async def __call__(self, user: str) -> str:
        return user


@pytest.mark.parametrize(
    ("function", "fallback"),
    [
        (_two, _any),
        (_two, _two),
        (_two, lambda _user, _depth=2: None),
        (_two, lambda *_: None),
        (lambda _: None, partial(_named, depth=1)),
        (_named, _named),
        (_named, lambda user, depth: (user, depth)),
        (_named, lambda _, **named: named),
        (_any, _two),
        (_any, _Model.score),
        (_any, lambda: None),
        (lambda _: None, _Model),
        (lambda _: None, _Model("x")),
        (lambda _: None, _Model("x").score),
        (lambda _: None, "x".join),
        (lambda _: None, print),
        (lambda _: None, int),
        (lambda _a, _b, _c: None, max),
        (lambda _: None, Mock()),
    ],
)
def test_what_can_be_called_in_its_place_is_taken(function: Any, fallback: Any) -> None:
    """However it is made, and whatever its arguments are called; of some builtins nobody knows."""
    assert callable(handle.stage("ml", fallback=fallback)(function))


@pytest.mark.parametrize(
    ("function", "fallback", "signatures"),
    [
        (_two, lambda: None, ["_two(user: 'str', depth: 'int' = 1)", "<lambda>()"]),
        (_two, lambda _: None, ["_two(user", "<lambda>(_)"]),
        (_two, lambda _a, _b: None, ["_two(user", "<lambda>(_a, _b)"]),
        (
            _two,
            partial(_named, depth=1),
            ["_two(user", "partial(user: 'str', *, depth: 'int' = 1)"],
        ),
        (_two, _named, ["_two(user", "_named(user: 'str', *, depth: 'int')"]),
        (_named, lambda _a, _b: None, ["_named(user", "<lambda>(_a, _b)"]),
        (_named, lambda _, *, other: other, ["_named(user", "<lambda>(_, *, other)"]),
        (
            lambda _self, _user: None,
            _Model("x").score,
            ["<lambda>(_self, _user)", "_Model.score(user"],
        ),
        (lambda: None, _Model, ["<lambda>()", "_Model(user"]),
        (lambda: None, _Model("x"), ["<lambda>()", "_Model(user"]),
        (lambda _a, _b, *_c: None, lambda _a: None, ["<lambda>(_a, _b, *_c)", "<lambda>(_a)"]),
        (lambda _, **_named: None, lambda: None, ["<lambda>(_, **_named)", "<lambda>()"]),
        (_old, lambda _: None, ["_old()", "<lambda>(_)"]),
    ],
)
def test_what_cannot_be_called_in_its_place_is_refused(
    function: Any, fallback: Any, signatures: list[str]
) -> None:
    """When it is decorated, with the fewest and with the most arguments; the error names both."""
    with pytest.raises(TypeError, match="the fallback of stage 'ml'") as refused:
        handle.stage("ml", fallback=fallback)(function)

    assert [one for one in signatures if one not in str(refused.value)] == []


@pytest.mark.parametrize("fallback", ["yesterday's", 0, (), {}, False])
def test_what_is_no_function_is_refused(fallback: Any) -> None:
    """Empty or not."""
    with pytest.raises(TypeError, match="the fallback of stage 'ml' must be a function"):
        handle.stage("ml", fallback=fallback)


@pytest.mark.parametrize("fallback", [_old, partial(_old), _AsyncModel()])
def test_a_plain_function_has_a_plain_fallback(fallback: Any) -> None:
    """What can only be awaited would never be; of a coroutine function it may be either."""
    with pytest.raises(TypeError, match="is a plain function, so its fallback must be one"):
        handle.stage("ml", fallback=fallback)(lambda *_: None)

    async def function(*_: object) -> None: ...

    for either in (fallback, lambda *_: None):
        assert asyncio.iscoroutinefunction(handle.stage("ml", fallback=either)(function))


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
