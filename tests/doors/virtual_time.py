"""An event loop whose time passes at once: whoever sleeps is woken as soon as nobody else runs."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Time:
    """A clock that every sleep moves.

    Attributes:
        now: Where it stands, in seconds.

    """

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return where it stands, in seconds."""
        return self.now

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run *main* to its end on a loop of this time."""
        loop = asyncio.SelectorEventLoop(_Impatient(self))
        loop.time = self  # type: ignore[method-assign]
        try:
            return loop.run_until_complete(main)
        finally:
            loop.close()


class _Impatient(selectors.SelectSelector):
    def __init__(self, time: Time) -> None:
        super().__init__()
        self._time = time

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout:
            self._time.now += timeout
        return ready
