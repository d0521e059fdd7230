"""Jobs that start, go on or are abandoned where somebody else's context is."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar, Token
from pathlib import Path

import pytest
import structlog

from budgetware import budget, jobs
from budgetware._core.budget import Budget
from budgetware._core.current import current_budget
from budgetware._core.policy import Policy
from budgetware._core.record import RequestRecord
from budgetware.runtime import Runtime

own: ContextVar[str] = ContextVar("own", default="none")


class Guarded:
    """The context variable, with a note of every change in the context of who closes."""

    def __init__(self) -> None:
        self.changes: list[str] = []

    def set(self, value: Budget | None) -> Token[Budget | None]:
        """Set it, and note it."""
        self.changes.append("set")
        return current_budget.set(value)

    def reset(self, token: Token[Budget | None]) -> None:
        """Reset it, and note it."""
        self.changes.append("reset")
        current_budget.reset(token)


@pytest.fixture
def records() -> list[RequestRecord]:
    """Start a runtime without promises, and return what it records."""
    found: list[RequestRecord] = []
    Runtime.start(policy=Policy(service="jobs"), observers=[found.append], traces="off")
    return found


def test_closing_a_generator_changes_no_context(
    records: list[RequestRecord],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The collector may close it in the middle of a change of the context; the job still ends."""
    seen: list[str | None] = []

    @budget.open("export")
    def rows() -> Iterator[int]:
        try:
            yield 1
        finally:
            seen.append(budget.route)

    abandoned = rows()
    next(abandoned)
    guarded = Guarded()
    monkeypatch.setattr(jobs, "current_budget", guarded)
    del abandoned

    assert guarded.changes == []
    assert seen == ["export"]
    assert [record.error for record in records] == ["GeneratorExit"]


def test_closing_an_async_generator_changes_no_context(
    records: list[RequestRecord],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same for one that no event loop looks after, and for one in the middle of a wait."""
    seen: list[str | None] = []

    @budget.open("export")
    async def rows(waiting: asyncio.Future[None]) -> AsyncIterator[int]:
        try:
            yield 1
            await waiting
            yield 2
        finally:
            seen.append(budget.route)

    loop = asyncio.new_event_loop()
    waiting = loop.create_future()
    idle, stuck = rows(waiting), rows(waiting)
    for one in (idle, stuck):
        with pytest.raises(StopIteration):
            anext(one).__await__().__next__()
    step = anext(stuck).__await__()
    next(step)
    guarded = Guarded()
    monkeypatch.setattr(jobs, "current_budget", guarded)
    del one, idle
    with pytest.raises(RuntimeError):
        step.throw(RuntimeError("stopped"))
    loop.close()

    assert guarded.changes == []
    assert seen == ["export", "export"]
    assert [record.error for record in records] == ["GeneratorExit", "RuntimeError"]


def test_a_generator_keeps_its_context_variables(records: list[RequestRecord]) -> None:
    """What it sets lasts from item to item and can be undone, wherever it is asked and closed."""

    @budget.open("export")
    def rows() -> Iterator[str]:
        token = own.set(own.get() + "+")
        try:
            while True:
                yield own.get()
        finally:
            own.reset(token)

    own_before = own.set("mine")
    generator = rows()
    seen = [next(generator)]
    thread = threading.Thread(target=lambda: seen.append(next(generator)))
    thread.start()
    thread.join()
    assert own.get() == "mine"
    own.reset(own_before)
    generator.close()  # type: ignore[attr-defined]

    assert seen == ["mine+", "mine+"]
    assert [record.error for record in records] == ["GeneratorExit"]


def test_an_async_generator_keeps_its_context_variables(records: list[RequestRecord]) -> None:
    """The same when it waits, is cancelled while waiting, and is asked from several tasks."""

    @budget.open("export")
    async def rows() -> AsyncIterator[str]:
        token = own.set(own.get() + "+")
        try:
            while True:
                try:
                    await asyncio.sleep(0 if own.get() == "mine+" else 3600)
                except asyncio.CancelledError:
                    own.set("mine+")
                yield own.get()
                own.set("slow")
        finally:
            await asyncio.sleep(0)
            own.reset(token)

    async def ask(generator: AsyncIterator[str]) -> str:
        return await anext(generator)

    async def main() -> list[str]:
        own.set("mine")
        generator = rows()
        seen = [await asyncio.create_task(ask(generator))]
        second = asyncio.create_task(ask(generator))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        second.cancel()
        seen.append(await second)
        await generator.aclose()  # type: ignore[attr-defined]
        return [*seen, own.get()]

    assert asyncio.run(main()) == ["mine+", "mine+", "mine"]
    assert [record.error for record in records] == ["GeneratorExit"]


@pytest.mark.parametrize("broken", [False, True], ids=["no policy", "broken provider"])
def test_a_logger_may_open_jobs_of_its_own(
    broken: bool,  # noqa: FBT001
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Even while the first job starts the runtime, which then says that there is no policy."""
    monkeypatch.chdir(tmp_path)
    events: list[str] = []
    done: list[bool] = []

    def ship(_logger: object, _method: str, event: structlog.typing.EventDict) -> str:
        with budget.open("ship"):
            events.append(str(event["event"]))
        raise structlog.DropEvent

    def work() -> None:
        with budget.open("nightly"):
            done.append(budget.route == "nightly")

    def refuse(*_args: object) -> None:
        raise RuntimeError("no provider today")

    if broken:
        monkeypatch.setattr("budgetware.telemetry.outlet_of", refuse)
    structlog.configure(processors=[ship])
    try:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(20)
    finally:
        structlog.reset_defaults()

    assert done == [True]
    expected = ["budgetware_no_policy"]
    assert events == (["budgetware_internal_error", *expected] if broken else expected)
