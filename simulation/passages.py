"""One request on its way through one door, seen from both of its sides, and what must hold of it.

The laws of a door are looked after here: whoever answers first has the client, each message is sent
once, what leaves the application reaches the server as it is, and so does the server's cancel.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from budgetware._core.current import current_budget
from budgetware._core.interrupt import turn_of
from simulation.applications import MARK

if TYPE_CHECKING:
    from budgetware.asgi import ASGIApp, Message, Receive, Scope, Send
    from simulation.applications import Run

ANSWER: Final = b"budgetware-answer"
PARTIAL: Final = b"partial"

Broken = Callable[[str, str], None]
"""Hears of what does not hold: the invariant, and what there is instead."""


class Passage:
    """One request on its way through one door.

    Args:
        name: What it is called.
        broken: Hears of what does not hold.
        run_of: Returns what the application has made of the request.
        is_inner: Whether there is a door around it, which may cancel what it has let in.

    Attributes:
        sends: What the application has sent, in order.
        out: What the door has sent, each message as often as ``send`` was called with it.
        inside: Whether the application is at work.
        entered: Whether it ever was.
        left_with: What it has raised, ``None`` if it has returned or is not done.
        cancels: How often the server has cancelled the request while it was in the door.
        late_cancels: How often after the application was done.

    """

    def __init__(
        self, name: str, broken: Broken, run_of: Callable[[], Run], *, is_inner: bool
    ) -> None:
        self.name = name
        self._broken = broken
        self._run_of = run_of
        self._is_inner = is_inner
        self.sends: list[Message] = []
        self.out: list[Message] = []
        self.inside = self.entered = self.over = False
        self.left_with: BaseException | None = None
        self._circumstances: tuple[object, object] = (None, None)
        self._result: object = None
        self._cancelling_inside = 0
        self._budget = self._outer = current_budget.get()
        self.cancels = self.late_cancels = 0

    def cancelled(self) -> None:
        """Note that the server has cancelled the request."""
        if not self.over:
            self.cancels += 1
            self.late_cancels += self.entered and not self.inside

    async def within(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> Any:
        """Run the application, and look at what leaves it."""
        task = asyncio.current_task()
        assert task is not None
        before, cancels = task.cancelling(), self.cancels

        async def watched(message: Message) -> None:
            self.sends.append(message)
            await send(message)

        if self.entered:
            self._broken("one call", f"{self.name}: the application was called twice")
        self.entered = self.inside = True
        self._budget = current_budget.get()
        try:
            self._result = await app(scope, receive, watched)
        except BaseException as error:
            self.left_with = error
            self._circumstances = error.__cause__, error.__context__
            raise
        finally:
            self.inside = False
            self._cancelling_inside = task.cancelling() - before - (self.cancels - cancels)
        return self._result

    async def through(
        self, door: ASGIApp, scope: Scope, receive: Receive, send: Send, raised: list[BaseException]
    ) -> Any:
        """Send the request through *door*, and see to it that the laws are kept.

        Args:
            door: The door.
            scope: The request's scope.
            receive: The server's.
            send: The server's.
            raised: What the server's ``send`` has raised so far.

        """

        def watched(message: Message) -> Awaitable[None]:
            self.out.append(message)
            return send(message)

        task = asyncio.current_task()
        assert task is not None
        before = task.cancelling()
        error: BaseException | None = None
        result: object = None
        try:
            result = await door(scope, receive, watched)
        except BaseException as caught:
            error = caught
            raise
        finally:
            self.over = True
            if current_budget.get() is not self._outer:
                self._broken("context", f"{self.name}: another budget is current than before")
            counted = task.cancelling() - before - self.cancels
            most, least = max(0, self._cancelling_inside), min(0, self._cancelling_inside)
            if not least <= counted <= most and not self._is_inner:
                self._broken("cancel", f"{self.name}: {counted} cancellations too many are counted")
            self._check_outcome(error, result, raised)
            self._check_messages()
        return result

    def _check_outcome(
        self, error: BaseException | None, result: object, raised: list[BaseException]
    ) -> None:
        if error is None:
            self._check_return(result)
        elif self._budget is not self._outer and turn_of(error, self._budget) is not None:
            self._broken("error", f"{self.name}: our way out has reached the server")
        elif error is self.left_with:
            if (error.__cause__, error.__context__) != self._circumstances:
                self._broken("error", f"{self.name}: {error!r} has a cause or a context of ours")
        elif isinstance(error, asyncio.CancelledError):
            if not self.cancels and not self._is_inner:
                self._broken("cancel", f"{self.name}: a cancel that is not the server's reached it")
        elif not any(error is one for one in raised):
            self._broken("error", f"{self.name}: {error!r} is neither the application's nor ours")

    def _check_return(self, result: object) -> None:
        left, answered = self.left_with, self.answer is not None
        returned = self.entered and left is None
        # A library of the application may have taken cancellations back.
        theirs = returned or self._cancelling_inside < 0 or self._is_excused()
        if self.cancels and (self.late_cancels or not theirs):
            self._broken("cancel", f"{self.name}: the server's cancel was swallowed")
        if left is not None and not answered and not self.cancels:
            self._broken("error", f"{self.name}: {left!r} did not reach the server")
        if returned and not answered and result is not self._result:
            self._broken("result", f"{self.name}: what the application returns is lost")

    def _is_excused(self) -> bool:
        """Tell whether a cancel that was left for something smaller is the application's affair.

        Before Python 3.13, a task of its had failed as well: what that leaves behind cannot be told
        from the server's then (python/cpython#116720).
        """
        if self.left_with is None or turn_of(self.left_with, self._budget) is None:
            return False
        return self._run_of().has_failed and sys.version_info < (3, 13)

    @property
    def answer(self) -> bytes | None:
        """Which smaller answer the door has begun, ``None`` if none."""
        if not self.out:
            return None
        kind = dict(self.out[0].get("headers", ())).get(ANSWER)
        return None if kind is None or kind == PARTIAL or self._is_theirs(self.out[0]) else kind

    def _is_theirs(self, message: Message) -> bool:
        """Tell whether *message* is one that the application has sent, as it is or marked."""
        if any(message is one for one in self.sends):
            return True
        # Of the start of a response there is a copy once a mark or a ``Server-Timing`` is on it.
        headers = dict(message.get("headers", ()))
        marked = b"server-timing" in headers or headers.get(ANSWER) == PARTIAL
        return marked and any(_is_like(message, one) for one in self.sends)

    def _check_messages(self) -> None:
        for number, message in enumerate(self.out):
            if any(message is one for one in self.out[:number]):
                self._broken("send", f"{self.name}: send was called twice with {message!r}")
        if self.answer is not None:
            if any(self._is_theirs(message) for message in self.out):
                self._broken("one response", f"{self.name}: two responses are mixed")
            if len(self.out) > 2:
                self._broken("one response", f"{self.name}: {len(self.out)} messages of ours")
            return
        theirs = list(self._matching())
        if len(theirs) != len(self.out):
            self._broken("one response", f"{self.name}: sent {self.out!r} for {self.sends!r}")
        elif len(self.out) < len(self.sends) and not self.cancels:
            self._broken("one response", f"{self.name}: only {self.out!r} of {self.sends!r}")

    def _matching(self) -> Iterator[Message]:
        """Yield the messages that the door has sent in the place of those it was sent."""
        for theirs, ours in zip(self.sends, self.out, strict=False):
            if not (ours is theirs or _is_like(ours, theirs)):
                return
            yield ours


def _is_like(one: Message, other: Message) -> bool:
    """Tell whether both are the start of the same response."""
    if not one["type"] == other["type"] == "http.response.start":
        return False
    name = MARK.encode()
    marks = [dict(start.get("headers", ())).get(name) for start in (one, other)]
    return bool(one["status"] == other["status"]) and marks[0] == marks[1]


class Passages:
    """The requests that are in some door just now, outermost door first."""

    def __init__(self) -> None:
        self._under_way: dict[int, list[Passage]] = {}

    def of(self, number: int) -> list[Passage]:
        """Return where request *number* is."""
        return self._under_way.setdefault(number, [])

    @contextmanager
    def entered(self, number: int, passage: Passage) -> Iterator[None]:
        """Have request *number* on its *passage* meanwhile."""
        under_way = self.of(number)
        under_way.append(passage)
        try:
            yield
        finally:
            under_way.remove(passage)
