"""When does the clock answer? At the last moment at which a smaller answer would still be in time.

Not while the request holds a shield or waits for its client's upload: then as soon as that is
over. Whether the application goes on behind the answer or is cancelled is the route's choice; a
thread of it is never cancelled, and the request lasts as long as that is at work.
"""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Mapping
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Final

import anyio

from budgetware._core.decide import Reason
from budgetware.answers.menu import Work

if TYPE_CHECKING:
    from budgetware.asgi.answering import AnsweringExchange

LOOK_AGAIN_S: Final = 0.05
"""How long work is left alone that others are cancelling just now."""

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
        "_before",
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
        self._asked = self._before = self._before_scope = self._cancelling()

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
        if not _GROUPS_TAKE_BACK:
            # What is asked for from now on is the server's, or a group's that is left with it.
            self._asked = self._cancelling() - _is_pending(self._task)
        self._loop.call_soon_threadsafe(self._turn)

    def was_cancelled(self, error: BaseException) -> bool:
        """Tell whether the server has cancelled the request that *error* has left.

        A task group prefers the errors of its tasks to a cancellation from outside, and so does
        who asks for something smaller while he cleans up after one.
        """
        cancelling = self._cancelling() - _left_behind(error, self._task)
        return cancelling > self._asked or (
            cancelling > self._before and _was_heard(error, self._task)
        )

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

    def forget(self) -> None:
        """Forget the task: it keeps its error, and that the frames that keep this."""
        self._task = self._scope = None

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
            if self._scope is None or exchange.is_over:
                return
            if self._cancelling() > self._before_scope:
                self._timer = self._loop.call_later(LOOK_AGAIN_S, self._turn)
            else:
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


_GROUPS_TAKE_BACK: Final = sys.version_info >= (3, 13)
"""Whether a task group takes back that it cancels its own task when one of its tasks fails.

Before, it does so only where it has interrupted something (python/cpython#116720), so that a task
may have been asked to cancel once and again, and nobody has asked for it.
"""


def _left_behind(error: BaseException, task: asyncio.Task[object] | None) -> int:
    """Return how many cancellations of *task* its group that has raised *error* has left behind."""
    if _GROUPS_TAKE_BACK or not _has_cancelled_its_own(error, task):
        return 0
    return int(not isinstance(error.__context__, asyncio.CancelledError))


def _was_heard(error: BaseException, task: asyncio.Task[object] | None) -> bool:
    """Tell whether *error* was raised while a cancellation from outside was on its way out."""
    raised: BaseException | None = error
    while raised is not None and not _has_cancelled_its_own(raised, task):
        module, group = _raised_in_group(raised)
        # One of asyncio that waits for its tasks keeps here what it has heard. One of anyio takes
        # all of its own back, and leaves no trace of others.
        heard = group.get("propagate_cancellation_error")
        if module == _OF_ANYIO or _is_from_outside(heard) or _is_from_outside(raised):
            return True
        raised = raised.__context__
    return False


def _is_from_outside(error: object) -> bool:
    # anyio says in the message of its own cancellations that they are.
    return isinstance(error, asyncio.CancelledError) and "cancel scope" not in str(error)


def _has_cancelled_its_own(error: BaseException, task: asyncio.Task[object] | None) -> bool:
    """Tell whether *error* was raised by a group that has cancelled *task*, which is its own."""
    _, variables = _raised_in_group(error)
    group = variables.get("self")
    # It may have been another task of the application's that it has cancelled.
    is_its_own = task is not None and getattr(group, "_parent_task", None) is task
    return is_its_own and bool(getattr(group, "_parent_cancel_requested", False))


def _raised_in_group(error: BaseException) -> tuple[str, Mapping[str, object]]:
    """Return the module of the task group that has raised *error*, and its method's variables."""
    if isinstance(error, BaseExceptionGroup):
        for frame, _ in list(traceback.walk_tb(error.__traceback__))[-1:]:
            module = frame.f_globals.get("__name__")
            if module in {_OF_ASYNCIO, _OF_ANYIO}:
                return module, frame.f_locals
    return "", {}


_OF_ASYNCIO: Final = "asyncio.taskgroups"
_OF_ANYIO: Final = "anyio._backends._asyncio"
