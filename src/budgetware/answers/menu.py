"""What may this request be sent instead? The route's answers, tried in the order of the file."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from math import inf
from typing import Any, Final

from budgetware._core.policy import CachePolicy, Plan
from budgetware.answers.answer import Answer
from budgetware.answers.cache import AsyncResponseCache
from budgetware.answers.cached import cached_answer
from budgetware.answers.facts import RequestFacts
from budgetware.answers.fallback import fallback_answer
from budgetware.answers.rejection import Rejection, rejection
from budgetware.answers.static import static_answer

ANSWER_S: Final = 0.003
"""Seconds it takes to send an answer that is at hand; event loops wake up a little late."""

SHARED_S: Final = 0.02
"""Seconds a shared store may take."""

FALLBACK_SHARE: Final = 0.1
"""The application's fallback may take this share of the request's budget."""

MOST_FALLBACK_S: Final = 0.05
"""And never more seconds than this."""

RETRY_AFTER_S: Final = 1.0
"""When a caller that was refused for load may come back."""

Fallback = Callable[[Any], object]
Fault = Callable[[str, Exception], None]


class Menu:
    """The answers of one route for one tier.

    Args:
        plan: What the file says.
        cache: Full responses of before.
        fallback: The application's own cheap answer to this route's requests, if it has one.
        random: Returns numbers in [0, 1).
        fault: Hears of what went wrong in making an answer.
        shared_s: Seconds the cache's shared store may take; 0 without one.

    Attributes:
        cache: Full responses of before.
        keeps: What the file says of keeping them, ``None`` for not at all.
        cost_s: Seconds the smaller answer takes at worst.

    """

    def __init__(
        self,
        plan: Plan,
        cache: AsyncResponseCache,
        fallback: Fallback | None,
        random: Callable[[], float],
        fault: Fault,
        shared_s: float = 0.0,
    ) -> None:
        self.cache = cache
        self.keeps: CachePolicy | None = plan.cache if "cached" in plan.answers else None
        self._fallback = fallback
        self._fallback_s = min(MOST_FALLBACK_S, FALLBACK_SHARE * plan.limit_s)
        self._random = random
        self._fault = fault
        self._static = None if plan.static is None else static_answer(plan.static)
        self._makers = [
            maker
            for name, maker in ((name, getattr(self, f"_{name}_answer")) for name in plan.answers)
            if not (name == "fallback" and fallback is None)
            and not (name == "static" and self._static is None)
            and not (name == "cached" and self.keeps is None)
        ]
        self._shared_s = shared_s
        self.cost_s = ANSWER_S
        if self.keeps is not None:
            self.cost_s += shared_s
        if fallback is not None and "fallback" in plan.answers:
            self.cost_s += self._fallback_s

    @property
    def answers(self) -> bool:
        """Whether there is anything to answer with."""
        return bool(self._makers)

    async def choose(
        self, asked: RequestFacts, request: object, remaining_s: float, now_s: float, reason: str
    ) -> Answer | None:
        """Return the first answer to be had, ``None`` if there is none.

        Args:
            asked: The request.
            request: What the application's fallback is given.
            remaining_s: Seconds left of the budget.
            now_s: The clock.
            reason: Why there is no full response.

        """
        for make in self._makers:
            try:
                answer: Answer | None = await make(asked, request, remaining_s, now_s, reason)
            except Exception as error:  # noqa: BLE001 - the next one may do
                self._fault("answer", error)
                continue
            if answer is not None:
                return answer
        return None

    def refusal(self, remaining_s: float) -> Answer:
        """Return an honest no: 504 once the time is over, 503 before."""
        if remaining_s <= 0:
            return rejection(Rejection.DEADLINE_SPENT, RETRY_AFTER_S, self._random)
        return rejection(Rejection.OVERLOADED, RETRY_AFTER_S, self._random)

    async def _cached_answer(
        self, asked: RequestFacts, _: object, remaining_s: float, now_s: float, reason: str
    ) -> Answer | None:
        keeps = self.keeps
        if keeps is None:
            return None
        wait_s = max(0.0, min(remaining_s, self._shared_s))
        found = await self.cache.look_up(asked, keeps, now_s, wait_s)
        return None if found is None else cached_answer(found, reason)

    async def _fallback_answer(
        self, asked: RequestFacts, request: object, *_: object
    ) -> Answer | None:
        import anyio  # noqa: PLC0415 - for routes that have a fallback

        made: list[object] = []
        with anyio.move_on_after(self._fallback_s if self._fallback_s < inf else None):
            made.append(await _called(self._fallback, request))
        return fallback_answer(made[0]).to(asked.method) if made else None

    async def _static_answer(self, *_: object) -> Answer | None:
        return self._static

    async def _reject_answer(
        self, _: RequestFacts, __: object, remaining_s: float, *___: object
    ) -> Answer:
        return self.refusal(remaining_s)


async def _called(fallback: Any, request: object) -> object:
    if inspect.iscoroutinefunction(fallback) or inspect.iscoroutinefunction(
        getattr(fallback, "__call__", None)  # noqa: B004 - an object with an async __call__
    ):
        return await fallback(request)
    import anyio.to_thread  # noqa: PLC0415 - likewise

    result = await anyio.to_thread.run_sync(fallback, request, abandon_on_cancel=True)
    return await result if isinstance(result, Awaitable) else result
