"""May this request be turned away for coming too late? Not if too many were already.

A caller's deadline that is over on arrival says that answering is of no use. When all of them say
so, it is more likely a delay on the way than a thousand callers who no longer care, and turning
them all away makes an outage of it. So only a share of the traffic of the last seconds may be
refused for this reason (Finagle's ``DeadlineFilter`` limits it to 20 % in 10 s).
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Final

MOST_SHARE: Final = 0.2
WINDOW_S: Final = 10.0

_SLICES = 10  # the window moves on by a tenth of itself


class LateArrivals:
    """What share of recent requests was refused for coming too late; safe to use from threads.

    Args:
        most_share: The share that may be, from 0 to 1.
        window_s: The seconds it is measured over, give or take a tenth.

    """

    def __init__(self, most_share: float = MOST_SHARE, window_s: float = WINDOW_S) -> None:
        self._most_share = most_share
        self._slice_s = window_s / _SLICES
        self._slices = [[0, 0] for _ in range(_SLICES)]
        self._arrived = 0
        self._refused = 0
        self._now = 0
        self._lock = threading.RLock()
        _after_fork.add(self)

    def arrived(self, now_s: float) -> None:
        """Count a request, late or not; *now_s* is monotonic."""
        with self._lock:
            self._turn_to(now_s)
            self._slices[self._now % _SLICES][0] += 1
            self._arrived += 1

    def may_refuse(self, now_s: float) -> bool:
        """Tell whether a late request, already counted, may be refused; if so it counts as that."""
        with self._lock:
            self._turn_to(now_s)
            if self._refused + 1 > self._arrived * self._most_share:
                return False
            self._slices[self._now % _SLICES][1] += 1
            self._refused += 1
            return True

    def _turn_to(self, now_s: float) -> None:
        """Forget what is further back than the window."""
        now = int(now_s / self._slice_s)
        for passed in range(min(now - self._now, _SLICES)):
            of_slice = self._slices[(now - passed) % _SLICES]
            self._arrived -= of_slice[0]
            self._refused -= of_slice[1]
            of_slice[:] = 0, 0
        self._now = max(self._now, now)


_after_fork: weakref.WeakSet[LateArrivals] = weakref.WeakSet()


def _renew_locks() -> None:
    # A thread of the parent may have held the lock at the moment of the fork.
    for late in _after_fork:
        late._lock = threading.RLock()  # noqa: SLF001 - this file's own


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
