"""Does this request come in? Asked, waited for, and answered if not, in the ASGI door.

Waiting is a future of the running asyncio loop; without such a loop, as under trio, nobody waits.
A fault of ours on the way lets the request in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import random
from typing import TYPE_CHECKING, Any, Final

from budgetware._core.admit import LENT_AFTER_S
from budgetware._core.current import current_budget
from budgetware.answers.menu import RETRY_AFTER_S
from budgetware.answers.rejection import Rejection, rejection

if TYPE_CHECKING:
    from budgetware._core.engine import Engine
    from budgetware._core.entrance import Visit
    from budgetware._core.steering import Steering
    from budgetware.answers.answer import Answer
    from budgetware.asgi.steered import SteeredExchange
    from budgetware.limits.tasks import AsyncSharedRates

ADMISSION: Final = "admission"
"""The step under which faults in here are counted."""

_TurnedAway = tuple[Rejection, float]
"""Why a request does not come in, and in how many seconds it might."""


class Gate:
    """Lets requests in, one by one.

    Args:
        engine: Hears of answers and faults.
        rates: The rates several processes keep together; ``None`` for this process's own.

    """

    def __init__(self, engine: Engine, rates: AsyncSharedRates | None) -> None:
        self._engine = engine
        self._rates = rates

    async def serve(
        self,
        visit: Visit,
        exchange: SteeredExchange,
        run: Callable[[], Awaitable[Any]],
    ) -> Any:
        """Serve one request once it may come in; its slot is free when its work has ended.

        Args:
            visit: The request at the entrance; it is ended here.
            exchange: The request, prepared but not embarked.
            run: Runs the application with it, and finishes *exchange*.

        """
        exchange.visit = visit
        try:
            answer = await self._answer(visit, exchange)
            if answer is not None:
                try:
                    await exchange.send_smaller(answer[0], answer[1].value)
                finally:
                    self._engine.outlived(exchange)
                return None
            if exchange.lane.steering is not None:
                self._embark(visit, exchange, exchange.lane.steering)
            return await run()
        finally:
            self.release(visit)

    def release(self, visit: Visit) -> None:
        """Give back what *visit* holds, whatever fails."""
        try:
            visit.leave()
        except Exception as error:  # noqa: BLE001 - the outcome is the application's
            self._engine.fault(ADMISSION, error)

    async def _answer(
        self,
        visit: Visit,
        exchange: SteeredExchange,
    ) -> tuple[Answer, Rejection] | None:
        """Return what to answer and why, ``None`` for a request that comes in."""
        try:
            turned = await self._ask(visit, exchange)
            if turned is None:
                return None
            why, retry_s = turned
            steering, answer = exchange.lane.steering, None
            if why is Rejection.OVERLOADED and steering is not None:
                menu = exchange.menu_of(steering)
                token = current_budget.set(exchange)
                try:
                    now_s, remaining_s = exchange.clock(), exchange.remaining()
                    answer = await menu.choose(
                        exchange.asked, exchange.scope, remaining_s, now_s, why.value
                    )
                finally:
                    current_budget.reset(token)
            if answer is None:
                answer = rejection(why, retry_s, random)
        except Exception as error:  # noqa: BLE001 - a fault of ours turns nobody away
            self._engine.fault(ADMISSION, error)
            return None
        except BaseException:  # cancelled in the queue
            self._engine.lose(exchange)
            raise
        return answer, why

    async def _ask(self, visit: Visit, exchange: SteeredExchange) -> _TurnedAway | None:
        clock = exchange.clock
        rate_per_s = visit.rule.rate_per_s
        if rate_per_s is not None:
            who = exchange.asked.identity
            if self._rates is None or not visit.acts:  # in shadow nobody waits for a server
                wait_s = visit.take(who, clock())
            else:
                wait_s = await self._rates.take(
                    visit.tier,
                    who,
                    rate_per_s,
                    visit.rule.burst,
                    clock(),
                    exchange.remaining(),
                    exchange.asked.namespace,
                )
            if visit.over_rate(wait_s):
                return Rejection.RATE_EXCEEDED, wait_s
        if visit.enter(clock(), exchange.remaining()):
            return None
        loop = _running_loop() if visit.wait_s > 0 else None
        if loop is None:
            visit.refuse()
        elif await self._waited(visit, loop, clock):
            return None
        return Rejection.OVERLOADED, RETRY_AFTER_S

    async def _waited(
        self, visit: Visit, loop: asyncio.AbstractEventLoop, clock: Callable[[], float]
    ) -> bool:
        """Wait until the request may run or its time is up; tell whether it may."""
        over = loop.create_future()
        if visit.queue(clock(), lambda: loop.call_soon_threadsafe(_end, over)):
            timer = loop.call_later(visit.wait_s, _end, over)
            try:
                while not over.done():
                    await asyncio.wait({over}, timeout=LENT_AFTER_S)
                    visit.lend_idle()
            finally:
                timer.cancel()
        return visit.settle()

    def _embark(
        self,
        visit: Visit,
        exchange: SteeredExchange,
        steering: Steering,
    ) -> None:
        try:
            exchange.embark(steering)
            if visit.waited:
                exchange.course.wait_until(exchange.clock())
        except Exception as error:  # noqa: BLE001 - it is measured, and nothing is decided
            self._engine.fault(ADMISSION, error)
            exchange.menu = None


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:  # trio
        return None


def _end(over: asyncio.Future[None]) -> None:
    if not over.done():
        over.set_result(None)
