"""Totals as OpenTelemetry metrics: the instruments, and what they observe.

Only the API is used, so any provider will do, given or global, set before or after. Counters and
gauges are observed when somebody collects; requests never wait for them.
"""

from __future__ import annotations

import threading
import time
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Final

from opentelemetry import metrics

from budgetware import names
from budgetware._version import __version__
from budgetware.telemetry.outlet import outlets_of, taps
from budgetware.telemetry.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.metrics import CallbackOptions, Observation

    from budgetware.telemetry.outlet import Outlet

COUNTERS: Final = (
    (names.REQUESTS, "{request}", "Requests by how they ended."),
    (names.REQUEST_ERRORS, "{request}", "Requests that raised or were answered with a 5xx."),
    (names.VIOLATIONS, "{violation}", "Requests and stages that went over a rung."),
    (names.DECISIONS, "{decision}", "Decisions that took a second thought, by mode and reason."),
    (names.DEGRADED, "{request}", "Requests answered with something smaller, and why."),
    (names.ADMISSION, "{request}", "Requests that were not just let in, and what became of them."),
    (names.CACHE, "{request}", "Look-ups in the cache, and responses that were not kept, and why."),
    (names.FORECAST_CHECKED, "{request}", "Requests that went the full way they were forecast."),
    (names.FORECAST_EXPECTED_LATE, "{request}", "How many of them were expected to be late."),
    (names.FORECAST_LATE, "{request}", "How many of them were late."),
    (names.INTERNAL_ERRORS, "{error}", "Failures of budgetware itself; no response changed."),
)
# Shares have an annotation for a unit: of "1" some exporters make a suffix and others none.
GAUGES: Final = (
    (names.REQUEST_BUDGET_LIMIT, "s", "The budget in force."),
    (names.STAGE_BUDGET_LIMIT, "s", "The allocation in force."),
    (names.DEGRADED_SHARE, "{share}", "The share of smaller answers in the last hour."),
    (names.DEGRADED_LIMIT, "{share}", "The largest share of smaller answers that is promised."),
)
HISTOGRAMS: Final = {
    names.REQUEST_DURATION: ("s", "Seconds the budget is judged by."),
    names.STAGE_DURATION: ("s", "Seconds a stage was open."),
}

# OpenTelemetry before 1.30 takes no advice about buckets; there a ``View`` has to set them.
_ADVICE: Final = "explicit_bucket_boundaries_advisory"
_ADVISED: Final = signature(metrics.Meter.create_histogram).parameters

_collecting = threading.local()


class Collection:
    """One collection of one provider: every metric's values at the same instant.

    It is empty in a process that has served nothing, as the master of a server with an application
    it has preloaded: with nothing to export, an exporter whose collector is gone holds up no exit.

    Attributes:
        provider: Whose metrics are collected.
        at_ns: When, in nanoseconds since 1970.
        since_ns: Since when the totals count.
        snapshot: The totals.

    """

    def __init__(self, provider: metrics.MeterProvider | None, outlets: Sequence[Outlet]) -> None:
        self.provider = provider
        self.at_ns = time.time_ns()
        self.since_ns = min((outlet.since_ns for outlet in outlets), default=self.at_ns)
        self.snapshot = Snapshot(outlets[0].admission)
        self._served: set[str] = set()
        if any(outlet.has_served for outlet in outlets):
            for outlet in outlets:
                outlet.contribute(self.snapshot)
        for tap in taps():
            if provider is not None and tap.serves(provider):
                tap.widen(self.snapshot.spreads)

    def serve(self, metric: str) -> bool:
        """Tell whether *metric* was not asked for yet; a second time begins a new collection."""
        if metric in self._served:
            return False
        self._served.add(metric)
        return True


def make_instruments(outlet: Outlet, bounds: Sequence[float]) -> None:
    """Create the metrics of *outlet* with the provider it now has.

    Args:
        outlet: Where the totals come from.
        bounds: The buckets' upper bounds in seconds, advice for single durations.

    """
    meter = metrics.get_meter(
        names.SCOPE,
        __version__,
        meter_provider=outlet.provider,
        schema_url=names.SCHEMA_URL,
    )
    for name, unit, description in COUNTERS:
        meter.create_observable_counter(name, [_observer(outlet, name)], unit, description)
    for name, unit, description in GAUGES:
        meter.create_observable_gauge(name, [_observer(outlet, name)], unit, description)
    advice = {_ADVICE: list(bounds)} if _ADVICE in _ADVISED else {}
    for name, (unit, description) in HISTOGRAMS.items():
        outlet.histograms[name] = meter.create_histogram(name, unit, description, **advice)


def collected() -> Collection | None:
    """Take the collection this thread has just been asked for; ``None`` if there was none."""
    found: Collection | None = getattr(_collecting, "collection", None)
    _collecting.collection = None
    return found


def _observer(
    outlet: Outlet,
    metric: str,
) -> Callable[[CallbackOptions], list[Observation]]:
    return partial(_observe, outlet, metric)


def _observe(outlet: Outlet, metric: str, _: CallbackOptions) -> list[Observation]:
    try:
        values = _collection(outlet, metric).snapshot.numbers.get(metric, {})
        return [metrics.Observation(value, dict(key)) for key, value in values.items()]
    except Exception as error:  # noqa: BLE001 - the other metrics are collected all the same
        outlet.fault("collect", error)
        return []


def _collection(outlet: Outlet, metric: str) -> Collection:
    # An SDK runs the callbacks of one collection one after the other on one thread.
    found: Collection | None = getattr(_collecting, "collection", None)
    provider = outlet.provider
    if found is None or found.provider is not provider or not found.serve(metric):
        found = Collection(provider, outlets_of(provider) or [outlet])
        found.serve(metric)
        _collecting.collection = found
    return found
