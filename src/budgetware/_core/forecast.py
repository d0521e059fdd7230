"""What is likely, route by route? A bounded table of what each route has taught.

Names of routes come from the policy, but those of jobs come from the application, so there may be
any number of them. When the table is full, a new route takes the place of one that has been idle;
while none is, it has no forecast: nothing is short-circuited on it, and it is counted.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Mapping
from math import inf
from typing import Final

from budgetware._core.outlook import RouteForecast
from budgetware._core.policy import StagePlan

MOST_ROUTES: Final = 512
"""Routes a forecast keeps."""

IDLE_S: Final = 300.0
"""Seconds without a full request after which a route makes room for another."""


class Forecast:
    """The forecasts of all routes of one process.

    Args:
        most_routes: How many to keep.

    Attributes:
        refused: How often a route was asked for and there was no room for it.

    """

    def __init__(self, most_routes: int = MOST_ROUTES) -> None:
        self.refused = 0
        self._most_routes = most_routes
        # In the order in which they were last asked for.
        self._routes: dict[str, RouteForecast] = {}
        self._full_until_s = -inf
        # Re-entrant: the garbage collector may finish an abandoned request of the same thread.
        self._lock = threading.RLock()
        _after_fork.add(self)

    def of(
        self, route: str, stages: Mapping[str, StagePlan] | None, now_s: float
    ) -> RouteForecast | None:
        """Return the forecast of *route*, made if need be; ``None`` while there is no room.

        Ask once per policy and route and keep the answer. Where *route* had to make room, who
        still holds its forecast may go on using it.

        Args:
            route: The route's or job's name.
            stages: The limits of the tier with the longest budget; used for a new forecast only.
            now_s: The clock paths are learned by.

        """
        with self._lock:
            found = self._routes.pop(route, None)
            if found is None:
                if len(self._routes) >= self._most_routes and not self._evict(now_s):
                    self.refused += 1
                    return None
                found = RouteForecast(stages, now_s)
            self._routes[route] = found
            return found

    def __len__(self) -> int:
        return len(self._routes)

    def export(self) -> dict[str, object]:
        """Return what was learned, by route, as plain data."""
        with self._lock:
            routes = dict(self._routes)
        return {name: route.export() for name, route in routes.items()}

    def _evict(self, now_s: float) -> bool:
        """Make room by the route that was idle longest, if one was; tell whether there is room."""
        # Looking for it takes a while, and strangers may be able to make up names.
        if now_s < self._full_until_s or not self._routes:
            return False
        name, idle_since_s = min(
            ((name, route.last_s) for name, route in self._routes.items()),
            key=lambda entry: entry[1],
        )
        if now_s - idle_since_s < IDLE_S:
            self._full_until_s = idle_since_s + IDLE_S
            return False
        del self._routes[name]
        return True


_after_fork: weakref.WeakSet[Forecast] = weakref.WeakSet()


def _renew_locks() -> None:
    # A thread of the parent may have held the lock at the moment of the fork.
    for forecast in _after_fork:
        forecast._lock = threading.RLock()  # noqa: SLF001 - the same file


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
