"""How is a fallback of the application called? Within a budget of its own, whatever it is.

A coroutine function is awaited, and cancelled when its time is over. A plain function is called
in a thread, one of few; it cannot be stopped, but nobody waits for it longer than its budget.
Either runs in a copy of the caller's context.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final

from budgetware.answers.answer import Answer
from budgetware.answers.errands import Errands
from budgetware.answers.fallback import fallback_answer

if TYPE_CHECKING:
    from anyio import CapacityLimiter
    from anyio.lowlevel import RunVar

BUDGET_S: Final = 0.01
"""What a fallback may take unless something else is said."""
THREADS: Final = 8
"""Threads of a process, or of an event loop, that run plain functions."""
MOST_AT_ONCE: Final = 64
"""Calls under way or waiting for a thread; what is over it is late."""

_LONGEST_WAIT_S: Final = 86_400.0


class FallbackLate(Exception):  # noqa: N818 - it says what happened
    """A fallback was not done within its own budget."""


class Fallback:
    """A function of the application that makes a cheaper answer.

    Args:
        route: The route it is for.
        function: Takes one argument, whatever the door passes; sync or async.
        budget_s: How long it may take.

    Raises:
        TypeError: *function* cannot be called.
        ValueError: *budget_s* is not positive.

    """

    def __init__(
        self,
        route: str,
        function: Callable[[Any], Any],
        budget_s: float = BUDGET_S,
    ) -> None:
        if not callable(function):
            raise TypeError(f"the fallback of {route!r} cannot be called: {function!r:.80}")
        if not budget_s > 0:
            raise ValueError(f"the budget of the fallback of {route!r} is more than 0 seconds")
        self.route = route
        self.budget_s = budget_s
        self.is_async = _is_async(function)
        self._function = function

    async def answer(self, argument: Any, wait_s: float) -> Answer:
        """Return the answer for *argument*, from a task on asyncio or trio.

        Args:
            argument: Passed to the function.
            wait_s: What is left of the request; the fallback's own budget may be shorter.

        Raises:
            FallbackLate: It took longer.
            Exception: Whatever the function raised, or ``fallback_answer`` about its result.

        """
        import anyio  # noqa: PLC0415 - takes time to import, and only this needs it

        bound_s = min(self.budget_s, _bounded_s(wait_s))
        with anyio.move_on_after(bound_s):
            if self.is_async:
                return self._made_of(await self._function(argument))
            call = partial(self._boxed, argument)
            made = anyio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=_limiter())
            (result,) = await made
            return self._made_of(await result if inspect.isawaitable(result) else result)
        raise self._late(bound_s)

    def answer_now(self, argument: Any, wait_s: float) -> Answer:
        """Return the answer for *argument*, from a thread; otherwise like ``answer``.

        Raises:
            FallbackLate: It took longer, or too many calls are under way.
            Exception: Whatever the function raised, or ``fallback_answer`` about its result.

        """
        bound_s = min(self.budget_s, _bounded_s(wait_s))
        call = partial(copy_context().run, self._called, argument, bound_s)
        done, outcome = _errands().run(call, bound_s)
        if not done:
            raise self._late(bound_s)
        result, error = outcome
        if error is not None:
            raise error
        return self._made_of(result)

    def _made_of(self, result: object) -> Answer:
        try:
            return fallback_answer(result)
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"the fallback of {self.route!r}: {error}") from None

    def _boxed(self, argument: Any) -> tuple[Any]:
        # In a tuple, because trio refuses coroutines that come out of threads.
        return (self._function(argument),)

    def _called(self, argument: Any, bound_s: float) -> tuple[Any, BaseException | None]:
        try:
            if not self.is_async:
                result = self._function(argument)
                if not inspect.isawaitable(result):
                    return result, None
                return asyncio.run(self._timed(result, bound_s)), None
            return asyncio.run(self._timed(self._function(argument), bound_s)), None
        except BaseException as error:  # noqa: BLE001 - raised again where the caller waits
            return None, error

    async def _timed(self, made: Awaitable[Any], bound_s: float) -> Any:
        try:
            async with asyncio.timeout(bound_s) as scope:
                return await made
        except TimeoutError:
            if scope.expired():
                raise self._late(bound_s) from None
            raise

    def _late(self, bound_s: float) -> FallbackLate:
        return FallbackLate(f"the fallback of {self.route!r} took more than {bound_s:.6f} s")


def _bounded_s(wait_s: float) -> float:
    """Return *wait_s* as a time-out every platform takes; what is no number is no wait."""
    return min(_LONGEST_WAIT_S, wait_s) if wait_s > 0 else 0.0


def _is_async(function: Callable[..., Any]) -> bool:
    while isinstance(function, partial):
        function = function.func
    own = type(function).__dict__.get("__call__")
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(own)


@cache
def _errands() -> Errands:
    return Errands("budgetware-fallback", THREADS, MOST_AT_ONCE)


@cache
def _limiters() -> RunVar[CapacityLimiter]:
    from anyio.lowlevel import RunVar  # noqa: PLC0415 - as above

    return RunVar("budgetware-fallbacks")


def _limiter() -> CapacityLimiter:
    from anyio import CapacityLimiter  # noqa: PLC0415 - as above

    try:
        return _limiters().get()
    except LookupError:
        limiter = CapacityLimiter(THREADS)
        _limiters().set(limiter)
        return limiter
