"""When does the clock answer? At the last moment at which a smaller answer would still be in time.

Not while the request holds a shield or waits for its client's upload: then as soon as that is
over. Whether the application goes on behind the answer or is cancelled is the route's choice; a
thread of it is never cancelled, and the request lasts as long as that is at work.
"""

from __future__ import annotations

import asyncio
import sys
import traceback
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Final

import anyio

from budgetware._core.decide import Reason
from budgetware.answers.menu import Work

if TYPE_CHECKING:
    from budgetware.asgi.answering import AnsweringExchange

LEAST_AHEAD_S: Final = 0.0005
"""A turn this close to its time is taken at once and not waited for again."""


class Race:
    """The clock's side of one request, on the running asyncio loop.

    Args:
        exchange: The request.
        loop: Runs it.

    """

    __slots__ = (
        "_asked",
        "_before_scope",
        "_exchange",
        "_late",
        "_loop",
        "_scope",
        "_task",
        "_timer",
        "_us",
    )

    def __init__(self, exchange: AnsweringExchange, loop: asyncio.AbstractEventLoop) -> None:
        self._exchange = exchange
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._us: asyncio.Task[None] | None = None
        self._scope: anyio.CancelScope | None = None
        self._late = False
        # The request's own task, and how many cancellations it has been asked for by others.
        self._task = asyncio.current_task(loop)
        self._asked = self._before_scope = self._cancelling()

    def start(self) -> None:
        """Make the appointment, or a new one under another promise."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        exchange = self._exchange
        if not exchange.may_be_raced:
            return
        spare_s = exchange.course.spare_s(exchange.remaining())
        if spare_s < inf:
            self._timer = self._loop.call_later(max(0.0, spare_s), self._turn)

    def restart(self) -> None:
        """Make a new appointment, from whichever thread this is called."""
        self._loop.call_soon_threadsafe(self._restarted)

    def _restarted(self) -> None:
        try:
            self.start()
        except Exception as error:  # noqa: BLE001 - nobody is answered by the clock, that is all
            self._exchange.engine.fault("race", error)

    def let_go(self) -> None:
        """Do what has come due under a shield, from whichever thread the last one was left."""
        if self._late:
            self._loop.call_soon_threadsafe(self._turn)

    def turn(self) -> None:
        """Answer at once, as the application was left for it; from any thread."""
        # What is asked for from now on is the server's, or a task group's that is left with it.
        self._asked = self._cancelling() - _is_pending(self._task)
        self._loop.call_soon_threadsafe(self._turn)

    def was_cancelled(self, error: BaseException) -> bool:
        """Tell whether the server has cancelled the request in the turn in which *error* left it.

        A task group prefers the errors of its tasks to a cancellation from outside.
        """
        return self._cancelling() - _left_behind(error, self._task) > self._asked

    def _cancelling(self) -> int:
        return 0 if self._task is None else self._task.cancelling()

    async def end(self) -> None:
        """Make no more appointments, and wait for an answer that is being sent."""
        self._stop()
        us = self._us
        if us is not None and not us.done():
            if self._exchange.given is not None:
                self._exchange.idle()
            try:
                # The server takes a call that ends before its response for a failed one.
                await asyncio.wait({us})
            except BaseException:  # cancelled meanwhile: nobody is left to be answered
                us.cancel()
                raise
            finally:
                self._exchange.resumed()

    def give_up(self) -> None:
        """Make no more appointments, and send no answer that is not on its way."""
        self._stop()
        if self._us is not None:
            self._us.cancel()

    def _stop(self) -> None:
        self._late = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def __enter__(self) -> None:
        """Run what follows as work that may be cancelled."""
        # A generator in this place would leave a reference cycle for each request it cancels. And
        # not ``Task.cancel``, which would leave threads behind that nobody waits for.
        self._before_scope = self._cancelling()
        self._scope = anyio.CancelScope()
        self._scope.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        """End it.

        Raises:
            asyncio.CancelledError: The server has cancelled the request in the very turn of the
                loop in which the work was cancelled: anyio before 4.16 takes the two for one (its
                issue 1214).

        """
        scope = self._scope
        if scope is None:
            return None
        swallowed = scope.__exit__(kind, error, trace)
        if scope.cancelled_caught and self._cancelling() > self._before_scope:
            raise asyncio.CancelledError
        return swallowed

    def _turn(self) -> None:
        """Take the turn, if it is still to be had."""
        try:
            self._take_turn()
        except Exception as error:  # noqa: BLE001 - the application's own answer comes
            self._exchange.engine.fault("race", error)

    def _take_turn(self) -> None:
        if self._timer is not None:  # the application has asked before it was due
            self._timer.cancel()
            self._timer = None
        exchange = self._exchange
        if exchange.turned is not None:
            self._answer_for(exchange.turned, Work.GIVEN_UP, always=True)
            return
        # Said before it is looked for shields, so that a thread that leaves the last one sees it.
        self._late = True
        if exchange.shielded:
            return
        self._late = False
        if exchange.given is not None:
            # Who is being cancelled by others is left alone. Before Python 3.13 so is who was in a
            # task group that failed: the task is never told that it was cancelled for nothing.
            others = self._cancelling() > self._before_scope
            if self._scope is not None and not exchange.is_over and not others:
                self._scope.cancel()
        elif exchange.may_be_raced:
            if exchange.course.spare_s(exchange.remaining()) > LEAST_AHEAD_S:
                self.start()  # waits for the client were left out meanwhile
            else:
                self._answer_for(Reason.DEADLINE, Work.GOES_ON)

    def _answer_for(self, reason: str, work: Work, *, always: bool = False) -> None:
        if self._us is None and self._exchange.given is None and not self._exchange.is_over:
            self._us = self._loop.create_task(self._answer(reason, work, always=always))

    async def _answer(self, reason: str, work: Work, *, always: bool) -> None:
        exchange = self._exchange
        try:
            await exchange.answer(reason, work, always=always)
        except Exception as error:  # noqa: BLE001 - the application's own answer may still come
            if exchange.given is None:  # else it is the server's, who has nobody to send it to
                exchange.engine.fault("race", error)
        finally:
            self._us = None
        if exchange.given is not None:
            if reason == Reason.DEADLINE:
                exchange.course.deadline()
            if exchange.turned is None:
                self._turn()
        elif exchange.turned is not None and not always:
            self._turn()


def _is_pending(task: asyncio.Task[object] | None) -> bool:
    """Tell whether *task* was cancelled and has not heard of it yet."""
    if task is None:
        return False
    # There is no public way to ask; anyio asks in the same way before it cancels a task.
    waiter = getattr(task, "_fut_waiter", None)
    if getattr(task, "_must_cancel", False):
        return True
    if waiter is None or waiter.cancelled():
        return waiter is not None
    # A task it waits for is cancelled in its place, as are those that it has gathered.
    if isinstance(waiter, asyncio.Task):
        return _is_pending(waiter)
    return bool(getattr(waiter, "_cancel_requested", False))


def _left_behind(error: BaseException, task: asyncio.Task[object] | None) -> int:
    """Return how many cancellations of *task* its group that has raised *error* has left behind.

    Before Python 3.13 it cancels its own task when one of its tasks fails, and takes that back
    only where it interrupts something (python/cpython#116720).
    """
    if sys.version_info >= (3, 13) or not isinstance(error, BaseExceptionGroup):
        return 0
    frames = list(traceback.walk_tb(error.__traceback__))
    raised_in = frames[-1][0] if frames else None
    if raised_in is None or raised_in.f_globals.get("__name__") != "asyncio.taskgroups":
        return 0
    group = raised_in.f_locals.get("self")
    if getattr(group, "_parent_task", None) is not task:
        return 0  # it was another task of the application's that it has cancelled
    cancelled_its_own = getattr(group, "_parent_cancel_requested", False)
    interrupted = isinstance(error.__context__, asyncio.CancelledError)
    return int(cancelled_its_own and not interrupted)
