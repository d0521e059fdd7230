"""Requests through a real engine on a fake clock, and what an SDK made of them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    HistogramDataPoint,
    InMemoryMetricReader,
    Metric,
    MetricReader,
    MetricsData,
    NumberDataPoint,
)

from budgetware import names
from budgetware._core.audience import Observing
from budgetware._core.budget import Budget
from budgetware._core.current import current_budget, handle
from budgetware._core.engine import Engine
from budgetware._core.policy import Amount, Match, Policy, Route, StagePolicy, TierPolicy
from budgetware._core.record import RequestRecord
from budgetware.telemetry import Telemetry
from budgetware.telemetry.readers import AggregatedHistograms

POLICY = Policy(
    tiers={"free": TierPolicy(budget=1.0), "pro": TierPolicy(budget=0.1)},
    stages={"gateway": StagePolicy(budget=Amount(0.002))},
    routes={
        "signals": Route(
            name="signals",
            match=(Match("GET", "/signals/{symbol}"),),
            stages={
                "gateway": StagePolicy(budget=Amount(0.002)),
                "db": StagePolicy(
                    budget=Amount(0.02),
                    operations={"select": Amount(0.01)},
                    calls=3,
                ),
            },
        ),
        "report": Route(name="report", match=(Match("GET", "/reports/**"),)),
    },
    source="budgetware.yaml",
    digest="d1gest",
)

Points = dict[frozenset[tuple[str, str]], HistogramDataPoint]
Numbers = dict[frozenset[tuple[str, str]], float]


class Clock:
    """A monotonic clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return where it stands, in seconds."""
        return self.now


class ReadyMade(AggregatedHistograms, InMemoryMetricReader):
    """A pull reader that receives our histograms ready-made."""


@dataclass(frozen=True)
class Step:
    """One opening of a stage."""

    name: str
    seconds: float
    operation: str | None = None


class Service:
    """An engine wired to telemetry, with every record it made."""

    def __init__(self, telemetry: Telemetry, policy: Policy = POLICY) -> None:
        self.clock = Clock()
        self.telemetry = telemetry
        self.records: list[RequestRecord] = []
        self.engine = Engine(
            policy,
            clock=self.clock,
            observers=(*telemetry.observers, Observing(self.records.append)),
            alarms=telemetry.alarms,
            on_fault=telemetry.on_fault,
        )
        telemetry.watch(self.engine)

    def serve(
        self,
        path: str = "/signals/x",
        *,
        tier: str | None = None,
        steps: Sequence[Step] = (),
        rest_s: float = 0.0,
    ) -> Budget:
        """Serve a request that takes its steps and then *rest_s* seconds more."""
        budget = self.engine.begin("GET", path, tier)
        token = current_budget.set(budget)
        try:
            for step in steps:
                with handle.stage(step.name, step.operation):
                    self.clock.now += step.seconds
            self.clock.now += rest_s
        finally:
            current_budget.reset(token)
        budget.status = 200
        self.engine.finish(budget)
        return budget


def provider_with(*readers: MetricReader) -> MeterProvider:
    """Return a provider that does not outlive its test."""
    return MeterProvider(metric_readers=readers, shutdown_on_exit=False)


def metrics_of(data: MetricsData | None) -> dict[str, Metric]:
    """Return our metrics by name; each must be there once, in one scope."""
    found: dict[str, Metric] = {}
    for resource in () if data is None else data.resource_metrics:
        ours = [scope for scope in resource.scope_metrics if scope.scope.name == names.SCOPE]
        assert len(ours) <= 1
        for scope in ours:
            for metric in scope.metrics:
                assert metric.name not in found
                found[metric.name] = metric
    return found


def numbers(data: MetricsData | None, metric: str) -> Numbers:
    """Return the values of a counter or gauge by attributes."""
    found = metrics_of(data).get(metric)
    points: Iterable[object] = () if found is None else found.data.data_points
    result: Numbers = {}
    for point in points:
        assert isinstance(point, NumberDataPoint)
        assert key(point.attributes) not in result
        result[key(point.attributes)] = point.value
    return result


def points(data: MetricsData | None, metric: str) -> Points:
    """Return the data points of a histogram by attributes."""
    found = metrics_of(data).get(metric)
    result: Points = {}
    for point in () if found is None else found.data.data_points:
        assert isinstance(point, HistogramDataPoint)
        assert key(point.attributes) not in result
        result[key(point.attributes)] = point
    return result


def key(attributes: object) -> frozenset[tuple[str, str]]:
    """Return attributes as something that can be compared."""
    assert isinstance(attributes, dict) or hasattr(attributes, "items")
    return frozenset((name, str(value)) for name, value in attributes.items())


def labels(**values: str) -> frozenset[tuple[str, str]]:
    """Return the attributes with our names: ``labels(route="signals")``."""
    return frozenset((_NAMES[name], value) for name, value in values.items())


_NAMES = {
    "route": names.ROUTE,
    "tier": names.TIER,
    "stage": names.STAGE,
    "outcome": names.OUTCOME,
    "level": names.LEVEL,
    "scope": names.VIOLATION_SCOPE,
    "step": names.INTERNAL_STEP,
}


def expected(
    values: Sequence[float],
    bounds: Sequence[float],
) -> tuple[int, list[int], float, float]:
    """Return what a histogram of *values* must say: count, bucket counts, least and most."""
    counts = [0] * (len(bounds) + 1)
    for value in values:
        counts[sum(bound < value for bound in bounds)] += 1
    return len(values), counts, min(values), max(values)


def outcomes(records: Iterable[RequestRecord]) -> Numbers:
    """Return what the counter of requests must say, by attributes."""
    found: Numbers = {}
    for record in records:
        tier = {} if record.tier is None else {"tier": record.tier}
        series = labels(route=record.route, outcome=record.outcome.value, **tier)
        found[series] = found.get(series, 0) + 1
    return found


def durations(records: Iterable[RequestRecord]) -> dict[frozenset[tuple[str, str]], list[float]]:
    """Return what the request histogram must have seen, by attributes."""
    found: dict[frozenset[tuple[str, str]], list[float]] = {}
    for record in records:
        tier = {} if record.tier is None else {"tier": record.tier}
        found.setdefault(labels(route=record.route, **tier), []).append(record.elapsed_s)
    return found


def stage_durations(
    records: Iterable[RequestRecord],
) -> dict[frozenset[tuple[str, str]], list[float]]:
    """Return what the stage histogram must have seen, by attributes."""
    found: dict[frozenset[tuple[str, str]], list[float]] = {}
    for record in records:
        for opening in record.openings:
            series = labels(route=record.route, stage=opening.name)
            found.setdefault(series, []).append(opening.duration_s)
    return found


def check(found: Points, wanted: dict[frozenset[tuple[str, str]], list[float]]) -> None:
    """Assert that histograms say what *wanted* says, by attributes."""
    assert found.keys() == wanted.keys()
    for series, values in wanted.items():
        point = found[series]
        figures = point.count, list(point.bucket_counts), point.min, point.max
        assert figures == expected(values, point.explicit_bounds)
        assert point.sum == pytest.approx(sum(values))


def serve_some(service: Service, pick: random.Random, rounds: int = 40) -> None:
    """Serve *rounds* requests that *pick* makes up."""
    for _ in range(rounds):
        steps = [
            Step(pick.choice(["db", "gateway", "extra"]), pick.choice([0.002, 0.02, pick.random()]))
            for _ in range(pick.randrange(4))
        ]
        service.serve(tier=pick.choice(["free", "pro"]), steps=steps, rest_s=pick.random() / 5)
