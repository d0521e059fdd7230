"""How many more may be late, or smaller? A tier's late rate and a route's degraded share.

Neither decides. One moves the bar a decision compares with, the other closes the way to smaller
answers; a tier or route without such a promise has no quota.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Final

CAUTION_STEP: Final = 0.01
"""By how much one late answer more than promised raises the bar."""

LEAST_CAUTION: Final = -0.2
MOST_CAUTION: Final = 0.4

WINDOW_S: Final = 3600.0
"""Seconds over which the share of smaller answers is counted."""

SLICES: Final = 60
"""Parts of the window; it moves on by one part at a time."""


class LateQuota:
    """Keeps the long-run share of late answers near what is promised.

    Adaptive conformal inference (Gibbs and Candes, arXiv 2106.00170): every answer moves the bar
    by how far it is from the promised rate, whatever the distribution does meanwhile. A lost
    update under threads loses one answer.

    Args:
        most_late: The promised share of late answers.

    Attributes:
        caution: To add to what the alternative is worth.

    """

    __slots__ = ("_most_late", "caution")

    def __init__(self, most_late: float) -> None:
        self._most_late = most_late
        self.caution = 0.0

    def count(self, *, late: bool) -> None:
        """Take note of one answer, full or smaller."""
        caution = self.caution + CAUTION_STEP * ((1.0 if late else 0.0) - self._most_late)
        self.caution = min(max(caution, LEAST_CAUTION), MOST_CAUTION)


class DegradedQuota:
    """Tells when a route's share of smaller answers is used up; safe under threads.

    One smaller answer per window is always allowed, or a small share would allow none at all
    until the first window is nearly over.

    Args:
        most: The promised share of smaller answers.
        window_s: Over how many seconds it is counted.

    Attributes:
        most: The promised share.

    """

    __slots__ = ("__weakref__", "_answers", "_degraded", "_lock", "_slice", "_slice_s", "most")

    def __init__(self, most: float, window_s: float = WINDOW_S) -> None:
        self.most = most
        self._slice_s = window_s / SLICES
        self._slice = 0
        self._answers = [0] * SLICES
        self._degraded = [0] * SLICES
        # Re-entrant: the garbage collector may finish an abandoned request of the same thread.
        self._lock = threading.RLock()
        _after_fork.add(self)

    def count(self, now_s: float, *, degraded: bool) -> None:
        """Take note of one answer, full or smaller, at *now_s* on a monotonic clock."""
        with self._lock:
            index = self._turn(now_s)
            self._answers[index] += 1
            if degraded:
                self._degraded[index] += 1

    def used_up(self, now_s: float) -> bool:
        """Tell whether one smaller answer more would be too many."""
        with self._lock:
            self._turn(now_s)
            allowed = max(1.0, self.most * (sum(self._answers) + 1))
            return self.most < 1.0 and sum(self._degraded) + 1 > allowed

    def counts(self, now_s: float) -> tuple[int, int]:
        """Return the smaller answers and all answers of the window that ends at *now_s*."""
        with self._lock:
            self._turn(now_s)
            return sum(self._degraded), sum(self._answers)

    def _turn(self, now_s: float) -> int:
        """Forget what has left the window; return the part of it that is now."""
        reached = int(now_s // self._slice_s)
        passed = min(max(reached - self._slice, 0), SLICES)
        for index in range(reached - passed + 1, reached + 1):
            self._answers[index % SLICES] = self._degraded[index % SLICES] = 0
        self._slice = max(reached, self._slice)
        return self._slice % SLICES


_after_fork: weakref.WeakSet[DegradedQuota] = weakref.WeakSet()


def _renew_locks() -> None:
    # A thread of the parent may have held the lock at the moment of the fork.
    for quota in _after_fork:
        quota._lock = threading.RLock()  # noqa: SLF001 - the same file


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
