"""Functions of every kind run inside a fresh block at every call."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from types import TracebackType

import pytest

from budgetware._core.decorate import decorated

Trail = list[str]


class Block:
    """Notes when it is entered and left, and with what."""

    def __init__(self, trail: Trail) -> None:
        self._trail = trail

    def __enter__(self) -> None:
        self._trail.append("in")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._trail.append("out" if kind is None else kind.__name__)


def test_a_plain_function_runs_inside() -> None:
    """Its arguments and its result pass through."""
    trail: Trail = []

    def add(one: int, *, other: int) -> int:
        """Add up."""
        trail.append("work")
        return one + other

    wrapped = decorated(lambda: Block(trail), add)

    assert wrapped(1, other=2) == 3
    assert trail == ["in", "work", "out"]
    assert (wrapped.__name__, wrapped.__doc__) == ("add", "Add up.")
    assert inspect.signature(wrapped) == inspect.signature(add)


def test_a_coroutine_function_stays_one() -> None:
    """The block is open while it is awaited, not while it is merely created."""
    trail: Trail = []

    async def work() -> str:
        trail.append("work")
        await asyncio.sleep(0)
        return "done"

    wrapped = decorated(lambda: Block(trail), work)
    assert inspect.iscoroutinefunction(wrapped)
    created = wrapped()
    assert trail == []

    assert asyncio.run(created) == "done"
    assert trail == ["in", "work", "out"]


def test_a_generator_takes_what_is_sent_and_returns_what_it_returns() -> None:
    """``yield from`` semantics: values in, values out, a result at the end."""
    trail: Trail = []

    def work() -> Generator[int, int, str]:
        sent = yield 1
        trail.append(f"sent {sent}")
        yield sent
        return "done"

    wrapped = decorated(lambda: Block(trail), work)
    assert inspect.isgeneratorfunction(wrapped)
    running = wrapped()
    assert trail == []

    assert next(running) == 1
    assert running.send(5) == 5
    with pytest.raises(StopIteration) as stopped:
        next(running)
    assert stopped.value.value == "done"
    assert trail == ["in", "sent 5", "out"]


def test_a_generator_that_is_closed_leaves_its_block() -> None:
    """An abandoned iteration ends the block with the generator."""
    trail: Trail = []

    def work() -> Generator[int, None, None]:
        try:
            yield 1
        finally:
            trail.append("cleanup")

    running = decorated(lambda: Block(trail), work)()
    next(running)
    running.close()

    assert trail == ["in", "cleanup", "GeneratorExit"]


def test_an_async_generator_is_run_through_inside() -> None:
    """Its items pass through, and closing it closes the one inside first."""
    trail: Trail = []

    async def work() -> AsyncGenerator[int, None]:
        try:
            yield 1
            yield 2
        finally:
            trail.append("cleanup")

    wrapped = decorated(lambda: Block(trail), work)
    assert inspect.isasyncgenfunction(wrapped)

    async def consume() -> list[int]:
        return [item async for item in wrapped()]

    async def give_up() -> int:
        running = wrapped()
        first = await anext(running)
        await running.aclose()
        return first

    assert asyncio.run(consume()) == [1, 2]
    assert trail == ["in", "cleanup", "out"]
    trail.clear()
    assert asyncio.run(give_up()) == 1
    assert trail == ["in", "cleanup", "GeneratorExit"]


def test_an_async_generator_takes_what_is_sent_and_thrown() -> None:
    """A dependency with ``yield`` must see the request's own exception, to roll back by."""
    trail: Trail = []

    async def work() -> AsyncGenerator[str, str]:
        try:
            trail.append((yield "first"))
            yield "second"
        except ValueError as error:
            trail.append(str(error))
            yield "third"

    async def drive() -> None:
        running = decorated(lambda: Block(trail), work)()
        assert await anext(running) == "first"
        assert await running.asend("hello") == "second"
        assert await running.athrow(ValueError("no")) == "third"
        with pytest.raises(StopAsyncIteration):
            await anext(running)

    asyncio.run(drive())
    assert trail == ["in", "hello", "no", "out"]


def test_an_async_context_manager_can_be_decorated() -> None:
    """The exception of its block arrives inside as itself, and leaves as itself."""
    trail: Trail = []

    async def work() -> AsyncGenerator[str, None]:
        try:
            yield "session"
        except ValueError:
            trail.append("rollback")
            raise

    async def drive() -> None:
        error = ValueError("no")
        opened = asynccontextmanager(decorated(lambda: Block(trail), work))()
        assert await opened.__aenter__() == "session"
        assert not await opened.__aexit__(ValueError, error, None)

    asyncio.run(drive())
    assert trail == ["in", "rollback", "ValueError"]


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit])
def test_exceptions_pass_through(kind: type[BaseException]) -> None:
    """The block sees the exception, and so does the caller."""
    trail: Trail = []

    def work() -> None:
        raise kind

    with pytest.raises(kind):
        decorated(lambda: Block(trail), work)()
    assert trail == ["in", kind.__name__]
