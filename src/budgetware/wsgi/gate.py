"""Does this request come in? Asked, waited for, and answered if not, in the WSGI door.

Waiting is an event of the request's own thread. A fault of ours on the way lets the request in. A
slot is free when the body is closed, or was complete when the application returned it.
"""

from __future__ import annotations

import threading
from random import random
from typing import TYPE_CHECKING, Final

from budgetware._core.admit import LENT_AFTER_S
from budgetware._core.current import current_budget
from budgetware.answers.menu import RETRY_AFTER_S
from budgetware.answers.rejection import Rejection, rejection
from budgetware.wsgi.exchange import leave

if TYPE_CHECKING:
    from budgetware._core.engine import Engine
    from budgetware._core.entrance import Visit
    from budgetware.answers.answer import Answer
    from budgetware.limits.threads import SharedRates
    from budgetware.wsgi.smaller import Smaller
    from budgetware.wsgi.steered import SteeredExchange

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

    def __init__(self, engine: Engine, rates: SharedRates | None) -> None:
        self._engine = engine
        self._rates = rates

    def turn_away(self, visit: Visit, exchange: SteeredExchange) -> Smaller | None:
        """Return the body of the answer to a request that does not come in; ``None`` if it does.

        It may take as long as the request may wait. A request that comes in holds *visit* until
        it is finished.

        Args:
            visit: The request at the entrance.
            exchange: The request, prepared but not embarked.

        Raises:
            Exception: What the server has raised when it was given the answer.

        """
        turned = self._answer(visit, exchange)
        if turned is not None:
            self._release(visit)
            return exchange.begin_smaller(turned[0], turned[1].value)
        exchange.visit = visit
        return None

    def _answer(self, visit: Visit, exchange: SteeredExchange) -> tuple[Answer, Rejection] | None:
        """Return what to answer and why, ``None`` for a request that comes in."""
        try:
            turned = self._ask(visit, exchange)
            if turned is None:
                return None
            why, retry_s = turned
            steering, answer = exchange.lane.steering, None
            if why is Rejection.OVERLOADED and steering is not None:
                menu = exchange.menu_of(steering)
                token = current_budget.set(exchange)
                try:
                    now_s, remaining_s = exchange.clock(), exchange.remaining()
                    answer = menu.choose(
                        exchange.asked, exchange.environ, remaining_s, now_s, why.value
                    )
                finally:
                    leave(token)
            if answer is None:
                answer = rejection(why, retry_s, random)
        except Exception as error:  # noqa: BLE001 - a fault of ours turns nobody away
            self._engine.fault(ADMISSION, error)
            return None
        except BaseException:  # a worker's own time-out, or the end of the process
            self._engine.lose(exchange)
            self._release(visit)
            raise
        return answer, why

    def _ask(self, visit: Visit, exchange: SteeredExchange) -> _TurnedAway | None:
        clock = exchange.clock
        rate_per_s = visit.rule.rate_per_s
        if rate_per_s is not None:
            who = exchange.asked.identity
            if self._rates is None or not visit.acts:  # in shadow nobody waits for a server
                wait_s = visit.take(who, clock())
            else:
                wait_s = self._rates.take(
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
        if visit.wait_s > 0:
            over = threading.Event()
            if visit.queue(clock(), over.set):
                left_s = visit.wait_s
                while left_s > 0 and not over.wait(min(left_s, LENT_AFTER_S)):
                    left_s -= LENT_AFTER_S
                    visit.lend_idle()
            if visit.settle():
                return None
        else:
            visit.refuse()
        return Rejection.OVERLOADED, RETRY_AFTER_S

    def _release(self, visit: Visit) -> None:
        try:
            visit.leave()
        except Exception as error:  # noqa: BLE001 - the outcome is the application's
            self._engine.fault(ADMISSION, error)
