"""What a backend makes of OTLP metrics: deltas added up, totals replaced."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_DELTA,
    HistogramDataPoint,
    Metric,
)

from budgetware import names

Series = frozenset[tuple[str, str]]


@dataclass
class Bucketed:
    """A histogram as a backend adds it up."""

    bounds: tuple[float, ...]
    counts: list[int]
    count: int = 0
    total: float = 0.0
    least: float = float("inf")
    most: float = float("-inf")

    def add(self, point: HistogramDataPoint) -> None:
        """Add what *point* has."""
        assert self.bounds == tuple(point.explicit_bounds)
        assert point.start_time_unix_nano < point.time_unix_nano
        self.counts = [a + b for a, b in zip(self.counts, point.bucket_counts, strict=True)]
        self.count += point.count
        self.total += point.sum
        self.least = min(self.least, point.min)
        self.most = max(self.most, point.max)


@dataclass
class Backend:
    """What arrived of our scope.

    Attributes:
        numbers: Counters and gauges by metric and attributes.
        histograms: Histograms by metric and attributes.

    """

    numbers: dict[str, dict[Series, float]] = field(default_factory=dict)
    histograms: dict[str, dict[Series, Bucketed]] = field(default_factory=dict)

    def take(self, requests: Iterable[ExportMetricsServiceRequest]) -> None:
        """Add *requests*; our scope, and each metric in it, appears once in each."""
        for resource in (one for request in requests for one in request.resource_metrics):
            ours = [one for one in resource.scope_metrics if one.scope.name == names.SCOPE]
            metrics = [metric for scope in ours for metric in scope.metrics]
            assert len(ours) <= 1
            assert len({metric.name for metric in metrics}) == len(metrics)
            for metric in metrics:
                if metric.HasField("histogram"):
                    self._take_histogram(metric)
                else:
                    self._take_numbers(metric)

    def _take_numbers(self, metric: Metric) -> None:
        delta = metric.sum.aggregation_temporality == AGGREGATION_TEMPORALITY_DELTA
        values = self.numbers.setdefault(metric.name, {})
        for point in (*metric.sum.data_points, *metric.gauge.data_points):
            series = frozenset((one.key, one.value.string_value) for one in point.attributes)
            had = values.get(series, 0.0) if delta else 0.0
            values[series] = had + (point.as_int or point.as_double)

    def _take_histogram(self, metric: Metric) -> None:
        delta = metric.histogram.aggregation_temporality == AGGREGATION_TEMPORALITY_DELTA
        found = self.histograms.setdefault(metric.name, {})
        for point in metric.histogram.data_points:
            series = frozenset((one.key, one.value.string_value) for one in point.attributes)
            if series not in found or not delta:
                found[series] = Bucketed(
                    tuple(point.explicit_bounds),
                    [0] * len(point.bucket_counts),
                )
            found[series].add(point)
