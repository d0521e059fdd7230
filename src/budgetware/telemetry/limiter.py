"""May this event be written? So many per second and key, so many in all; the rest is counted."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Hashable
from math import inf
from typing import Final

MOST_KEYS: Final = 1024
"""Keys with an allowance of their own; later ones share a single one."""

# Re-entrant: the garbage collector may finish an abandoned request of the same thread.
_lock = threading.RLock()


class _Bucket:
    __slots__ = ("at", "suppressed", "tokens")

    def __init__(self, tokens: float, at: float) -> None:
        self.tokens = tokens
        self.at = at
        self.suppressed = 0

    def fill(self, now: float, rate: float, burst: float) -> bool:
        """Add what *rate* gave since the last time; tell whether there is a token to take."""
        self.tokens = min(burst, self.tokens + max(0.0, now - self.at) * rate)
        self.at = now
        return self.tokens >= 1


class Limiter:
    """Two token buckets: one per key, and one over all of them.

    Args:
        rate: Events per second and key in the long run.
        burst: Events of one key that may come at once.
        total_rate: Events per second of all keys together.
        total_burst: Events of all keys that may come at once.
        clock: Monotonic seconds.

    """

    def __init__(
        self,
        *,
        rate: float = 1.0,
        burst: float = 5.0,
        total_rate: float = 20.0,
        total_burst: float = 40.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._total_rate = total_rate
        self._total_burst = total_burst
        self._clock = clock
        self._total = _Bucket(total_burst, -inf)
        self._rest = _Bucket(burst, -inf)
        self._keys: dict[Hashable, _Bucket] = {}

    def admit(self, key: Hashable) -> int | None:
        """Return how many of *key* were suppressed before this one, ``None`` to suppress it."""
        with _lock:
            now = self._clock()
            bucket = self._bucket(key)
            # Both are filled before either is asked, so that neither falls behind.
            own = bucket.fill(now, self._rate, self._burst)
            total = self._total.fill(now, self._total_rate, self._total_burst)
            if not (own and total):
                bucket.suppressed += 1
                return None
            bucket.tokens -= 1
            self._total.tokens -= 1
            suppressed, bucket.suppressed = bucket.suppressed, 0
            return suppressed

    def _bucket(self, key: Hashable) -> _Bucket:
        bucket = self._keys.get(key)
        if bucket is None:
            if len(self._keys) >= MOST_KEYS:
                return self._rest
            bucket = self._keys.setdefault(key, _Bucket(self._burst, -inf))
        return bucket


def _renew_lock() -> None:
    # A thread of the parent may have held the lock at the moment of the fork.
    global _lock  # noqa: PLW0603 - one lock serves every limiter, so one line renews it
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
