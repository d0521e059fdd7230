"""One opening of a stage: how it is closed, and what is noted of that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from decimal import Decimal
from math import inf
from typing import Any

import pytest
from tests.core.programs import TICK, Play, current, stage

from budgetware._core.current import current_budget, handle
from budgetware._core.engine import Engine
from budgetware._core.record import Ending, RequestRecord
from budgetware._core.stage import checked, stage_type
from budgetware.testing import FakeClock


def _finished(play: Play) -> RequestRecord:
    return play.records[-1]


@pytest.mark.parametrize(
    "kind",
    [
        ValueError,
        TimeoutError,
        KeyboardInterrupt,
        SystemExit,
        GeneratorExit,
        asyncio.CancelledError,
        StopIteration,
        BaseException,
    ],
)
def test_any_exception_closes_the_stage_and_passes_on(kind: type[BaseException]) -> None:
    """The stage is marked failed; the exception is the same object outside."""
    play, error = Play(), kind()
    budget = play.engine.begin("GET", "/x")
    caught: BaseException | None = None
    with current(budget):
        try:
            with handle.stage("db"):
                play.clock.advance(TICK)
                raise error  # noqa: TRY301 - what the stage does with it is the test
        except BaseException as seen:  # noqa: BLE001 - likewise
            caught = seen
    play.engine.finish(budget)

    assert caught is error
    (opening,) = _finished(play).openings
    assert (opening.ending, opening.error) == (Ending.FAILED, kind.__name__)
    assert opening.duration_s == TICK


def test_a_stage_that_ends_well_is_closed() -> None:
    """No exception, no error."""
    play = Play()
    budget = play.engine.begin("GET", "/x")
    with current(budget), handle.stage("db", "select"):
        play.clock.advance(TICK)
    play.engine.finish(budget)

    (opening,) = _finished(play).openings
    assert opening == ("db", "select", 0.0, TICK, Ending.CLOSED, None)


def test_the_call_opens_the_stage() -> None:
    """As with ``open()``, the block only sees to it that it is closed."""
    play = Play()
    budget = play.engine.begin("GET", "/x")
    with current(budget):
        opened = handle.stage("db")
        play.clock.advance(TICK)
        with opened:
            play.clock.advance(TICK)
    play.engine.finish(budget)

    assert stage(_finished(play), "db").spent_s == 2 * TICK


def test_stages_may_be_left_in_any_order_and_anywhere() -> None:
    """Out of order, in another task, in another context: the times are right and nothing raises."""
    play = Play()
    budget = play.engine.begin("GET", "/x")

    async def drive() -> None:
        with current(budget):
            first, second = handle.stage("auth"), handle.stage("db")

        async def leave(one: object) -> None:
            play.clock.advance(TICK)
            one.__exit__(None, None, None)  # type: ignore[attr-defined]

        await asyncio.create_task(leave(first))
        await asyncio.create_task(leave(second))

    asyncio.run(drive())
    play.engine.finish(budget)

    record = _finished(play)
    assert stage(record, "auth").spent_s == TICK
    assert stage(record, "db").spent_s == 2 * TICK


def test_parallel_stages_are_side_by_side() -> None:
    """Under ``gather`` each stage has its own time, and no instant counts twice."""
    play = Play()
    budget = play.engine.begin("GET", "/x")

    async def branch(name: str, turns: int) -> None:
        with handle.stage(name):
            for _ in range(turns):
                await asyncio.sleep(0)

    async def tick(turns: int) -> None:
        for _ in range(turns):
            play.clock.advance(TICK)
            await asyncio.sleep(0)

    async def drive() -> None:
        await asyncio.gather(*(branch(f"b{number}", 10) for number in range(50)), tick(10))

    with current(budget):
        asyncio.run(drive())
    play.engine.finish(budget)

    record = _finished(play)
    assert budget.remaining() == float("inf")
    assert record.duration_s == 10 * TICK
    assert sum(one.spent_s for one in record.stages) == 50 * 10 * TICK
    assert sum(one.exclusive_s for one in record.stages) + record.unattributed_s == 10 * TICK


def test_a_thousand_stages_deep() -> None:
    """Recursion nests stages of one name; its time counts once."""
    play = Play()
    budget = play.engine.begin("GET", "/x")

    def descend(depth: int) -> None:
        if depth:
            with handle.stage("parse"):
                play.clock.advance(TICK)
                descend(depth - 1)

    with current(budget):
        for _ in range(10):
            descend(100)
    play.engine.finish(budget)

    total = stage(_finished(play), "parse")
    assert (total.spent_s, total.exclusive_s, total.calls) == (1000 * TICK, 1000 * TICK, 1000)


def test_a_decorator_opens_a_stage_per_call_and_none_of_its_own() -> None:
    """Made inside a request, too, the object that decorates is not an opening."""
    play = Play()
    budget = play.engine.begin("GET", "/x")
    with current(budget):

        @handle.stage("ml", "score")
        def score(value: int) -> int:
            play.clock.advance(TICK)
            return value

        play.clock.advance(TICK)
        assert [score(1), score(2)] == [1, 2]
    play.engine.finish(budget)

    total = stage(_finished(play), "ml", "score")
    assert (total.calls, total.spent_s) == (2, 2 * TICK)
    assert play.faults == []


@pytest.mark.parametrize("most", [1, 256])
def test_decorating_inside_a_request_leaves_nothing_behind(most: int) -> None:
    """However many functions a request decorates, its account stays bounded."""
    play = Play()
    budget = play.engine.begin("GET", "/x")
    with current(budget):
        for _ in range(most * 10):

            @handle.stage("ml")
            def score() -> None: ...

    assert len(budget) <= 256
    play.engine.finish(budget)
    assert _finished(play).stages == ()


def test_generators_of_every_kind_are_timed_while_they_run() -> None:
    """A generator's stage opens with its first step and ends with its last."""
    play = Play()
    budget = play.engine.begin("GET", "/x")

    @handle.stage("rows")
    def rows() -> Generator[int, None, None]:
        play.clock.advance(TICK)
        yield 1

    @handle.stage("events")
    async def events() -> AsyncGenerator[int, None]:
        play.clock.advance(TICK)
        yield 1

    async def consume() -> list[int]:
        return [event async for event in events()]

    created = rows()
    with current(budget):
        play.clock.advance(TICK)
        assert list(created) == [1]
        assert asyncio.run(consume()) == [1]
    play.engine.finish(budget)

    assert stage(_finished(play), "rows").spent_s == TICK
    assert stage(_finished(play), "events").spent_s == TICK


def test_each_clock_has_a_class_of_its_own() -> None:
    """Two engines do not time each other's stages."""
    slow, fast = FakeClock(), FakeClock()
    kinds = [stage_type(clock, current_budget.get, handle.stage) for clock in (slow, fast)]
    stages = [kind() for kind in kinds]
    fast.advance(5.0)
    for one in stages:
        one.__exit__(None, None, None)

    assert [one.end for one in stages] == [0.0, 5.0]
    assert Engine(clock=slow).begin("GET", "/").opens is not Engine(clock=fast)._opens


@pytest.mark.parametrize("given", [None, "12.5", b"1", 1j, float("nan"), inf, -inf, Decimal(1), []])
def test_a_clock_that_gives_no_seconds_is_told_of(given: Any) -> None:
    """Its reader gets the error that says why, and somebody else hears of it."""
    told: list[Exception] = []
    clock = checked(lambda: given, told.append)

    with pytest.raises((TypeError, ValueError)) as caught:
        clock()
    assert told == [caught.value]


def test_a_clock_that_gives_seconds_is_believed() -> None:
    """Whole ones, too."""
    readings = iter([12, -1.5, 0])
    told: list[Exception] = []
    clock = checked(lambda: next(readings), told.append)

    assert [clock() for _ in range(3)] == [12.0, -1.5, 0.0]
    with pytest.raises(StopIteration):
        clock()
    assert [type(error) for error in told] == [StopIteration]
