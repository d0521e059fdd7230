"""Clocks as applications may give them: right but for one reading, or for all from one on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Self


class ClockError(Exception):
    """The clock's own error."""


def _raises(_: float) -> float:
    raise ClockError("no time")


WAYS: Final[dict[str, Callable[[float], Any]]] = {
    "raises": _raises,
    "gives None": lambda _: None,
    "gives text": str,
    "gives nan": lambda _: float("nan"),
    "gives inf": lambda _: float("inf"),
    "goes back": lambda now: now - 3600.0,
}
"""What a broken clock makes of the time it should give."""


FOR_GOOD: Final = " for good"


class BrokenClock:
    """Another clock, broken in one of the ``WAYS`` when it is read for the n-th time.

    Args:
        way: How it is broken; with `` for good`` behind it, all later readings are, too.
        broken_at: At which reading, counted from 0.

    Attributes:
        broken_at: See above.
        failed: Whether it was read so often.
        read: How often it was read.

    """

    def __init__(self, way: str, broken_at: int = 0) -> None:
        self._clock: Callable[[], float] = float
        self._way = way.removesuffix(FOR_GOOD)
        self._for_good = way.endswith(FOR_GOOD)
        self.broken_at = broken_at
        self.read = 0
        self.failed = False

    def over(self, clock: Callable[[], float]) -> Self:
        """Return this clock, which is to give the time of *clock*."""
        self._clock = clock
        return self

    def __call__(self) -> float:
        """Return the time, unless this reading is a broken one."""
        reading, self.read = self.read, self.read + 1
        if reading == self.broken_at or (self._for_good and reading > self.broken_at):
            self.failed = True
            return WAYS[self._way](self._clock())  # type: ignore[no-any-return]
        return self._clock()

    @property
    def told_of(self) -> bool:
        """Whether it has failed in a way that nobody can take for the time."""
        return self.failed and self._way != "goes back"
