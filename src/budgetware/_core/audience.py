"""Who is told of a request, and when? Observers before or after the answer, and alarms.

One that fails does not silence the others, and nobody is told of what an observer itself has run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from budgetware._core.account import account
from budgetware._core.budget import Budget
from budgetware._core.record import Observer, RequestRecord
from budgetware._core.stage import Stage


class Observing:
    """An observer, whether it wants the request that is just ending, and when.

    Most are told after the answer has left. What has to be said on the server's span is said
    before: instrumentations end that span with the last byte.

    Args:
        observer: Told of requests.
        wanted: Tells whether it wants the one that is just ending.
        before_answer: Whether to tell it before the answer has left.
        hint: A cheaper question with the same answer as *wanted* where that is no; every request
            is asked it.

    """

    __slots__ = ("before_answer", "hint", "observer", "wanted")

    def __init__(
        self,
        observer: Observer,
        wanted: Callable[[], bool] = lambda: True,
        *,
        before_answer: bool = False,
        hint: Callable[[], object] | None = None,
    ) -> None:
        self.observer = observer
        self.wanted = wanted
        self.before_answer = before_answer
        self.hint = wanted if hint is None else hint


class _Telling(threading.local):
    """Whether this thread is just telling somebody of a request."""

    now = False


class Audience:
    """Those who are told of requests.

    Args:
        observers: Told of every request they want, one by one.
        alarms: Told of every request that is out of the ordinary.
        fault: Hears of what an observer raised.

    Attributes:
        observers: Told of every request they want.
        hint: Tells whether anybody may want the request that is just ending; ``None`` for nobody.

    """

    def __init__(
        self,
        observers: Sequence[Observing],
        alarms: Sequence[Observer],
        fault: Callable[[Exception], None],
    ) -> None:
        self._alarms = tuple(alarms)
        self._fault = fault
        self._telling = _Telling()
        self._seat(observers)

    def join(self, observing: Observing) -> None:
        """Tell *observing*, too, from now on."""
        self._seat((*self.observers, observing))

    def leave(self, observing: Observing) -> None:
        """Tell *observing* no more."""
        self._seat([one for one in self.observers if one is not observing])

    def listeners(self, *, late: bool = False) -> list[Observer]:
        """Return who wants to be told of the request that has just been answered.

        Args:
            late: Whether those are among them who would have been told before the answer.

        """
        if self._telling.now:
            return []
        return [
            one.observer
            for one in self.observers
            if (late or not one.before_answer) and one.wanted()
        ]

    def awaits(self, budget: Budget, stages: Sequence[Stage]) -> bool:
        """Tell those who cannot wait for *budget*'s answer; whether there is somebody who can."""
        if self._telling.now:
            return False
        wanted = [one for one in self.observers if one.wanted()]
        early = [one.observer for one in wanted if one.before_answer]
        if early:
            try:
                self._inform(early, account(budget, stages))
            except Exception as error:  # noqa: BLE001 - the totals are still to be kept in order
                self._fault(error)
        return len(wanted) > len(early)

    def tell(self, record: RequestRecord, listeners: list[Observer], *, alarming: bool) -> None:
        """Tell *listeners* of a request, and the alarms if it is *alarming*."""
        self._inform([*listeners, *self._alarms] if alarming else listeners, record)

    def _seat(self, observers: Sequence[Observing]) -> None:
        self.observers = tuple(observers)
        asked = tuple(dict.fromkeys(one.hint for one in self.observers))
        self.hint: Callable[[], object] | None = None
        if len(asked) == 1:
            self.hint = asked[0]
        elif asked:
            self.hint = lambda: any(hint() for hint in asked)

    def _inform(self, observers: Sequence[Observer], record: RequestRecord) -> None:
        telling = self._telling
        if telling.now:
            # Of a job that an observer has run: telling that observer of it would never end.
            return
        telling.now = True
        try:
            for observer in observers:
                try:
                    observer(record)
                except Exception as error:  # noqa: BLE001 - one must not silence the others
                    self._fault(error)
        finally:
            telling.now = False
