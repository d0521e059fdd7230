"""A budget outside HTTP: what ``budget.open("nightly-export")`` gives."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import suppress
from contextvars import Context, Token, copy_context
from types import TracebackType
from typing import Any, cast

from budgetware._core.budget import Budget
from budgetware._core.current import CurrentBudget, current_budget, handle
from budgetware._core.decorate import F, decorated
from budgetware.runtime import Runtime


class _Run:
    """One run of a job. Nothing of ours is raised: without a budget the job runs all the same.

    Attributes:
        budget: Its account, ``None`` when it could not be opened.

    """

    def __init__(self, name: str, tier: str | None) -> None:
        self._engine = Runtime.current().engine
        self.budget: Budget | None = None
        try:
            self.budget = self._engine.begin_job(name, tier)
        except Exception as error:  # noqa: BLE001 - a fault of ours costs the budget, not the job
            self._engine.fault("begin", error)

    def end(self, kind: type[BaseException] | None) -> None:
        """Finish it; an exception is its failure, being stopped from outside is not."""
        budget = self.budget
        if budget is None:
            return
        try:
            if kind is not None:
                budget.error = kind
                if issubclass(kind, Exception):
                    self._engine.fail(budget)
            self._engine.finish(budget)
        except Exception as error:  # noqa: BLE001 - a fault of ours must not replace the outcome
            self._engine.fault("finish", error)


class Job:
    """One run of a job, as a ``with`` block; as a decorator, a run per call.

    A decorated generator runs in a copy of the context its first item was asked for in.

    A ``with`` block gives the job's account, with ``remaining()``, ``elapsed()`` and ``pool()``.
    """

    def __init__(self, name: str, tier: str | None = None) -> None:
        self._name = name
        self._tier = tier
        self._runs: list[tuple[_Run, Token[Budget | None]]] = []

    def __enter__(self) -> Budget | CurrentBudget:
        run = _Run(self._name, self._tier)
        self._runs.append((run, current_budget.set(run.budget)))
        return handle if run.budget is None else run.budget

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        mine = [one for one in self._runs if one[0].budget is current_budget.get()]
        run, token = last = (mine or self._runs)[-1]
        self._runs.remove(last)
        run.end(kind)
        _leave(token)

    def __call__(self, function: F) -> F:
        """Return *function* running as this job at every call."""
        name, tier = self._name, self._tier
        if inspect.isgeneratorfunction(function):
            return cast("F", _generating(lambda: _Run(name, tier), function))
        if inspect.isasyncgenfunction(function):
            return cast("F", _generating_async(lambda: _Run(name, tier), function))
        return decorated(lambda: Job(name, tier), function)


def _leave(token: Token[Budget | None]) -> None:
    with suppress(ValueError):  # in another context than it was entered in, where nothing is set
        current_budget.reset(token)


# Between two items a generator's consumer goes on, and the job must not be current there. So each
# run has a context of its own. The consumer's is never changed, not even for a moment: until
# Python 3.12 the garbage collector may close an abandoned generator in the middle of a change of
# that very context, which another change would then leave in ruins.


def _context_of(run: _Run) -> Context:
    context = copy_context()
    context.run(current_budget.set, run.budget)
    return context


def _generating(
    begin: Callable[[], _Run],
    function: Callable[..., Generator[Any, Any, Any]],
) -> Callable[..., Generator[Any, Any, Any]]:
    @functools.wraps(function)
    def produce(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        items = function(*args, **kwargs)
        run = begin()
        inside = _context_of(run).run
        kind: type[BaseException] | None = None
        step: Callable[[], Any] = functools.partial(next, items)
        try:
            while True:
                try:
                    item = inside(step)
                except StopIteration as end:
                    return end.value
                try:
                    sent = yield item
                except BaseException as error:  # noqa: BLE001 - not ours, only passed on
                    step = functools.partial(items.throw, error)
                else:
                    step = functools.partial(items.send, sent)
        except BaseException as error:
            kind = type(error)
            raise
        finally:
            run.end(kind)

    return produce


def _generating_async(
    begin: Callable[[], _Run],
    function: Callable[..., AsyncGenerator[Any, Any]],
) -> Callable[..., AsyncGenerator[Any, Any]]:
    @functools.wraps(function)
    async def produce(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        items = function(*args, **kwargs)
        run = begin()
        context = _context_of(run)
        kind: type[BaseException] | None = None
        step: Awaitable[Any] = anext(items)
        try:
            while True:
                try:
                    item = await _Inside(context, step)
                except StopAsyncIteration:
                    return
                try:
                    sent = yield item
                except GeneratorExit:
                    await _Inside(context, items.aclose())
                    raise
                except BaseException as error:  # noqa: BLE001 - not ours, only passed on
                    step = items.athrow(error)
                else:
                    step = items.asend(sent)
        except BaseException as error:
            kind = type(error)
            raise
        finally:
            run.end(kind)

    return produce


class _Inside:
    """Awaits *step* with every piece of it running in *context*."""

    def __init__(self, context: Context, step: Awaitable[Any]) -> None:
        self._context = context
        self._step = step

    def __await__(self) -> Generator[Any, Any, Any]:
        inside = self._context.run
        waiting = self._step.__await__()
        resume: Callable[[], Any] = functools.partial(next, waiting)
        while True:
            try:
                awaited = inside(resume)
            except StopIteration as end:
                return end.value
            try:
                sent = yield awaited
            except GeneratorExit:
                inside(waiting.close)
                raise
            except BaseException as error:  # noqa: BLE001 - not ours, only passed on
                resume = functools.partial(waiting.throw, error)
            else:
                resume = functools.partial(waiting.send, sent)
