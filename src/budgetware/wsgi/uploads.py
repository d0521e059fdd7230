"""The body of a request on its way in."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from budgetware.wsgi.exchange import Exchange
    from budgetware.wsgi.steered import SteeredExchange

_OTHER_READS: Final = frozenset({"read1", "readinto", "readinto1"})
_END: Final = object()


class TimedInput:
    """The request's body; waiting for the client to send it is not the application's time.

    It does not keep the request: it is in the environ, which the request keeps for its fallback.
    """

    def __init__(self, stream: Any, exchange: Exchange) -> None:
        self._stream = stream
        self._exchange_of = weakref.ref(exchange)

    def read(self, *size: Any, **named: Any) -> Any:
        """Read up to *size* bytes."""
        return self._timed(self._stream.read, *size, **named)

    def readline(self, *size: Any, **named: Any) -> Any:
        """Read one line."""
        return self._timed(self._stream.readline, *size, **named)

    def readlines(self, *hint: Any, **named: Any) -> Any:
        """Read all lines."""
        return self._timed(self._stream.readlines, *hint, **named)

    def __iter__(self) -> Iterator[bytes]:
        lines = iter(self._stream)
        while (line := self._timed(next, lines, _END)) is not _END:
            yield line

    def __next__(self) -> Any:
        return self._timed(next, self._stream)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._stream, name)
        return functools.partial(self._timed, found) if name in _OTHER_READS else found

    def _timed(self, read: Callable[..., Any], *args: Any, **named: Any) -> Any:
        exchange = self._exchange_of()
        if exchange is None:  # the request is over
            return read(*args, **named)
        since = exchange.wait()
        try:
            return read(*args, **named)
        finally:
            exchange.resume(since)


class UncacheableInput(TimedInput):
    """The body of a request that should have none; what it has after all is no part of any key."""

    def _timed(self, read: Callable[..., Any], *args: Any, **named: Any) -> Any:
        result = super()._timed(read, *args, **named)
        exchange = cast("SteeredExchange | None", self._exchange_of())
        if exchange is not None and result and result is not _END:
            exchange.has_body()
        return result
