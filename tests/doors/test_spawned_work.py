"""Work a request hands to tasks and threads, behind a real door."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import pytest
from tests.doors.asgi_play import LAST, START, Clock, Door, Wire, answer, http, suspend

from budgetware import budget
from budgetware._core.current import current_budget
from budgetware.asgi import ASGIApp, Receive, Scope, Send

Sync = Callable[[], object]


def _work() -> None:
    with budget.stage("db"):
        pass


async def _work_async() -> None:
    with budget.stage("db"):
        await asyncio.sleep(0)


def _in_thread(work: Sync) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


async def _in_executor(work: Sync) -> None:
    await asyncio.get_running_loop().run_in_executor(None, work)


async def _submitted(work: Sync) -> None:
    with ThreadPoolExecutor(1) as pool:
        await asyncio.wrap_future(pool.submit(work))


async def _threaded(work: Sync) -> None:
    await asyncio.to_thread(_in_thread, work)


async def _grouped() -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_work_async())


TASKS: dict[str, Callable[[], Awaitable[object]]] = {
    "create_task": lambda: asyncio.create_task(_work_async()),
    "gather": lambda: asyncio.gather(_work_async()),
    "TaskGroup": _grouped,
    "to_thread": lambda: asyncio.to_thread(_work),
    "anyio.to_thread": lambda: anyio.to_thread.run_sync(_work),
    "shield": lambda: asyncio.shield(_work_async()),
    "wait_for": lambda: asyncio.wait_for(_work_async(), 5),
}
BARE: dict[str, Callable[[Sync], Awaitable[object]]] = {
    "run_in_executor": _in_executor,
    "submit": _submitted,
    "Thread": _threaded,
}


def _serve(app: ASGIApp, clock: Clock | None = None) -> Door:
    async def main() -> None:
        wire = Wire()
        await door(http(), wire.receive, wire.send)
        assert wire.body == b"ok"

    door = Door(app, clock=clock or Clock())
    asyncio.run(main())
    return door


@pytest.mark.parametrize("spawn", TASKS)
def test_tasks_and_their_threads_know_their_request(spawn: str) -> None:
    """Whatever hands the context on hands the budget on, and its stages come back."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await TASKS[spawn]()
        await answer(scope, receive, send)

    door = _serve(app)

    assert [one.name for one in door.record.openings] == ["db"]
    assert [one.ending for one in door.record.openings] == ["closed"]


@pytest.mark.parametrize("carried", [False, True])
@pytest.mark.parametrize("spawn", BARE)
def test_bare_threads_know_it_when_it_is_carried(spawn: str, carried: bool) -> None:  # noqa: FBT001
    """Executors and threads get no context from Python; ``budget.carry`` gives them the budget."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await BARE[spawn](budget.carry(_work) if carried else _work)
        await answer(scope, receive, send)

    door = _serve(app)

    assert [one.name for one in door.record.openings] == ["db"] * carried


@pytest.mark.anyio
async def test_anyio_task_groups_and_threads_know_their_request() -> None:
    """The same on asyncio and trio, many at once."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def child(number: int) -> None:
            with budget.stage(f"task{number}"):
                await anyio.sleep(0.001)
            await anyio.to_thread.run_sync(_work)

        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(child, number)
        await answer(scope, receive, send)

    door = Door(app)
    wire = Wire()
    await door(http(), wire.receive, wire.send)

    names = sorted(one.name for one in door.record.openings)
    assert names == sorted(["db"] * 20 + [f"task{number}" for number in range(20)])


@pytest.mark.parametrize("carried", [False, True])
def test_a_task_that_outlives_its_request_finds_it_at_rest(carried: bool) -> None:  # noqa: FBT001
    """What is left is fixed, stages go nowhere, a tier changes nothing, and nothing is raised."""
    seen: list[object] = []

    async def late() -> None:
        await asyncio.sleep(0.02)
        left = budget.remaining()
        with budget.stage("late"):
            door.clock.now += 100
        budget.tier = "pro"
        seen.extend([left, budget.remaining(), budget.elapsed(), budget.pool(), budget.tier])

    async def main() -> None:
        wire = Wire()
        await door(http(), wire.receive, wire.send)
        assert current_budget.get() is None
        await tasks[0]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        tasks.append(asyncio.create_task((budget.carry(late) if carried else late)()))
        door.clock.now += 0.25
        await answer(scope, receive, send)

    tasks: list[asyncio.Task[None]] = []
    door = Door(app)
    asyncio.run(main())

    assert seen == [0.75, 0.75, 0.25, pytest.approx(0.73), "free"]
    assert door.record.openings == ()
    assert door.faults == {}


# --- stages that are not left as they were entered ----------------------------------------------


class _Odd(BaseException):
    pass


EXITS: list[BaseException] = [
    ValueError(),
    ExceptionGroup("g", [ValueError()]),
    asyncio.CancelledError(),
    GeneratorExit(),
    SystemExit(0),
    KeyboardInterrupt(),
    StopAsyncIteration(),
    _Odd(),
]


@pytest.mark.parametrize("error", EXITS, ids=repr)
def test_a_stage_is_left_by_any_error(error: BaseException) -> None:
    """Eight kinds of error close the stage as failed, and go on to whoever waits for them."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        def fail() -> None:
            with budget.stage("outer"), budget.stage("db", "select"):
                door.clock.now += 0.01
                raise error

        with pytest.raises(type(error)) as raised:
            fail()
        assert raised.value is error
        await answer(scope, receive, send)

    door = Door(app)
    Wire().run(door, http())

    assert [one.ending for one in door.record.openings] == ["failed", "failed"]
    assert [one.error for one in door.record.openings] == [type(error).__name__] * 2
    assert all(one.duration_s == pytest.approx(0.01) for one in door.record.openings)


def test_a_stage_nobody_leaves_ends_with_its_request() -> None:
    """It is counted up to the last byte and marked abandoned; leaving it later is harmless."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        left_open = budget.stage("db")
        left_open.__enter__()
        door.clock.now += 0.01
        await answer(scope, receive, send)
        door.clock.now += 5
        left_open.__exit__(None, None, None)

    door = Door(app)
    Wire().run(door, http())

    (opening,) = door.record.openings
    assert opening.ending == "abandoned"
    assert opening.duration_s == pytest.approx(0.01)


def test_a_stage_may_be_left_in_another_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entered in one task and left in another, out of order: right times, nothing raised."""
    clock = Clock()
    problems: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", problems.append)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        first = budget.stage("first")
        first.__enter__()
        clock.now += 0.01
        second = budget.stage("second")
        second.__enter__()

        async def leave() -> None:
            first.__exit__(None, None, None)

        await asyncio.create_task(leave(), context=contextvars.Context())
        clock.now += 0.02
        await asyncio.to_thread(second.__exit__, None, None, None)
        await answer(scope, receive, send)

    door = _serve(app, clock)

    durations = {one.name: one.duration_s for one in door.record.openings}
    assert durations == {"first": pytest.approx(0.01), "second": pytest.approx(0.02)}
    assert problems == []


def test_an_async_generator_may_be_closed_in_another_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its stage is closed as failed by the closing, wherever that happens."""
    clock = Clock()
    problems: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", problems.append)

    async def rows() -> AsyncGenerator[int, None]:
        with budget.stage("rows"):
            yield 1
            yield 2

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        generator = rows()
        await anext(generator)
        clock.now += 0.01
        await asyncio.create_task(_close(generator), context=contextvars.Context())
        left = rows()
        await anext(left)
        del left
        gc.collect()
        await asyncio.sleep(0.01)  # the event loop closes it in a task of its own
        await answer(scope, receive, send)

    door = _serve(app, clock)

    assert [one.ending for one in door.record.openings] == ["failed", "failed"]
    assert problems == []


async def _close(generator: AsyncGenerator[int, None]) -> None:
    await generator.aclose()


def test_carried_work_may_be_closed_anywhere() -> None:
    """A carried coroutine that is closed in another context than it ran in raises nothing."""

    @budget.carry
    async def outside() -> None:
        await suspend()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        @budget.carry
        async def work() -> None:
            with budget.stage("db"):
                await suspend()

        carried: Generator[Any, None, None] = work().__await__()
        contextvars.copy_context().run(next, carried)
        contextvars.Context().run(carried.close)
        await answer(scope, receive, send)

    door = Door(app)
    wire = Wire()
    wire.run(door, http())

    assert wire.sent == [START, LAST]
    assert door.record.openings[0].ending == "failed"
    assert outside.__name__ == "outside"


def test_a_tier_learned_inside_the_application_plans_anew() -> None:
    """From the same start with the other tier's limits; an unknown one changes nothing."""
    left: list[float] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        door.clock.now += 0.05
        left.append(budget.remaining())
        budget.tier = "pro"
        left.append(budget.remaining())
        budget.tier = "nobody"
        left.append(budget.remaining())
        door.clock.now += 0.06
        await answer(scope, receive, send)

    door = Door(app)
    Wire().run(door, http())

    assert left == [pytest.approx(0.95), pytest.approx(0.05), pytest.approx(0.05)]
    assert (door.record.tier, door.record.outcome) == ("pro", "exceeded")
    assert door.faults == {"unknown_tier": 1}


def test_outside_a_request_everything_is_a_no_op() -> None:
    """No door, no budget: stages, tiers, carrying and questions cost nothing and raise nothing."""
    with budget.stage("db"):
        budget.tier = "pro"

    assert budget.carry(_work) is _work
    assert budget.remaining() == budget.pool() == float("inf")
    assert (budget.elapsed(), budget.route, budget.tier) == (0.0, None, None)
    assert partial(budget.stage("db"), _work)()() is None
