"""One request and its response, as the WSGI door sees them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextvars import Token
from math import inf
from types import TracebackType
from typing import Any, ClassVar

from budgetware._core.budget import Budget
from budgetware._core.current import current_budget
from budgetware._core.engine import Engine
from budgetware.http import SERVER_ERROR
from budgetware.names import SERVER_TIMING
from budgetware.runtime import SHORTEST_WAIT_S
from budgetware.telemetry.server_timing import render

_reset = current_budget.reset

ExcInfo = tuple[type[BaseException], BaseException, TracebackType]
Lines = Sequence[tuple[str, str]]
Write = Callable[[bytes], object]
StartResponse = Callable[..., Write]


def leave(token: Token[Budget | None]) -> None:
    """Make current what was before *token*."""
    try:  # noqa: SIM105 - suppress() would cost every step a call
        _reset(token)
    except ValueError:
        # The application left its thread in another context, where nothing was set.
        pass


class Exchange(Budget):
    """One request and its response: a budget that watches the answer go."""

    __slots__ = ("engine", "forward")

    goes_on: ClassVar[bool] = False
    """Whether there is something to do after the budget has ended and was told of."""

    engine: Engine
    forward: StartResponse

    def start_response(
        self,
        status: str,
        headers: Lines,
        *exc_info: ExcInfo | None,
        **named: Any,
    ) -> Write:
        """Pass the start of the response on; called again with *exc_info* it replaces it."""
        forward = self.forward
        write = forward(status, headers, *exc_info, **named)
        try:
            code = self.status = int(status[:3])
            if code >= SERVER_ERROR:
                self.engine.fail(self)
        except Exception as error:  # noqa: BLE001 - a fault of ours must not lose the response
            self.engine.fault("start_response", error)
        return functools.partial(_timed_write, self, write)

    def wait(self, part: bytes = b"") -> float:
        """Return when the server's time for *part* begins, having noted the first byte."""
        try:
            clock = self.clock
            now = clock()
            if part and not self.odd:
                self.answering(now)
        except Exception as error:  # noqa: BLE001 - a fault of ours must not end the response
            self.engine.fault("clock", error)
            return inf  # as the beginning of a wait, it makes no wait
        return now

    def resume(self, since: float) -> None:
        """Leave out the time the server has spent on the client *since*."""
        try:
            clock = self.clock
            waited_s = clock() - since
            if waited_s > SHORTEST_WAIT_S:
                self.pause(waited_s)
        except Exception as error:  # noqa: BLE001 - likewise
            self.engine.fault("pause", error)

    def ready(self, _: Sequence[bytes]) -> None:
        """End the budget of a response whose body was complete when the application returned."""
        self.last()

    def last(self) -> None:
        """End the budget: the application has nothing more to say."""
        try:
            if self.end is None:
                if hasattr(self, "status") or self._failed():
                    self.engine.end(self)
                else:
                    # Neither an answer nor an error of its own: nobody was left to answer.
                    self.engine.lose(self)
        except Exception as error:  # noqa: BLE001 - likewise
            self.engine.fault("close", error)

    def raised(self, error: BaseException, first_at: float | None = None) -> None:
        """Note that *error* left the application, after the body's first byte at *first_at*."""
        try:
            if first_at is not None:
                self.answering(first_at)
            self.error = type(error)
            if isinstance(error, Exception):
                self.engine.fail(self)
            if self.end is None and hasattr(self, "status") and not hasattr(self, "first_byte_at"):
                # PEP 3333: without a byte of the body, the server has sent nothing yet.
                self.status = None
        except Exception as fault:  # noqa: BLE001 - a fault of ours must not replace the error
            self.engine.fault("raised", fault)

    def finish(self) -> None:
        """Finish the budget, whatever way the application came to an end."""
        self.last()
        try:
            if hasattr(self, "untold"):
                self.engine.tell(self)
        except Exception as error:  # noqa: BLE001 - likewise
            self.engine.fault("finish", error)

    def _failed(self) -> bool:
        error = getattr(self, "error", None)
        return error is not None and issubclass(error, Exception)


def _timed_write(exchange: Exchange, write: Write, data: bytes) -> object:
    since = exchange.wait(data)
    result = write(data)
    exchange.resume(since)
    return result


class TimedExchange(Exchange):
    """An exchange whose response tells where the time went."""

    __slots__ = ()

    def start_response(
        self,
        status: str,
        headers: Lines,
        *exc_info: ExcInfo | None,
        **named: Any,
    ) -> Write:
        """Put a ``Server-Timing`` header on the start of the response, and pass it on."""
        try:
            headers = [*headers, (SERVER_TIMING, render(self).decode("latin-1"))]
        except Exception as error:  # noqa: BLE001 - likewise
            self.engine.fault("server_timing", error)
        return Exchange.start_response(self, status, headers, *exc_info, **named)
