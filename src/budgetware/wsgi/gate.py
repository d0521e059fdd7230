"""Does this request come in? Asked, waited for, and answered if not, in the WSGI door.

Waiting is an event of the request's own thread. A fault of ours on the way lets the request in. A
slot is free when the body is closed, or was complete when the application returned it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from random import random
from typing import TYPE_CHECKING, Any, ClassVar, Final

from budgetware._core.current import current_budget
from budgetware.answers.menu import RETRY_AFTER_S
from budgetware.answers.rejection import Rejection, rejection
from budgetware.wsgi.exchange import Exchange, TimedExchange, leave
from budgetware.wsgi.steered import SteeredExchange

if TYPE_CHECKING:
    from budgetware._core.engine import Engine
    from budgetware._core.entrance import Visit
    from budgetware.answers.answer import Answer
    from budgetware.answers.facts import RequestFacts
    from budgetware.answers.menu import ThreadMenu
    from budgetware.limits.threads import SharedRates

ADMISSION: Final = "admission"
"""The step under which faults in here are counted."""

_TurnedAway = tuple[Rejection, float]
"""Why a request does not come in, and in how many seconds it might."""


class AdmittedExchange(Exchange):
    """A request that holds a slot until it is finished.

    Attributes:
        visit: What it holds.

    """

    __slots__ = ("visit",)

    goes_on: ClassVar[bool] = True

    visit: Visit

    def ready(self, body: Sequence[bytes]) -> None:
        """End the budget; with nothing left to tell the slot is free at once."""
        super().ready(body)
        if not hasattr(self, "untold"):
            _release(self.engine, self.visit)

    def finish(self) -> None:
        """Finish the account, and give the slot back."""
        try:
            super().finish()
        finally:
            _release(self.engine, self.visit)


class AdmittedTimedExchange(AdmittedExchange, TimedExchange):
    """The same whose response tells where the time went."""

    __slots__ = ()


class AdmittedSteeredExchange(SteeredExchange):
    """A request that may be answered with something smaller, and holds a slot until it is finished.

    Attributes:
        visit: What it holds.

    """

    __slots__ = ("visit",)

    visit: Visit

    def finish(self) -> None:
        """Finish the account, and give the slot back."""
        try:
            super().finish()
        finally:
            _release(self.engine, self.visit)


class Gate:
    """Lets requests in, one by one.

    Args:
        engine: Hears of answers and faults.
        rates: The rates several processes keep together; ``None`` for this process's own.

    """

    def __init__(self, engine: Engine, rates: SharedRates | None) -> None:
        self._engine = engine
        self._rates = rates

    def turn_away(  # noqa: PLR0913, PLR0917 - what the door has read of the request
        self,
        visit: Visit,
        exchange: Exchange,
        environ: dict[str, Any],
        menu: ThreadMenu | None,
        asked: RequestFacts | None,
        identity: Callable[[], str | None],
    ) -> Iterable[bytes] | None:
        """Return the body of the answer to a request that does not come in; ``None`` if it does.

        It may take as long as the request may wait. Of a request that came in, *visit* is to be
        left when it has ended; of all others it was.

        Args:
            visit: The request at the entrance.
            exchange: The request.
            environ: What the application's own fallback is given.
            menu: What there is to answer with, ``None`` where nothing is decided.
            asked: What it is about; ``None`` without *menu*.
            identity: Names the caller.

        """
        try:
            turned = self._ask(visit, exchange, identity)
            if turned is None:
                return None
            why, retry_s = turned
            answer = None
            if why is Rejection.OVERLOADED and menu is not None and asked is not None:
                token = current_budget.set(exchange)
                try:
                    now_s, remaining_s = exchange.clock(), exchange.remaining()
                    answer = menu.choose(asked, environ, remaining_s, now_s, why.value)
                finally:
                    leave(token)
            if answer is None:
                answer = rejection(why, retry_s, random)
            # Before anything is sent, so that a fault lets the request in.
            status, headers, body = _lines(answer, environ["REQUEST_METHOD"])
        except Exception as error:  # noqa: BLE001 - a fault of ours turns nobody away
            self._engine.fault(ADMISSION, error)
            return None
        except BaseException:  # a worker's own time-out, or the end of the process
            self._engine.lose(exchange)
            _release(self._engine, visit)
            raise
        _release(self._engine, visit)
        record = self._engine.answered(exchange, answer.kind, why.value)
        try:
            forward = exchange.forward
            forward(status, headers)
        finally:
            self._engine.announce(exchange, record)
            self._engine.outlived(exchange)
        return [body]

    def _ask(
        self, visit: Visit, exchange: Exchange, identity: Callable[[], str | None]
    ) -> _TurnedAway | None:
        clock = exchange.clock
        rate_per_s = visit.rule.rate_per_s
        if rate_per_s is not None:
            who = identity()
            if self._rates is None or not visit.acts:  # in shadow nobody waits for a server
                wait_s = visit.take(who, clock())
            else:
                wait_s = self._rates.take(
                    visit.tier, who, rate_per_s, visit.rule.burst, clock(), exchange.remaining()
                )
            if visit.over_rate(wait_s):
                return Rejection.RATE_EXCEEDED, wait_s
        if visit.enter(clock(), exchange.remaining()):
            return None
        if visit.wait_s > 0:
            over = threading.Event()
            if visit.queue(clock(), over.set):
                over.wait(visit.wait_s)
            if visit.settle():
                return None
        else:
            visit.refuse()
        return Rejection.OVERLOADED, RETRY_AFTER_S


def _release(engine: Engine, visit: Visit) -> None:
    try:
        visit.leave()
    except Exception as error:  # noqa: BLE001 - the outcome is the application's
        engine.fault(ADMISSION, error)


def _lines(answer: Answer, method: str) -> tuple[str, list[tuple[str, str]], bytes]:
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.headers]
    known = answer.status in HTTPStatus._value2member_map_
    phrase = HTTPStatus(answer.status).phrase if known else "Answer"
    return f"{answer.status} {phrase}", headers, answer.to(method).body
