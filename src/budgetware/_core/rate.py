"""How fast may one caller go? Answered from one number per caller, in bounded memory.

The method is the generic cell rate algorithm (ITU-T I.371, the virtual scheduling form): a caller
has a *theoretical arrival time* that each admitted request moves on by ``1 / rate``; a request is
admitted while that time is no further ahead of now than its burst allows. A request that is
refused costs nothing, so a caller that keeps knocking is let in as often as one that waits.

Callers are kept as 64-bit hashes, which makes an entry's size independent of what a caller calls
itself and keeps identities out of memory dumps. When there are more callers than entries, the
oldest entry gives way. What it still owes goes to a fixed table that several callers share, by
the greatest, so a caller that was forgotten never gets a new burst; the price is that a new one
may, rarely, begin with somebody else's debt, which is over after one burst's time.
"""

from __future__ import annotations

import os
import threading
import weakref
from array import array
from collections import deque
from collections.abc import Hashable
from math import ceil, inf
from typing import Final

MOST_IDENTITIES: Final = 100_000
"""Callers with an entry of their own, about 150 bytes each."""

LONGEST_WAIT_S: Final = 86_400.0
"""No wait is said to be longer than a day, whatever the rate."""

_CHANCES = 4  # how many entries that still owe something are spared before one gives way
_LONGEST_INTERVAL_S = 1e9  # sums stay finite, even for the smallest rates that can be written
_ROUNDING = 1e-6  # of an interval; it is not gained each time, as what is owed stays exact
_SPREAD_S = 2.0  # clients refused at one moment come back over this many seconds, at least


def burst_of(rate_per_s: float) -> float:
    """Return how many requests may come at once under *rate_per_s*: a second's worth, at least 1.

    The policy file states a rate only. A caller of ``10/s`` that sends its ten requests together
    keeps its promise as well as one that spreads them.
    """
    return max(1.0, rate_per_s)


def retry_after_s(wait_s: float, random: float) -> int:
    """Return whole seconds, at least 1, for the ``Retry-After`` of a refused request.

    Clients refused together must not come back together, so the wait is lengthened by up to its
    own length, and never spread over less than two seconds.

    Args:
        wait_s: Seconds until there is room; what is negative or not a number counts as 0.
        random: From 0 up to 1, drawn anew for every answer.

    """
    least_s = min(wait_s, LONGEST_WAIT_S) if wait_s > 0 else 0.0
    return max(1, ceil(least_s + random * max(_SPREAD_S, least_s)))


class Rates:
    """What each caller of each tier has used of its rate; safe to use from many threads.

    Args:
        most_identities: Callers with an entry of their own, at least 1. More than these share
            a table of the same number of places.

    Raises:
        ValueError: *most_identities* is below 1.

    """

    def __init__(self, most_identities: int = MOST_IDENTITIES) -> None:
        if most_identities < 1:
            raise ValueError(f"there must be room for one caller, not {most_identities}")
        self._most = most_identities
        # Re-entrant: the garbage collector may run anything in the middle of this.
        self._lock = threading.RLock()
        self._arrival_s: dict[int, float] = {}
        self._oldest: deque[int] = deque()
        # Made when the first debt is forgotten: few services have so many callers.
        self._forgotten: array[float] | None = None
        _after_fork.add(self)

    def __len__(self) -> int:
        """Return how many callers have an entry of their own."""
        return len(self._arrival_s)

    def take(
        self,
        tier: str | None,
        identity: Hashable,
        rate_per_s: float,
        burst: float,
        now_s: float,
    ) -> float:
        """Admit one request and return 0, or return the seconds until one would be admitted.

        Args:
            tier: The caller's tier; equal identities of two tiers are two callers.
            identity: Whoever the service says it is; ``None`` stands for everybody of the tier
                whom nobody knows, who then share one rate.
            rate_per_s: Requests per second in the long run; 0 or less admits nothing, ``inf``
                everything.
            burst: Requests that may come at once; below 1 it counts as 1.
            now_s: Monotonic seconds. Should they jump back, nobody waits longer for it than it
                takes to earn one burst.

        """
        if not rate_per_s > 0:
            return LONGEST_WAIT_S
        interval_s = min(1.0 / rate_per_s, _LONGEST_INTERVAL_S)
        tolerance_s = interval_s * burst if burst > 1.0 else interval_s
        key = hash((tier, identity))
        with self._lock:
            arrival_s = self._arrival_s.get(key)
            known = arrival_s is not None
            if arrival_s is None:
                arrival_s = self._remembered(key)
            # A debt never exceeds one burst: not after a faster rate, nor after a clock's jump.
            most_s = now_s + tolerance_s
            forgiven = arrival_s > most_s
            arrival_s = most_s if forgiven else max(arrival_s, now_s)
            wait_s = arrival_s + interval_s - tolerance_s - now_s
            # Sums of intervals round, and a caller at exactly its rate is within it.
            refused = wait_s > interval_s * _ROUNDING
            if not refused or forgiven:
                if not known:
                    self._make_room(now_s)
                    self._oldest.append(key)
                self._arrival_s[key] = arrival_s if refused else arrival_s + interval_s
        return min(wait_s, LONGEST_WAIT_S) if refused else 0.0

    def _make_room(self, now_s: float) -> None:
        """Let one entry give way if there is no room: the oldest that owes nothing, if near."""
        chances = _CHANCES
        while len(self._arrival_s) >= self._most and self._oldest:
            key = self._oldest.popleft()
            arrival_s = self._arrival_s.get(key, -inf)
            if arrival_s > now_s:
                if chances:
                    chances -= 1
                    self._oldest.append(key)
                    continue
                if self._forgotten is None:
                    self._forgotten = array("d", [-inf]) * self._most
                for place in self._places(key):
                    self._forgotten[place] = max(self._forgotten[place], arrival_s)
            self._arrival_s.pop(key, None)

    def _remembered(self, key: int) -> float:
        # Each caller stands in two places, and all who meet in one leave the greatest debt there:
        # the lesser of the two is at least its own (the reasoning of a count-min sketch).
        if self._forgotten is None:
            return -inf
        first, second = self._places(key)
        return min(self._forgotten[first], self._forgotten[second])

    def _places(self, key: int) -> tuple[int, int]:
        # The table is as long as there may be entries, so both halves of the hash are needed.
        return key % self._most, (key >> 32) * 0x9E3779B1 % self._most


_after_fork: weakref.WeakSet[Rates] = weakref.WeakSet()


def _renew_locks() -> None:
    # A thread of the parent may have held the lock at the moment of the fork.
    for rates in _after_fork:
        rates._lock = threading.RLock()  # noqa: SLF001 - this file's own


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
