"""Readers that hand our histograms over as they are: already aggregated.

``Histogram.record`` costs some twenty times what timing a stage costs, and the SDK offers no way
to submit buckets (open-telemetry/opentelemetry-python#4768). A reader may add to what was
collected, though: ``_receive_metrics`` is documented as the method to override.
"""

from __future__ import annotations

import os
import threading
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.metrics import Histogram as HistogramInstrument
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricReader,
    MetricsData,
    PeriodicExportingMetricReader,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from budgetware import names
from budgetware._version import __version__
from budgetware.telemetry.metrics import HISTOGRAMS, collected
from budgetware.telemetry.outlet import connect, outlets_of
from budgetware.telemetry.tap import Tap

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import MetricExporter

    from budgetware.telemetry.metrics import Collection
    from budgetware.telemetry.snapshot import Attributes
    from budgetware.telemetry.spread import Spread


class AggregatedHistograms(MetricReader):
    """Makes a reader one that receives budgetware's histograms ready-made.

    Put it before the reader's class: ``class Mine(AggregatedHistograms, InMemoryMetricReader)``.
    The reader's preferred temporality holds; a ``View`` of these two histograms does not apply,
    since their durations never pass through the SDK's aggregation.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._tap = Tap()
        connect(self._tap)
        super().__init__(*args, **kwargs)

    def _set_meter_provider(self, meter_provider: MeterProvider) -> None:
        # Older SDKs do not call this; the first collection tells us then.
        self._tap.bind(meter_provider)
        super()._set_meter_provider(meter_provider)

    def _receive_metrics(
        self,
        metrics_data: MetricsData,
        timeout_millis: float = 10_000,
        **kwargs: Any,
    ) -> None:
        collection = collected()
        if collection is not None:
            # An error here would end the SDK's exporting thread for good.
            try:
                if self._mine(collection, metrics_data):
                    metrics_data = _with_histograms(metrics_data, self._histograms(collection))
            except Exception as error:  # noqa: BLE001 - the rest is exported all the same
                for outlet in outlets_of(collection.provider):
                    outlet.fault("export", error)
        super()._receive_metrics(  # type: ignore[safe-super]
            metrics_data,
            timeout_millis=timeout_millis,
            **kwargs,
        )

    def _mine(self, collection: Collection, data: MetricsData) -> bool:
        """Tell whether *collection* is the one that led to *data*."""
        if collection.provider is None or not self._tap.serves(collection.provider):
            return False
        if not self._tap.bound:
            if not any(
                _ours(one) for found in data.resource_metrics for one in found.scope_metrics
            ):
                return False
            self._tap.bind(collection.provider)
        return True

    def _histograms(self, collection: Collection) -> list[Metric]:
        temporality = next(
            temporality
            for kind, temporality in self._instrument_class_temporality.items()
            if issubclass(kind, HistogramInstrument)
        )
        since_ns = collection.since_ns
        spreads = collection.snapshot.spreads
        if temporality is AggregationTemporality.DELTA:
            since_ns = self._tap.reported_ns or since_ns
            spreads = self._tap.since_last(collection.snapshot, collection.at_ns)
        return [
            Metric(
                name=name,
                description=description,
                unit=unit,
                data=Histogram(
                    data_points=_points(spreads[name], since_ns, collection.at_ns),
                    aggregation_temporality=temporality,
                ),
            )
            for name, (unit, description) in HISTOGRAMS.items()
            if spreads.get(name)
        ]


class BudgetPeriodicReader(AggregatedHistograms, PeriodicExportingMetricReader):
    """Pushes metrics through *exporter* at an interval, budgetware's histograms included.

    ``MeterProvider(metric_readers=[BudgetPeriodicReader(OTLPMetricExporter())])``

    Args:
        exporter: Any metric exporter; its preferred temporality holds.
        export_interval_millis: Milliseconds between exports; the SDK's default is a minute.
        export_timeout_millis: Milliseconds an export may take.
        options: Whatever else the SDK's ``PeriodicExportingMetricReader`` takes.

    """

    def __init__(
        self,
        exporter: MetricExporter,
        export_interval_millis: float | None = None,
        export_timeout_millis: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(exporter, export_interval_millis, export_timeout_millis, **options)
        _pushing.add(self)


_pushing: weakref.WeakSet[BudgetPeriodicReader] = weakref.WeakSet()


def _renew_locks() -> None:
    # The SDK starts its exporting thread anew in a child, but not the lock that is held during an
    # export (open-telemetry/opentelemetry-python#3307): a child that was forked just then would
    # export nothing, and wait for it for 30 s at its exit.
    for reader in _pushing:
        if hasattr(reader, "_export_lock"):
            reader._export_lock = threading.Lock()  # noqa: SLF001 - there is no other way to it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)


def _points(
    spreads: Mapping[Attributes, Spread],
    since_ns: int,
    at_ns: int,
) -> list[HistogramDataPoint]:
    return [
        HistogramDataPoint(
            attributes=dict(attributes),
            start_time_unix_nano=since_ns,
            time_unix_nano=at_ns,
            count=spread.count,
            sum=spread.total,
            bucket_counts=spread.counts,
            explicit_bounds=spread.bounds,
            min=spread.extremes[0],
            max=spread.extremes[1],
        )
        for attributes, spread in spreads.items()
    ]


def _ours(scope: ScopeMetrics) -> bool:
    return scope.scope.name == names.SCOPE


def _with_histograms(data: MetricsData, histograms: list[Metric]) -> MetricsData:
    """Return *data* with *histograms* in budgetware's scope, which exists once."""
    if not histograms:
        return data
    return replace(
        data, resource_metrics=[_added(one, histograms) for one in data.resource_metrics]
    )


def _added(resource: ResourceMetrics, histograms: list[Metric]) -> ResourceMetrics:
    scopes = list(resource.scope_metrics)
    for index, scope in enumerate(scopes):
        if _ours(scope):
            # A histogram the SDK has itself was recorded; ours on top would count twice.
            present = {metric.name for metric in scope.metrics}
            added = [metric for metric in histograms if metric.name not in present]
            scopes[index] = replace(scope, metrics=[*scope.metrics, *added])
            break
    else:
        ours = InstrumentationScope(names.SCOPE, __version__, names.SCHEMA_URL)
        scopes.append(ScopeMetrics(ours, histograms, names.SCHEMA_URL))
    return replace(resource, scope_metrics=scopes)
