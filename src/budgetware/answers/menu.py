"""What may this request be sent instead? The route's answers, tried in the order of the file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Any, Final

from budgetware._core.interrupt import AnswerNow
from budgetware._core.policy import CachePolicy, Plan
from budgetware.answers.answer import Answer
from budgetware.answers.cache import AsyncResponseCache, ResponseCache
from budgetware.answers.cached import cached_answer
from budgetware.answers.facts import RequestFacts
from budgetware.answers.preparing import Fallback
from budgetware.answers.rejection import Rejection, rejection
from budgetware.answers.static import static_answer
from budgetware.http import ACCEPTED, SAFE_METHODS

ANSWER_S: Final = 0.003
"""Seconds it takes to send an answer that is at hand; event loops wake up a little late."""

ANSWER_SHARE: Final = 0.2
"""Of a very short budget it takes this share at most, or nothing else would ever fit."""

SHARED_S: Final = 0.02
"""Seconds a shared store may take."""

SHARED_SHARE: Final = 0.2
"""And never more than this share of the request's budget."""

FALLBACK_SHARE: Final = 0.1
"""The application's fallback may take this share of the request's budget."""

MOST_FALLBACK_S: Final = 0.05
"""And never more seconds than this."""

RETRY_AFTER_S: Final = 1.0
"""When a caller that was refused for load may come back."""

Function = Callable[[Any], object]
Fault = Callable[[str, Exception], None]


class Work(StrEnum):
    """What the application is doing while its client is answered in its place."""

    NOT_BEGUN = "not_begun"
    GIVEN_UP = "given_up"
    GOES_ON = "goes_on"


def refusal(work: Work, method: str, random: Callable[[], float]) -> Answer:
    """Return an honest no: 504 for work that goes on, as its time is over; 503 for none.

    Who has asked for something to be changed is told to come back only if nothing was begun.

    Args:
        work: What the application is doing.
        method: The request's.
        random: Returns numbers in [0, 1).

    """
    why = Rejection.DEADLINE_SPENT if work is Work.GOES_ON else Rejection.OVERLOADED
    again = work is Work.NOT_BEGUN or method in SAFE_METHODS
    return rejection(why, RETRY_AFTER_S if again else None, random)


def _is_being_cancelled() -> bool:
    try:
        task = asyncio.current_task()
    except RuntimeError:  # a thread, or trio
        return False
    return task is not None and task.cancelling() > 0


class _Card:
    """What both menus know: everything but how to wait.

    Args:
        plan: What the file says.
        fallback: The application's own cheap answer to this route's requests, if it has one.
        random: Returns numbers in [0, 1).
        fault: Hears of what went wrong in making an answer.
        shared_s: Seconds the cache's shared store may take; 0 without one.

    Attributes:
        keeps: What the file says of keeping full responses, ``None`` for not at all.
        cost_s: Seconds the smaller answer takes at worst.

    """

    def __init__(
        self,
        plan: Plan,
        fallback: Function | None,
        random: Callable[[], float],
        fault: Fault,
        shared_s: float,
    ) -> None:
        self.keeps: CachePolicy | None = plan.cache if "cached" in plan.answers else None
        self._fallback: Fallback | None = None
        if fallback is not None:
            bound_s = min(MOST_FALLBACK_S, FALLBACK_SHARE * plan.limit_s)
            self._fallback = Fallback(plan.route, fallback, bound_s)
        self._random = random
        self._fault = fault
        self._shared_s = shared_s = min(shared_s, SHARED_SHARE * plan.limit_s)
        self._static = None if plan.static is None else static_answer(plan.static)
        self._accepted = bool(
            plan.times_unsafe and plan.static is not None and plan.static.status == ACCEPTED
        )
        missing = {
            "fallback": fallback is None,
            "static": self._static is None,
            "cached": self.keeps is None,
        }
        self._names = tuple(name for name in plan.answers if not missing.get(name))
        self.cost_s = min(ANSWER_S, ANSWER_SHARE * plan.limit_s)
        if "cached" in self._names:
            self.cost_s += shared_s
        if "fallback" in self._names and self._fallback is not None:
            self.cost_s += self._fallback.budget_s

    def offers(self, method: str, work: Work = Work.NOT_BEGUN) -> bool:
        """Tell whether there is anything to answer a request of *method* with."""
        return any(True for _ in self._usable(method, work))

    def _usable(self, method: str, work: Work) -> Iterator[str]:
        """Yield the answers that are true of a request of *method*, in the order of the file.

        The one that says that the work goes on is true while it does, and while unsafe work does no
        other is.
        """
        goes_on = work is Work.GOES_ON
        for name in self._names:
            if name == "static" and self._accepted:
                is_true = goes_on
            else:
                is_true = method in SAFE_METHODS or not goes_on
            if is_true:
                yield name

    def _ready(self, name: str, method: str, work: Work) -> Answer | None:
        return refusal(work, method, self._random) if name == "reject" else self._static

    def _is_failure(self, name: str, error: BaseException) -> bool:
        """Tell whether *error* is only that of the answer *name*, and the next one may do."""
        if isinstance(error, BaseExceptionGroup):
            return all(self._is_failure(name, one) for one in error.exceptions)
        if isinstance(error, AnswerNow):  # a fallback that asks for something smaller
            return True
        if isinstance(error, asyncio.CancelledError):
            # What the fallback has waited for was cancelled, unless it is the request itself.
            failed = not _is_being_cancelled()
        else:
            failed = isinstance(error, Exception)
        if failed:
            self._fault(name, error if isinstance(error, Exception) else RuntimeError(repr(error)))
        return failed

    def _wait_s(self, remaining_s: float) -> float:
        return max(0.0, min(remaining_s, self._shared_s))


class Menu(_Card):
    """The answers of one route for one tier, for tasks.

    Attributes:
        cache: Full responses of before.

    """

    def __init__(  # noqa: PLR0913, PLR0917 - what it is made of
        self,
        plan: Plan,
        cache: AsyncResponseCache,
        fallback: Function | None,
        random: Callable[[], float],
        fault: Fault,
        shared_s: float = 0.0,
    ) -> None:
        super().__init__(plan, fallback, random, fault, shared_s)
        self.cache = cache

    async def choose(  # noqa: PLR0913, PLR0917 - all that an answer may depend on
        self,
        asked: RequestFacts,
        request: object,
        remaining_s: float,
        now_s: float,
        reason: str,
        work: Work = Work.NOT_BEGUN,
    ) -> Answer | None:
        """Return the first answer to be had, ``None`` if there is none.

        Args:
            asked: The request.
            request: What the application's fallback is given.
            remaining_s: Seconds left of the budget.
            now_s: The clock.
            reason: Why there is no full response.
            work: What the application is doing.

        """
        for name in self._usable(asked.method, work):
            try:
                if name == "cached" and self.keeps is not None:
                    wait_s = self._wait_s(remaining_s)
                    found = await self.cache.look_up(asked, self.keeps, now_s, wait_s)
                    answer = None if found is None else cached_answer(found, reason)
                elif name == "fallback" and self._fallback is not None:
                    answer = await self._fallback.answer(request, remaining_s)
                else:
                    answer = self._ready(name, asked.method, work)
            except BaseException as error:
                if not self._is_failure(name, error):
                    raise
                continue
            if answer is not None:
                return answer
        return None


class ThreadMenu(_Card):
    """The answers of one route for one tier, for threads.

    Attributes:
        cache: Full responses of before.

    """

    def __init__(  # noqa: PLR0913, PLR0917 - what it is made of
        self,
        plan: Plan,
        cache: ResponseCache,
        fallback: Function | None,
        random: Callable[[], float],
        fault: Fault,
        shared_s: float = 0.0,
    ) -> None:
        super().__init__(plan, fallback, random, fault, shared_s)
        self.cache = cache

    def choose(  # noqa: PLR0913, PLR0917 - all that an answer may depend on
        self,
        asked: RequestFacts,
        request: object,
        remaining_s: float,
        now_s: float,
        reason: str,
        work: Work = Work.NOT_BEGUN,
    ) -> Answer | None:
        """Return the first answer to be had; see ``Menu``."""
        for name in self._usable(asked.method, work):
            try:
                if name == "cached" and self.keeps is not None:
                    wait_s = self._wait_s(remaining_s)
                    found = self.cache.look_up(asked, self.keeps, now_s, wait_s)
                    answer = None if found is None else cached_answer(found, reason)
                elif name == "fallback" and self._fallback is not None:
                    answer = self._fallback.answer_now(request, remaining_s)
                else:
                    answer = self._ready(name, asked.method, work)
            except BaseException as error:
                if not self._is_failure(name, error):
                    raise
                continue
            if answer is not None:
                return answer
        return None
