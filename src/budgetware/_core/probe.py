"""May this request be a probe? Permits to try in full what would otherwise not be tried.

A route that is answered with something smaller teaches nothing, and would stay so for ever. From
time to time one of its requests is a probe: its work goes on behind the answer, or, where that
must not be, in front of the user, which is then rarer. Intervals double while probes fail; one
good probe makes the next one due at once. All probes together are a small share of all requests.

Method: ``docs/ESTIMATOR.md`` section 5; a permit that is never given back expires.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from itertools import count
from math import inf
from typing import Final, NamedTuple

PROBE_SHARE: Final = 0.02
"""How many of all requests may be probes; good ones do not count."""

BURST: Final = 5.0
"""Probes that may be saved up for when they are needed."""

BEHIND_S: Final = (0.1, 1.0)
"""The shortest and the longest interval of probes behind an answer, in seconds."""

IN_FRONT_S: Final = (0.5, 8.0)
"""The shortest and the longest interval of probes that users wait for, in seconds."""

LEASE_S: Final = 2.0
"""Seconds after which a permit that was not given back is taken for lost."""

MOST_OUT: Final = 4
"""Probes of one point that may be out at once."""

MOST_TIMERS: Final = 64
"""Points of one route that have probes of their own."""

JITTER: Final = 0.2
"""By how much of itself an interval may be longer: processes should not probe in step."""

Point = str | None


class Permit(NamedTuple):
    """The right to make one probe; ``settle`` it whatever becomes of the probe.

    Attributes:
        point: Where.
        number: Distinguishes the permits of a route.

    """

    point: Point
    number: int


class _Timer:
    """When a point is to be probed next, and which probes of it are out until when."""

    __slots__ = ("interval_s", "next_s", "out", "urgent")

    def __init__(self) -> None:
        self.interval_s = 0.0
        self.next_s = -inf
        self.urgent = False
        self.out: dict[int, float] = {}


class Allowance:
    """How many probes a process may still make, earned by its requests; safe under threads.

    Args:
        share: Probes per request.
        burst: How many can be saved up.

    """

    __slots__ = ("__weakref__", "_burst", "_earned", "_lock", "_requests", "_saved", "_share")

    def __init__(self, share: float = PROBE_SHARE, burst: float = BURST) -> None:
        self._share = share
        self._burst = burst
        self._saved = burst
        self._requests = count(1)
        self._earned = 0
        # Re-entrant: the garbage collector may finish an abandoned request of the same thread.
        self._lock = threading.RLock()
        _after_fork.add(self)

    def earn(self) -> None:
        """Count one request."""
        # Atomic, unlike an addition; what was earned is worked out when somebody wants it.
        next(self._requests)

    def spend(self) -> bool:
        """Take one probe out; tell whether there was one."""
        with self._lock:
            self._collect()
            if self._saved < 1.0:
                return False
            self._saved -= 1.0
            return True

    def refund(self) -> None:
        """Put one probe back."""
        with self._lock:
            self._collect()
            self._saved = min(self._saved + 1.0, self._burst)

    @property
    def left(self) -> float:
        """Probes that could be made now."""
        with self._lock:
            self._collect()
            return self._saved

    def _collect(self) -> None:
        # Asking a counter for its value moves it; that one is not a request.
        reached = next(self._requests)
        self._saved = min(self._saved + self._share * (reached - self._earned - 1), self._burst)
        self._earned = reached


class Probes:
    """The probes of one route; safe under threads.

    Args:
        allowance: What all routes of the process share.
        random: Returns numbers in [0, 1).

    """

    __slots__ = ("__weakref__", "_allowance", "_lock", "_number", "_random", "_timers")

    def __init__(self, allowance: Allowance, random: Callable[[], float]) -> None:
        self._allowance = allowance
        self._random = random
        self._timers: dict[Point, _Timer] = {}
        self._number = 0
        self._lock = threading.RLock()
        _after_fork.add(self)

    def due(self, point: Point, now_s: float, quiet_s: float) -> bool:
        """Tell whether a probe should be made at *point*.

        Args:
            point: The stage about to open, ``None`` at the beginning.
            now_s: The clock.
            quiet_s: Seconds since the point has last seen a full request, probe or not; there is
                no need to probe what others are trying anyway.

        """
        timer = self._timers.get(point)
        if timer is None:
            return quiet_s >= BEHIND_S[0] and len(self._timers) < MOST_TIMERS
        if timer.urgent:
            return True
        return now_s >= timer.next_s and quiet_s >= max(timer.interval_s, BEHIND_S[0])

    def take(self, point: Point, now_s: float, quiet_s: float, *, behind: bool) -> Permit | None:
        """Return a permit for one probe at *point* if one is due and affordable.

        The arguments are those of ``due``; *behind* tells that no user will wait for it.
        """
        with self._lock:
            if not self.due(point, now_s, quiet_s):
                return None
            timer = self._timers.get(point) or _Timer()
            for number in [number for number, until_s in timer.out.items() if until_s <= now_s]:
                del timer.out[number]
            if len(timer.out) >= MOST_OUT or not self._allowance.spend():
                return None
            self._timers[point] = timer
            shortest_s, longest_s = BEHIND_S if behind else IN_FRONT_S
            timer.interval_s = min(max(2.0 * timer.interval_s, shortest_s), longest_s)
            timer.next_s = now_s + timer.interval_s * (1.0 + JITTER * self._random())
            timer.urgent = False
            self._number += 1
            timer.out[self._number] = now_s + LEASE_S
            return Permit(point, self._number)

    def settle(self, permit: Permit, *, good: bool | None) -> None:
        """Give *permit* back, once.

        Args:
            permit: What ``take`` returned.
            good: Whether the whole request was, or would have been, in time; ``None`` if it says
                nothing of that, as one that was refused: then another may try at once.

        """
        with self._lock:
            timer = self._timers.get(permit.point)
            if timer is None:
                return
            timer.out.pop(permit.number, None)
            if good is None:
                timer.interval_s /= 2.0
                timer.next_s = -inf
            elif good:
                # Recovery is not rationed: the next probe is due at once and this one was free.
                timer.interval_s = 0.0
                timer.urgent = True
                self._allowance.refund()

    def proved(self, point: Point) -> None:
        """Take note that a request which passed *point* was full and in time, without a probe."""
        timer = self._timers.get(point)
        if timer is not None:
            timer.interval_s = 0.0


_after_fork: weakref.WeakSet[Allowance | Probes] = weakref.WeakSet()


def _renew_locks() -> None:
    # A thread of the parent may have held the lock at the moment of the fork.
    for one in _after_fork:
        one._lock = threading.RLock()  # noqa: SLF001 - the same file


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
