"""What is known and promised where requests of one route and tier are decided on.

A ``Steering`` belongs to a route and tier, a ``Course`` to one of its requests.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import ClassVar, Final, Protocol

from budgetware._core.decide import (
    DEGRADED_WORTH,
    Action,
    Decision,
    enough,
)
from budgetware._core.forecast import Forecast
from budgetware._core.outlook import RouteForecast
from budgetware._core.policy import Mode, Plan
from budgetware._core.probe import Allowance, Probes
from budgetware._core.quota import DegradedQuota, LateQuota

Told = Callable[[Decision], None]

MOST_UNSERVED: Final = 16
"""After so many with nobody served, redirects are what a route is for."""


class Foreseen(Protocol):
    """Hears how likely a request was thought to be in time, and what became of it."""

    def __call__(self, fits: float, *, late: bool) -> None:
        """See ``Steering``."""


class Traffic:
    """What all steered requests of a process share: how many there are now, and may be probes."""

    def __init__(self, forecast: Forecast, random: Callable[[], float]) -> None:
        self.forecast = forecast
        self.random = random
        self.allowance = Allowance()
        self.now = 0
        self._probes: dict[str, Probes] = {}
        # Re-entrant: the garbage collector may finish an abandoned request of the same thread.
        self._lock = threading.RLock()
        _after_fork.add(self)

    def probes_of(self, route: str) -> Probes:
        """Return the probes of *route*, which all its tiers share as they share its forecast."""
        with self._lock:
            found = self._probes.get(route)
            if found is None:
                found = self._probes[route] = Probes(self.allowance, self.random)
            return found

    def enter(self) -> int:
        """Count a request in; return how many there are with it."""
        with self._lock:
            self.now += 1
            return self.now

    def leave(self) -> None:
        """Count a request out."""
        with self._lock:
            self.now -= 1


class Steering:
    """The decisions of one route for one tier.

    Args:
        plan: What is promised.
        traffic: What all routes share.
        now_s: The clock.
        told: Hears of every decision that is not simply to go on.
        foreseen: Hears of every request that went its full way: how likely it was thought to be
            in time when it began, and whether it was late.

    Attributes:
        forecast: What is likely, ``None`` where there is no room for one.
        least_fits: The probability of being in time from which on nothing else is asked.
        probes: The route's.
        traffic: What all routes share.
        told: See above; *foreseen* likewise.
        acts: Whether decisions are carried out, or only counted.
        plan: What is promised.
        serves: Whether the application has sent a full response that was no redirect.
        quota: The share of smaller answers that is promised, ``None`` without such a promise.
        menu: What a door has found there is to answer with.
        forced: What every decision is, for tests; ``None`` in life.

    """

    forced: ClassVar[Action | None] = None

    __slots__ = (
        "_late",
        "_redirects",
        "acts",
        "forecast",
        "foreseen",
        "least_fits",
        "menu",
        "plan",
        "probes",
        "quota",
        "serves",
        "told",
        "traffic",
    )

    def __init__(
        self,
        plan: Plan,
        traffic: Traffic,
        now_s: float,
        told: Told,
        foreseen: Foreseen = lambda _fits, *, late: None,  # noqa: ARG005 - nobody listens
    ) -> None:
        self.plan = plan
        self.acts = plan.mode is Mode.ENFORCE
        self.serves = False
        self._redirects = 0
        self.menu: object = None
        self.traffic = traffic
        self.told = told
        self.foreseen = foreseen
        self.least_fits = enough(plan.late_worth, DEGRADED_WORTH)
        self.forecast: RouteForecast | None = traffic.forecast.of(plan.route, plan.stages, now_s)
        self.probes = traffic.probes_of(plan.route)
        self.quota = DegradedQuota(plan.degraded) if plan.degraded < 1.0 else None
        self._late = None if plan.max_late is None else LateQuota(plan.max_late)

    def spend(self) -> bool:
        """Take out one of the few works that may be done only to learn or to refresh."""
        return self.traffic.allowance.spend()

    def rationed(self, now_s: float) -> bool:
        """Tell whether the share of smaller answers is used up."""
        return self.quota is not None and self.quota.used_up(now_s)

    def caution(self) -> float:
        """Return what to add to an alternative's worth, to hold the promised rate of late ones."""
        return 0.0 if self._late is None else self._late.caution

    def redirects(self) -> bool:
        """Note a redirect; tell whether it is no more than a refusal, as where others are served.

        Where nobody ever is, redirects are what the route is for.
        """
        self._redirects += 1
        return self.serves or self._redirects <= MOST_UNSERVED

    def count(self, now_s: float, *, degraded: bool, late: bool) -> None:
        """Count one request that has ended against what is promised of all of them."""
        if self.quota is not None:
            self.quota.count(now_s, degraded=degraded)
        if self._late is not None:
            self._late.count(late=late)
            self.least_fits = enough(self.plan.late_worth, DEGRADED_WORTH + self._late.caution)


_after_fork: weakref.WeakSet[Traffic] = weakref.WeakSet()


def _begin_anew() -> None:
    # The parent's requests are not the child's, and a thread of it may have held the lock.
    for traffic in _after_fork:
        traffic.now = 0
        traffic._lock = threading.RLock()  # noqa: SLF001 - the same file


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
