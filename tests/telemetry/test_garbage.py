"""What the garbage collector does to telemetry: requests that end anywhere, engines that go."""

from __future__ import annotations

import gc
import threading
from typing import Any

import pytest
from opentelemetry.sdk.metrics import Histogram as HistogramInstrument
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from tests.telemetry.driving import ReadyMade, Service, numbers, points, provider_with

from budgetware import names
from budgetware.telemetry import Telemetry
from budgetware.telemetry import outlet as outlet_module
from budgetware.telemetry.outlet import outlets_of

DELTA: dict[type, AggregationTemporality] = {HistogramInstrument: AggregationTemporality.DELTA}


@pytest.mark.parametrize("kind", [ReadyMade, InMemoryMetricReader])
def test_engines_made_and_dropped_leave_their_totals_only(
    kind: type[InMemoryMetricReader],
) -> None:
    """They do not pile up without a collection; with one, their sum and extremes are there."""
    reader = kind(preferred_temporality=DELTA)
    provider = provider_with(reader)
    for number in range(10):
        Service(Telemetry(provider)).serve(rest_s=0.01 * (number + 1))
        gc.collect()
    alive = Service(Telemetry(provider))

    (outlet,) = outlets_of(provider)
    assert len(outlet.watched()) == 1
    alive.serve(rest_s=0.03)
    data = reader.get_metrics_data()
    (point,) = points(data, names.REQUEST_DURATION).values()
    assert (point.count, round(point.min, 9), round(point.max, 9)) == (11, 0.01, 0.1)
    assert sum(numbers(data, names.REQUESTS).values()) == 11


def test_a_collection_of_garbage_while_recording_records_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A request that ends inside the SDK's own lock does not wait for it, and is not lost."""
    reader = InMemoryMetricReader()
    service = Service(Telemetry(provider_with(reader), histograms="recorded"))
    (outlet,) = outlets_of(service.telemetry._meter_provider)
    lock = threading.Lock()
    record = outlet.histograms[names.REQUEST_DURATION].record

    def locked(*args: Any) -> None:
        assert lock.acquire(timeout=0)
        if len(service.records) == 1:
            service.serve(rest_s=0.01)
            service.engine.absorb()
        record(*args)
        lock.release()

    monkeypatch.setattr(outlet.histograms[names.REQUEST_DURATION], "record", locked)
    service.serve(rest_s=0.01)
    service.engine.absorb()

    (point,) = points(reader.get_metrics_data(), names.REQUEST_DURATION).values()
    assert point.count == len(service.records) == 2
    assert not service.engine.tally.faults


def test_our_locks_may_be_met_again_by_the_thread_that_holds_them() -> None:
    """The garbage collector finishes requests, and hands them over, wherever it comes."""
    reader = ReadyMade()
    service = Service(Telemetry(provider_with(reader)))

    def within() -> None:
        with outlet_module._lock, reader._tap._lock, service.engine.tally.lock:
            service.serve(rest_s=0.01)
            service.engine.absorb()
            reader.get_metrics_data()

    thread = threading.Thread(target=within, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
