"""The totals of the engines behind a provider at one instant, ready to be exported.

All metrics of one collection come from one snapshot, so that they agree with each other. Every
attribute set passes an ``Admission``: whatever the tallies hold, no metric has more data points
than an OpenTelemetry SDK keeps apart.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Final

from budgetware import names
from budgetware._core.record import Outcome
from budgetware.names import OTHER
from budgetware.telemetry.plain import plain
from budgetware.telemetry.spread import Spread

if TYPE_CHECKING:
    from collections.abc import Iterable

    from budgetware._core.policy import Policy
    from budgetware._core.record import Level
    from budgetware._core.tally import RequestSeries, StageSeries, Tally

Attributes = tuple[tuple[str, str], ...]
Limits = dict[str, dict[Attributes, float]]
"""Seconds by metric and attributes."""

MOST_POINTS: Final = 1980
"""Attribute sets of one metric. Past it they are counted under ``_OTHER``, at most one per outcome
or level, which keeps the sum below 2000: the SDK's own default limit, past which it would drop
attributes of its own choice."""


class Admission:
    """Which attribute sets a metric has; the first ones to come stay for good."""

    def __init__(self) -> None:
        self._known: dict[str, set[Attributes]] = {}

    def admit(self, metric: str, attributes: Attributes) -> Attributes:
        """Return *attributes*, or those of ``_OTHER`` when *metric* has enough sets already."""
        known = self._known.setdefault(metric, set())
        if attributes not in known:
            if len(known) >= MOST_POINTS:
                return tuple(
                    (key, OTHER if key in {names.ROUTE, names.STAGE} else value)
                    for key, value in attributes
                    if key != names.TIER
                )
            known.add(attributes)
        return attributes


def attributes_of(*pairs: tuple[str, str | None]) -> Attributes:
    """Return *pairs* as attributes; what is ``None`` is left out."""
    return tuple((key, plain(value)) for key, value in pairs if value is not None)


def request_attributes(series: RequestSeries) -> Attributes:
    """Return the attributes of a request's duration."""
    return attributes_of((names.ROUTE, series.route), (names.TIER, series.tier))


def stage_attributes(series: StageSeries) -> Attributes:
    """Return the attributes of a stage's duration: no tier, it would multiply the series."""
    return attributes_of((names.ROUTE, series.route), (names.STAGE, series.stage))


def limits_of(policy: Policy) -> Limits:
    """Return the budgets and allocations *policy* has in force, as the gauges report them."""
    found: Limits = {names.REQUEST_BUDGET_LIMIT: {}, names.STAGE_BUDGET_LIMIT: {}}
    for route in (None, *policy.routes.values()):
        # What nothing is matched to is a job, which has no caller and no tier.
        is_job = route is not None and not route.match
        for tier in (None,) if is_job else (policy.tiers or (None,)):
            plan = policy.plan(route, tier)
            pairs = (names.ROUTE, plan.route), (names.TIER, tier)
            if plan.limit_s < inf:
                found[names.REQUEST_BUDGET_LIMIT][attributes_of(*pairs)] = plan.limit_s
            for stage in plan.stages.values():
                if stage.limit_s < inf:
                    attributes = attributes_of(*pairs, (names.STAGE, stage.name))
                    found[names.STAGE_BUDGET_LIMIT][attributes] = stage.limit_s
    return found


class Snapshot:
    """Numbers and spreads by metric and attributes.

    Attributes:
        numbers: The values of counters and gauges.
        spreads: The distributions of durations.

    """

    def __init__(self, admission: Admission) -> None:
        self.numbers: dict[str, dict[Attributes, float]] = {}
        self.spreads: dict[str, dict[Attributes, Spread]] = {}
        self._admission = admission
        self._answers: dict[Attributes, tuple[int, int]] = {}

    def add(self, other: Snapshot) -> None:
        """Add everything that *other* has."""
        for metric, values in other.numbers.items():
            for attributes, value in values.items():
                self._count(metric, attributes, value)
        for metric, spreads in other.spreads.items():
            for attributes, spread in spreads.items():
                self._spread(metric, attributes, spread)

    def include(self, tally: Tally, *, spreads: bool) -> None:
        """Add the totals of *tally*, with its distributions if *spreads*."""
        with tally.lock:
            requests = [_RequestFacts(one) for one in tally.requests.values()]
            stages = [_StageFacts(one) for one in tally.stages.values()]
            faults = dict(tally.faults)
            decisions = dict(tally.decisions)
            degraded = dict(tally.degraded)
            admission = dict(tally.admission)
            cache = dict(tally.cache)
            forecasts = [(key, replace(one)) for key, one in tally.forecasts.items()]
        self._include_counts(names.DECISIONS, decisions.items())
        self._include_counts(names.DEGRADED, degraded.items())
        self._include_counts(names.ADMISSION, admission.items())
        self._include_counts(names.CACHE, cache.items())
        self._include_counts(
            names.INTERNAL_ERRORS, [((step,), count) for step, count in faults.items()]
        )
        for (route, tier, likely), fared in forecasts:
            attributes = attributes_of(
                (names.ROUTE, route),
                (names.TIER, tier),
                (names.FORECAST_SAID, names.SAID_IN_TIME if likely else names.SAID_LATE),
            )
            self._count(names.FORECAST_CHECKED, attributes, fared.checked)
            self._count(names.FORECAST_EXPECTED_LATE, attributes, fared.expected_late)
            self._count(names.FORECAST_LATE, attributes, fared.late)
        for request in requests:
            self._include_request(request)
            if spreads:
                self._spread(names.REQUEST_DURATION, request.attributes, request.spread)
        for stage in stages:
            self._include_stage(stage)
            if spreads:
                self._spread(names.STAGE_DURATION, stage.attributes, stage.spread)

    def include_limits(self, limits: Limits) -> None:
        """Add the budgets and allocations in force."""
        for metric, values in limits.items():
            for attributes, limit_s in values.items():
                self._gauge(metric, attributes, limit_s)

    def include_quotas(self, tally: Tally, limits: Limits, now_s: float | None) -> None:
        """Add the shares of smaller answers at *now_s*, of routes and tiers that *limits* has.

        Shares do not add up, what they are made of does: several engines together have the share
        of all their answers. Of no answers there is none, nor when nobody knows what time it is.
        """
        with tally.lock:
            quotas = list(tally.quotas.items())
        for (route, tier), quota in quotas:
            attributes = attributes_of((names.ROUTE, route), (names.TIER, tier))
            if attributes in limits[names.REQUEST_BUDGET_LIMIT]:
                self._gauge(names.DEGRADED_LIMIT, attributes, quota.most)
                if now_s is None:
                    continue
                smaller, answers = quota.counts(now_s)
                others = self._answers.get(attributes, (0, 0))
                smaller, answers = smaller + others[0], answers + others[1]
                self._answers[attributes] = smaller, answers
                if answers:
                    self._gauge(names.DEGRADED_SHARE, attributes, smaller / answers)

    def settle(self) -> None:
        """Forget what is recent in every spread."""
        for spreads in self.spreads.values():
            for attributes, spread in spreads.items():
                spreads[attributes] = spread.settled()

    def _include_counts(
        self, metric: str, counts: Iterable[tuple[tuple[str | None, ...], int]]
    ) -> None:
        for key, count in counts:
            attributes = attributes_of(*zip(_ATTRIBUTES[metric], key, strict=True))
            self._count(metric, attributes, count)

    def _include_request(self, facts: _RequestFacts) -> None:
        for outcome, count in facts.outcomes.items():
            if count or outcome in facts.possible:
                attributes = facts.attributes + attributes_of((names.OUTCOME, outcome))
                self._count(names.REQUESTS, attributes, count)
        self._count(names.REQUEST_ERRORS, facts.attributes, facts.errors)
        for level, count in facts.violations.items():
            if count or facts.promised:
                self._violation(names.SCOPE_REQUEST, level, facts.attributes, count)

    def _include_stage(self, facts: _StageFacts) -> None:
        for (tier, level), count in facts.violations.items():
            attributes = facts.attributes + attributes_of((names.TIER, tier))
            self._violation(names.SCOPE_STAGE, level, attributes, count)

    def _violation(self, scope: str, level: Level, attributes: Attributes, count: int) -> None:
        kind = attributes_of((names.VIOLATION_SCOPE, scope), (names.LEVEL, level.value))
        self._count(names.VIOLATIONS, kind + attributes, count)

    def _gauge(self, metric: str, attributes: Attributes, value: float) -> None:
        # Gauges do not add up: for what is counted under _OTHER there is none to speak of.
        if self._admission.admit(metric, attributes) == attributes:
            self.numbers.setdefault(metric, {})[attributes] = value

    def _count(self, metric: str, attributes: Attributes, value: float) -> None:
        attributes = self._admission.admit(metric, attributes)
        values = self.numbers.setdefault(metric, {})
        values[attributes] = values.get(attributes, 0) + value

    def _spread(self, metric: str, attributes: Attributes, spread: Spread) -> None:
        if spread.count:
            attributes = self._admission.admit(metric, attributes)
            spreads = self.spreads.setdefault(metric, {})
            had = spreads.get(attributes)
            spreads[attributes] = spread if had is None else had.plus(spread)


class _RequestFacts:
    """A copy of one series, made while its tally is locked."""

    def __init__(self, series: RequestSeries) -> None:
        self.attributes = request_attributes(series)
        self.outcomes = dict(series.outcomes)
        self.violations = dict(series.violations)
        self.errors = series.errors
        self.promised = series.limit_s < inf
        self.spread = Spread.of(series.durations)

    @property
    def possible(self) -> frozenset[str]:
        """The outcomes a request of this series can have; their counters begin at zero."""
        return _POSSIBLE[self.promised]


class _StageFacts:
    def __init__(self, series: StageSeries) -> None:
        self.attributes = stage_attributes(series)
        self.violations = dict(series.violations)
        self.spread = Spread.of(series.durations)


_ATTRIBUTES: Final = {
    names.DECISIONS: (names.ROUTE, names.TIER, names.MODE, names.ACTION, names.REASON),
    names.DEGRADED: (names.ROUTE, names.TIER, names.ANSWER, names.REASON),
    names.ADMISSION: (names.TIER, names.MODE, names.OUTCOME),
    names.CACHE: (names.ROUTE, names.TIER, names.RESULT, names.REASON),
    names.INTERNAL_ERRORS: (names.INTERNAL_STEP,),
}
"""What the parts of a tally's key are, by metric."""

_POSSIBLE: Final = {
    False: frozenset({Outcome.UNBUDGETED.value, Outcome.CLIENT_GONE.value}),
    # What only happens where something may be decided is there once it has happened.
    True: frozenset(
        {outcome.value for outcome in Outcome}
        - {Outcome.UNBUDGETED.value, Outcome.DEGRADED.value, Outcome.REJECTED.value}
    ),
}
