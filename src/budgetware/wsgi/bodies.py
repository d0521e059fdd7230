"""The body of a response on its way out: when its first part is ready, and when its last one is.

For every server each shape of body stays what it was: a complete one complete, a sized one sized,
a file the server's own. What is kept of a step-by-step body costs each part of it as little as
can be, for most responses are one part, behind a framework that has filled the processor's caches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from budgetware._core.current import current_budget
from budgetware.runtime import SHORTEST_WAIT_S
from budgetware.wsgi.exchange import leave

if TYPE_CHECKING:
    from budgetware.wsgi.exchange import Exchange

_set = current_budget.set


def _finish_with(exchange: Exchange, body: Any) -> None:
    # The server sends a file of its own wrapper by itself; wrapping it would forbid that.
    # What the stack has run it forgets, so the body is in no cycle that keeps the budget.
    ending = ExitStack()
    ending.callback(exchange.finish)
    close = getattr(body, "close", None)
    if close is not None:
        ending.callback(close)
    try:
        body.close = ending.close
    except AttributeError:
        exchange.finish()


class ReadyBody:
    """A body that was complete when the application returned, and has to be told of afterwards."""

    __slots__ = ("_body", "_exchange")

    def __init__(self, exchange: Exchange, body: list[bytes] | tuple[bytes, ...]) -> None:
        self._exchange = exchange
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def __len__(self) -> int:
        return len(self._body)

    def close(self) -> None:
        """Finish the request."""
        self._exchange.finish()


class Body:
    """A body the application makes step by step; the time between steps is the server's.

    Attributes:
        exchange: Whose body it is.
        body: The application's own iterable.
        steps: The iterator over it, once it was begun.
        first_at: When the server was handed the first byte.
        left_at: When the server was handed the last part so far.

    """

    __slots__ = ("body", "exchange", "first_at", "left_at", "steps")

    exchange: Exchange
    body: Iterable[bytes]
    steps: Iterator[bytes] | None
    first_at: float | None
    left_at: float | None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        exchange = self.exchange
        if self.left_at is not None:
            try:
                clock = exchange.clock
                if clock() - self.left_at > SHORTEST_WAIT_S:
                    self.waited()
            except Exception as error:  # noqa: BLE001 - likewise
                exchange.engine.fault("pause", error)
        token = _set(exchange)
        try:
            if self.steps is None:
                self.steps = iter(self.body)
            part = next(self.steps)
        except StopIteration:
            self.last()
            raise
        except BaseException as error:
            exchange.raised(error, self.first_at)
            raise
        finally:
            leave(token)
        try:
            if self.first_at is not None:
                exchange.answering(self.first_at)
            clock = exchange.clock
            self.left_at = clock()
            if part and self.first_at is None:
                self.first_at = self.left_at
        except Exception as error:  # noqa: BLE001 - likewise
            exchange.engine.fault("clock", error)
        return part

    def waited(self) -> None:
        """Leave out the time since the last part was handed over: the client took it slowly."""
        exchange = self.exchange
        try:
            if self.first_at is not None:
                exchange.answering(self.first_at)
        except Exception as error:  # noqa: BLE001 - a fault of ours must not end the response
            exchange.engine.fault("clock", error)
        if self.left_at is not None:
            exchange.resume(self.left_at)

    def last(self) -> None:
        """End the budget: there are no more parts."""
        exchange = self.exchange
        try:
            clock = exchange.clock
            # The only part was the last one, unless there was work to do after it.
            if self.first_at is not None and clock() - self.first_at > SHORTEST_WAIT_S:
                exchange.answering(self.first_at)
        except Exception as error:  # noqa: BLE001 - likewise
            exchange.engine.fault("clock", error)
        exchange.last()

    def close(self) -> None:
        """Close the application's own iterable, then finish the request."""
        exchange = self.exchange
        close = getattr(self.body, "close", None)
        try:
            if exchange.end is None:
                self.waited()
                if close is not None:
                    exchange.last()
            if close is not None:
                token = _set(exchange)
                try:
                    close()
                finally:
                    leave(token)
        except BaseException as error:
            exchange.raised(error)
            raise
        finally:
            if exchange.end is None or exchange.goes_on or hasattr(exchange, "untold"):
                exchange.finish()


class SizedBody(Body):
    """A step-by-step body whose length is known."""

    __slots__ = ()

    def __len__(self) -> int:
        return len(self.body)  # type: ignore[arg-type]


def watched(
    exchange: Exchange,
    body: Iterable[bytes],
    file_wrapper: object,
    kinds: tuple[type[Body], type[Body]] = (Body, SizedBody),
) -> Iterable[bytes]:
    """Return *body* with its end noted, in the shape the server needs to recognise.

    Args:
        exchange: Whose body it is.
        body: The application's own.
        file_wrapper: The server's, which it has to find as it is.
        kinds: What a step-by-step body becomes, and one of a known length.

    """
    if type(body) is list or type(body) is tuple:
        exchange.ready(body)
        return ReadyBody(exchange, body) if hasattr(exchange, "untold") else body
    if isinstance(file_wrapper, type) and isinstance(body, file_wrapper):
        exchange.last()
        _finish_with(exchange, body)
        return body
    steps = kinds[hasattr(body, "__len__")]()
    steps.body = body
    steps.exchange = exchange
    steps.steps = None
    steps.first_at = steps.left_at = None
    return steps
