"""How a ``with`` block becomes a decorator, for every kind of Python function."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractContextManager, aclosing, suppress
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])


def decorated(enter: Callable[[], AbstractContextManager[object]], function: F) -> F:
    """Return *function* running inside a fresh ``enter()`` at every call.

    Coroutine functions stay coroutine functions, generators stay generators; their block is open
    while they are being run through, not while they are merely created.
    """
    if inspect.isasyncgenfunction(function):
        return cast("F", _produced(enter, function))

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def run_async(*args: Any, **kwargs: Any) -> Any:
            with enter():
                return await function(*args, **kwargs)

        return cast("F", run_async)

    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def produce(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            with enter():
                return (yield from function(*args, **kwargs))

        return cast("F", produce)

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with enter():
            return function(*args, **kwargs)

    return cast("F", run)


def _produced(
    enter: Callable[[], AbstractContextManager[object]],
    function: Callable[..., AsyncGenerator[Any, Any]],
) -> Callable[..., AsyncGenerator[Any, Any]]:
    @functools.wraps(function)
    async def produce(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        # What ``yield from`` does for generators: whatever is sent or thrown in goes on inside.
        with enter(), suppress(StopAsyncIteration):
            async with aclosing(function(*args, **kwargs)) as items:
                item = await anext(items)
                while True:
                    try:
                        sent = yield item
                    except GeneratorExit:  # closed, and so will the one inside be
                        raise
                    except BaseException as error:  # noqa: BLE001 - not ours, only passed on
                        item = await items.athrow(error)
                    else:
                        item = await items.asend(sent)

    return produce
