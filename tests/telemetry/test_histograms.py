"""Durations in OpenTelemetry histograms: both ways there, both temporalities, nothing twice."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest
from opentelemetry.sdk.metrics import Histogram as HistogramInstrument
from opentelemetry.sdk.metrics import ObservableCounter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    InMemoryMetricReader,
    MetricExporter,
    MetricExportResult,
    MetricsData,
)
from opentelemetry.sdk.trace import TracerProvider
from tests.telemetry.driving import (
    POLICY,
    ReadyMade,
    Service,
    check,
    durations,
    labels,
    metrics_of,
    numbers,
    points,
    provider_with,
    serve_some,
    stage_durations,
)

from budgetware import names
from budgetware._core.engine import Engine
from budgetware._core.policy import Match, Policy, Route, TierPolicy
from budgetware._core.tally import MOST_BOUNDS, SECONDS_BOUNDS, bounds_of
from budgetware.telemetry import Telemetry
from budgetware.telemetry.readers import BudgetPeriodicReader

DELTA: dict[type, AggregationTemporality] = {HistogramInstrument: AggregationTemporality.DELTA}

EITHER_WAY = pytest.mark.parametrize("kind", [ReadyMade, InMemoryMetricReader])


@EITHER_WAY
def test_histograms_say_what_the_records_say(kind: type[InMemoryMetricReader]) -> None:
    """Counts, buckets, sums and extremes equal those of the records, over several collections."""
    reader = kind()
    service = Service(Telemetry(provider_with(reader)))
    pick = random.Random(1)

    for _ in range(4):
        serve_some(service, pick)
        data = reader.get_metrics_data()
        check(points(data, names.REQUEST_DURATION), durations(service.records))
        check(points(data, names.STAGE_DURATION), stage_durations(service.records))


@EITHER_WAY
def test_deltas_add_up_to_the_records(kind: type[InMemoryMetricReader]) -> None:
    """A delta reader is told each duration once, with the extremes of its own interval."""
    reader = kind(preferred_temporality=DELTA)
    service = Service(Telemetry(provider_with(reader)))
    pick = random.Random(2)
    until = 0

    for _ in range(4):
        before = len(service.records)
        serve_some(service, pick)
        data = reader.get_metrics_data()
        found = points(data, names.REQUEST_DURATION)
        check(found, durations(service.records[before:]))
        check(points(data, names.STAGE_DURATION), stage_durations(service.records[before:]))
        histogram = metrics_of(data)[names.REQUEST_DURATION].data
        assert isinstance(histogram, Histogram)
        assert histogram.aggregation_temporality is AggregationTemporality.DELTA
        for point in found.values():
            assert until <= point.start_time_unix_nano < point.time_unix_nano
        until = max(point.time_unix_nano for point in found.values())

    assert points(reader.get_metrics_data(), names.REQUEST_DURATION) == {}


def test_totals_keep_their_start() -> None:
    """The start of a cumulative histogram stays where it was; its end is the collection."""
    reader = ReadyMade()
    before = time.time_ns()
    service = Service(Telemetry(provider_with(reader)))
    watched = time.time_ns()

    service.serve()
    (first,) = points(reader.get_metrics_data(), names.REQUEST_DURATION).values()
    service.serve()
    (second,) = points(reader.get_metrics_data(), names.REQUEST_DURATION).values()

    assert before <= first.start_time_unix_nano <= watched
    assert second.start_time_unix_nano == first.start_time_unix_nano
    assert first.time_unix_nano < second.time_unix_nano


def test_two_readers_of_one_provider_see_the_same() -> None:
    """A cumulative and a delta reader of one provider do not take from each other."""
    total, delta = ReadyMade(), ReadyMade(preferred_temporality=DELTA)
    service = Service(Telemetry(provider_with(total, delta)))
    pick = random.Random(3)
    serve_some(service, pick)
    delta.get_metrics_data()

    before = len(service.records)
    serve_some(service, pick)
    everything = points(total.get_metrics_data(), names.STAGE_DURATION)
    since = points(delta.get_metrics_data(), names.STAGE_DURATION)

    check(everything, stage_durations(service.records))
    check(since, stage_durations(service.records[before:]))


def test_bounds_are_exact_at_the_promises() -> None:
    """A request that takes exactly its budget is counted below that boundary."""
    reader = ReadyMade()
    policy = Policy(
        tiers={"free": TierPolicy(budget=0.03)},
        routes={"r": Route(name="r", match=(Match("GET", "/r"),), budget=0.0299)},
    )
    service = Service(Telemetry(provider_with(reader)), policy)
    budget = service.engine.begin("GET", "/r")
    service.clock.now = budget.start + 0.0299
    service.engine.finish(budget)

    (point,) = points(reader.get_metrics_data(), names.REQUEST_DURATION).values()

    assert {0.0299, 0.03} <= set(point.explicit_bounds)
    within = sum(point.bucket_counts[: point.explicit_bounds.index(0.03) + 1])
    assert within == 1


def test_bounds_are_few_and_outlive_a_reload() -> None:
    """However many promises there are, there are at most so many buckets, and they stay."""
    routes = {f"r{n}": Route(name=f"r{n}", budget=0.0111 * n) for n in range(1, 40)}
    policy = Policy(routes=routes)

    bounds = bounds_of(policy)
    engine = Engine(policy)
    engine.adopt(POLICY)

    assert len(bounds) == MOST_BOUNDS
    assert set(SECONDS_BOUNDS) < set(bounds)
    assert list(bounds) == sorted(bounds)
    assert 0.0111 in bounds
    assert bounds_of(Policy()) == SECONDS_BOUNDS
    assert {series.durations.bounds for series in engine.tally.requests.values()} == {bounds}


def test_recorded_durations_are_no_exemplars_of_a_strange_trace() -> None:
    """Recording happens later, under another request's span, which must not be blamed."""
    reader = InMemoryMetricReader()
    service = Service(Telemetry(provider_with(reader), traces="off"))
    service.serve(rest_s=0.5)

    with TracerProvider(shutdown_on_exit=False).get_tracer("t").start_as_current_span("other"):
        service.engine.absorb()

    (point,) = points(reader.get_metrics_data(), names.REQUEST_DURATION).values()
    assert point.count == 1
    assert getattr(point, "exemplars", []) == []  # OpenTelemetry before 1.28 has none at all


class _Kept(MetricExporter):
    """An exporter that keeps what it is given."""

    def __init__(self, temporality: dict[type, AggregationTemporality]) -> None:
        super().__init__(preferred_temporality=temporality)
        self.data: list[MetricsData] = []

    def export(
        self,
        metrics_data: MetricsData,
        timeout_millis: float = 10_000,
        **kwargs: Any,
    ) -> MetricExportResult:
        self.data.append(metrics_data)
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        pass


@pytest.mark.parametrize("temporality", list(AggregationTemporality)[1:])
def test_pushed_histograms_have_the_exporters_temporality(
    temporality: AggregationTemporality,
) -> None:
    """What the exporter prefers for histograms is what it gets."""
    exporter = _Kept({HistogramInstrument: temporality})
    reader = BudgetPeriodicReader(exporter, export_interval_millis=float("inf"))
    provider = provider_with(reader)
    service = Service(Telemetry(provider))
    for _ in range(3):
        service.serve(rest_s=0.01)
        provider.force_flush()
    provider.shutdown()

    counts = [
        point.count
        for data in exporter.data
        for point in points(data, names.REQUEST_DURATION).values()
    ]

    deltas = temporality is AggregationTemporality.DELTA
    assert counts == ([1, 1, 1] if deltas else [1, 2, 3])


def test_a_counter_may_be_delta_too() -> None:
    """Our totals become the SDK's deltas where a reader wants those."""
    reader = ReadyMade(preferred_temporality={ObservableCounter: AggregationTemporality.DELTA})
    service = Service(Telemetry(provider_with(reader)))
    seen = []
    for _ in range(3):
        service.serve(tier="pro")
        data = reader.get_metrics_data()
        met = labels(route="signals", tier="pro", outcome="met")
        seen.append(numbers(data, names.REQUESTS)[met])

    assert seen == [1, 1, 1]
