"""How much, summed: this process's running totals, bounded in number.

A tally's totals only grow; it survives a change of policy, so what it feeds never goes backwards.
Durations are kept as plain floats until ``absorb`` puts them into buckets, many at a time, which
is several times cheaper than a bucket search for each.
"""

from __future__ import annotations

import os
import threading
import weakref
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import TypeVar

from budgetware._core.decide import Action, Decision, Reason
from budgetware._core.distribution import Distribution
from budgetware._core.policy import Ladder, Mode, Plan, Policy
from budgetware._core.quota import DegradedQuota
from budgetware._core.record import Level, Outcome, rungs_s
from budgetware.names import OTHER

T = TypeVar("T")

SECONDS_BOUNDS: tuple[float, ...] = (
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05,
    0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip
"""Upper bounds in seconds: OpenTelemetry's for HTTP servers, and finer ones for stages."""

MOST_BOUNDS = 24
"""How many bounds there may be, those of the policy included."""

UNDECLARED_NAMES = 64
"""How many names that the policy does not list may have totals of their own."""

Choice = tuple[str, str | None, Mode, Action, Reason]
"""A decision as it is counted: route, tier, mode, what to do and why."""

LIKELY = 0.5
"""The probability from which on a request was forecast to be in time rather than late."""

MOST_SERIES = 1500
"""How many totals of a kind there may be; OpenTelemetry's own default limit is 2000."""


def bounds_of(policy: Policy) -> tuple[float, ...]:
    """Return the buckets' bounds under *policy*: the common ones, and exact ones at its promises.

    Whole budgets come before allocations; what would make too many is left out.
    """
    plans = [
        policy.plan(route, tier)
        for route in (None, *policy.routes.values())
        for tier in policy.tiers or (None,)
    ]
    promises = [plan.limit_s for plan in plans]
    promises.extend(stage.limit_s for plan in plans for stage in plan.stages.values())
    bounds = set(SECONDS_BOUNDS)
    for promise in promises:
        if len(bounds) < MOST_BOUNDS and 0 < promise < inf:
            bounds.add(promise)
    return tuple(sorted(bounds))


def _taken(pending: list[T]) -> list[T]:
    # Other threads may append meanwhile; what they add stays for the next time.
    values = pending[:]
    del pending[: len(values)]
    return values


@dataclass(slots=True)
class RequestSeries:
    """The totals of one route and tier.

    Attributes:
        route: The route's name.
        tier: The tier's name, if any.
        durations: Judged seconds of every request.
        outcomes: Requests by outcome; keyed by plain text, whose hash is cheaper than an enum's.
        violations: Requests by the rung they went over.
        errors: Requests that raised or answered with a 5xx status.
        limit_s: The budget now in force, for the gauge.

    """

    route: str
    tier: str | None
    durations: Distribution
    outcomes: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys((outcome.value for outcome in Outcome), 0),
    )
    violations: dict[Level, int] = field(default_factory=lambda: dict.fromkeys(Level, 0))
    errors: int = 0
    limit_s: float = inf


class Intake:
    """Where a lane leaves the durations of its requests, and how their outcomes are told.

    Outcomes follow from durations, so the hot path appends a float and nothing else.
    """

    __slots__ = ("_owner", "_rungs", "_series", "pending")

    def __init__(
        self,
        series: RequestSeries,
        limit_s: float,
        ladder: Ladder,
        owner: object,
        orphaned: Callable[[object], None],
    ) -> None:
        self.pending: list[float] = []
        self._series = series
        self._owner = weakref.ref(owner, orphaned)
        rungs = ((Outcome.UNBUDGETED, inf),) if limit_s == inf else rungs_s(limit_s, ladder)
        self._rungs = tuple((outcome.value, rung_s) for outcome, rung_s in rungs)

    @property
    def in_use(self) -> bool:
        """Whether anything can still be left here."""
        return self._owner() is not None or bool(self.pending)

    def take(self) -> tuple[RequestSeries, list[float]]:
        """Count the outcomes of what is pending; return whose it is, and the durations in order."""
        values = _taken(self.pending)
        values.sort()
        outcomes, below = self._series.outcomes, 0
        for outcome, rung in self._rungs:
            if below == len(values):
                break
            reached = bisect_right(values, rung, below)
            outcomes[outcome] += reached - below
            below = reached
        return self._series, values


@dataclass(slots=True)
class StageSeries:
    """The totals of one stage of one route.

    Attributes:
        route: The route's name.
        stage: The stage's name.
        durations: Seconds of every opening.
        pending: Those that were not sorted into ``durations`` yet.
        violations: Requests in which the stage went over a rung, by tier and rung.
        limits_s: The allocations now in force by tier, for the gauge.

    """

    route: str
    stage: str
    durations: Distribution
    pending: list[float] = field(default_factory=list)
    violations: dict[tuple[str | None, Level], int] = field(default_factory=dict)
    limits_s: dict[str | None, float] = field(default_factory=dict)


@dataclass(slots=True)
class Foreseen:
    """How a forecast fared: what it expected of the requests it was about, and what became of them.

    Attributes:
        checked: Requests that went their full way.
        expected_late: The sum of their probabilities of being late.
        late: How many were.

    """

    checked: int = 0
    expected_late: float = 0.0
    late: int = 0


class Tally:
    """Every running total of one engine.

    Hold ``lock`` to write, and to go through all of one kind; the methods take it themselves.

    Attributes:
        smaller: Requests answered with something smaller that are still to be counted: the totals,
            the outcome, the seconds. Append without a lock.
        quotas: By route and tier those that are in use, of shares of smaller answers.

    """

    def __init__(self, bounds: Sequence[float] = SECONDS_BOUNDS) -> None:
        self.bounds = tuple(bounds)
        # Re-entrant: the garbage collector may finish an abandoned request of the same thread.
        self.lock = threading.RLock()
        self.requests: dict[tuple[str, str | None], RequestSeries] = {}
        self.stages: dict[tuple[str, str], StageSeries] = {}
        self.faults: dict[str, int] = {}
        self.decisions: dict[Choice, int] = {}
        self.degraded: dict[tuple[str, str | None, str, str], int] = {}
        self.admission: dict[tuple[str | None, Mode, str], int] = {}
        self.cache: dict[tuple[str, str | None, str, str | None], int] = {}
        self.forecasts: dict[tuple[str, str | None, bool], Foreseen] = {}
        self.smaller: list[tuple[RequestSeries, str, float]] = []
        # Weak: who decides by one owns it, and lets it go when its policy is no longer in force.
        self.quotas: weakref.WeakValueDictionary[tuple[str, str | None], DegradedQuota] = (
            weakref.WeakValueDictionary()
        )
        self._undeclared: set[str] = set()
        self._intakes: list[Intake] = []
        self._orphans = False
        self._inherited = 0
        _after_fork.add(self)

    @property
    def counted(self) -> int:
        """How much was ever counted: requests, jobs, faults, whatever there is."""
        with self.lock:
            ended = sum(sum(one.outcomes.values()) + one.errors for one in self.requests.values())
            pending = sum(len(one.pending) for one in self._intakes) + len(self.smaller)
            kinds = (self.faults, self.decisions, self.degraded, self.admission, self.cache)
            others = sum(sum(kind.values()) for kind in kinds)
            return ended + pending + others + sum(one.checked for one in self.forecasts.values())

    @property
    def idle(self) -> bool:
        """Whether none of that was counted in this process, and not in one it was forked from."""
        return self.counted == self._inherited

    def request(self, route: str, tier: str | None) -> RequestSeries:
        """Return the totals of *route* and *tier*; past the cap, those of ``_OTHER``."""
        found = self.requests.get((route, tier))
        if found is None:
            with self.lock:
                if len(self.requests) >= MOST_SERIES:
                    route, tier = OTHER, None
                found = self.requests.setdefault(
                    (route, tier),
                    RequestSeries(route, tier, Distribution(self.bounds)),
                )
        return found

    def intake(
        self,
        series: RequestSeries,
        limit_s: float,
        ladder: Ladder,
        owner: object,
    ) -> Intake:
        """Return a place for *owner* to leave durations as long as it lives."""
        intake = Intake(series, limit_s, ladder, owner, self._orphaned)
        with self.lock:
            self._intakes.append(intake)
        return intake

    def prune(self) -> None:
        """Forget the places whose owners are gone and that have nothing left in them."""
        with self.lock:
            self._orphans = False
            count = len(self._intakes)
            # What a finalizer of this thread adds meanwhile stands behind.
            self._intakes[:count] = [one for one in self._intakes[:count] if one.in_use]

    def stage(self, route: str, name: str) -> StageSeries:
        """Return the totals of stage *name* of *route*; past the cap, those of ``_OTHER``."""
        found = self.stages.get((route, name))
        if found is None:
            with self.lock:
                if len(self.stages) >= MOST_SERIES:
                    route, name = OTHER, OTHER
                found = self.stages.setdefault(
                    (route, name),
                    StageSeries(route, name, Distribution(self.bounds)),
                )
        return found

    def admits(self, name: str) -> bool:
        """Tell whether the undeclared *name* may have totals of its own."""
        if name not in self._undeclared:
            if len(self._undeclared) >= UNDECLARED_NAMES:
                return False
            self._undeclared.add(name)
        return True

    def fault(self, step: str) -> int:
        """Count a failure of budgetware itself; return how many there were at this step."""
        with self.lock:
            count = self.faults[step] = self.faults.get(step, 0) + 1
        return count

    def decided(self, plan: Plan, decision: Decision) -> None:
        """Count a decision that was worth a second thought."""
        choice = (plan.route, plan.tier, plan.mode, decision.action, decision.reason)
        with self.lock:
            if choice in self.decisions or len(self.decisions) < MOST_SERIES:
                self.decisions[choice] = self.decisions.get(choice, 0) + 1

    def answered(self, plan: Plan, answer: str, reason: str) -> None:
        """Count a request that was answered with *answer* for *reason*."""
        with self.lock:
            key = (plan.route, plan.tier, answer, reason)
            if key not in self.degraded and len(self.degraded) >= MOST_SERIES:
                key = (OTHER, None, answer, OTHER)
            self.degraded[key] = self.degraded.get(key, 0) + 1

    def cached(self, route: str, tier: str | None, result: str, reason: str) -> bool:
        """Count what became of the cache's part in a request; tell whether that is the first."""
        with self.lock:
            key = (route, tier, result, reason or None)
            if key not in self.cache and len(self.cache) >= MOST_SERIES:
                key = (OTHER, None, result, reason or None)
            count = self.cache[key] = self.cache.get(key, 0) + 1
        return count == 1

    def passed(self, tier: str | None, mode: Mode, passage: str) -> None:
        """Count what became of a request at the entrance that was not just let in."""
        with self.lock:
            key = (tier, mode, passage)
            if key not in self.admission and len(self.admission) >= MOST_SERIES:
                key = (OTHER, mode, passage)
            self.admission[key] = self.admission.get(key, 0) + 1

    def foreseen(self, plan: Plan, fits: float, *, late: bool) -> None:
        """Count a request that went its full way, by what was forecast at its beginning.

        Args:
            plan: What it was promised.
            fits: The forecast probability of being in time; what is none is not counted.
            late: Whether it was not.

        """
        if not 0.0 <= fits <= 1.0:
            return  # one that is not a number would stay in the sum for good
        key = plan.route, plan.tier, fits >= LIKELY
        with self.lock:
            if key not in self.forecasts and len(self.forecasts) >= MOST_SERIES:
                key = OTHER, None, key[2]
            found = self.forecasts.setdefault(key, Foreseen())
            found.checked += 1
            found.expected_late += 1.0 - fits
            found.late += late

    def watch_quota(self, plan: Plan, quota: DegradedQuota | None) -> None:
        """Have *quota* reported as that of *plan*'s route and tier; ``None``: there is none now."""
        with self.lock:
            if quota is None:
                self.quotas.pop((plan.route, plan.tier), None)
            else:
                self.quotas[plan.route, plan.tier] = quota

    def absorb(self) -> None:
        """Sort everything pending into the buckets."""
        with self.lock:
            for series, values in self._take_smaller():
                series.durations.add(values)
            for intake in self._intakes:
                if intake.pending:
                    series, values = intake.take()
                    series.durations.add(values, ordered=True)
            for stage in self.stages.values():
                if stage.pending:
                    stage.durations.add(_taken(stage.pending))
            if self._orphans:
                self.prune()

    def drain(
        self,
        requests: Callable[[RequestSeries, list[float]], None],
        stages: Callable[[StageSeries, list[float]], None],
    ) -> None:
        """Count the outcomes, and hand the pending durations to the callables instead.

        The callables run outside the lock; each is given a series and its new durations.
        """
        with self.lock:
            of_requests = [intake.take() for intake in self._intakes if intake.pending]
            of_requests += self._take_smaller()
            of_stages = [
                (stage, _taken(stage.pending)) for stage in self.stages.values() if stage.pending
            ]
            if self._orphans:
                self.prune()
        for request, values in of_requests:
            requests(request, values)
        for stage, values in of_stages:
            stages(stage, values)

    def _take_smaller(self) -> list[tuple[RequestSeries, list[float]]]:
        """Count the outcomes of smaller answers; return whose they are, and the durations."""
        found: dict[tuple[str, str | None], tuple[RequestSeries, list[float]]] = {}
        for series, outcome, elapsed_s in _taken(self.smaller):
            series.outcomes[outcome] += 1
            found.setdefault((series.route, series.tier), (series, []))[1].append(elapsed_s)
        return list(found.values())

    def _orphaned(self, _: object) -> None:
        # Told by the garbage collector, so it only leaves a note.
        self._orphans = True


_after_fork: weakref.WeakSet[Tally] = weakref.WeakSet()


def _begin_anew() -> None:
    # A thread of the parent may have held the lock at the moment of the fork.
    for tally in _after_fork:
        tally.lock = threading.RLock()
        tally._inherited = tally.counted  # noqa: SLF001 - the same file


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
