"""Which provider gets what: several engines, several providers, forks, faults, late set-up."""

from __future__ import annotations

import gc
import random
import threading
import weakref
from typing import Any

import pytest
from opentelemetry import metrics
from opentelemetry.sdk.metrics import Histogram as HistogramInstrument
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    InMemoryMetricReader,
    MetricReader,
)
from tests.telemetry.driving import (
    POLICY,
    ReadyMade,
    Service,
    Step,
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
from budgetware._core.engine import ABSORB_AT, Engine
from budgetware._core.policy import Policy, TierPolicy
from budgetware._core.tally import SECONDS_BOUNDS
from budgetware.telemetry import RECORD_AT, Histograms, Telemetry
from budgetware.telemetry.outlet import connect
from budgetware.telemetry.readers import AggregatedHistograms, _with_histograms
from budgetware.telemetry.tap import Tap

DELTA: dict[type, AggregationTemporality] = {HistogramInstrument: AggregationTemporality.DELTA}

EITHER_WAY = pytest.mark.parametrize("kind", [ReadyMade, InMemoryMetricReader])


@EITHER_WAY
def test_engines_of_one_provider_are_added_up(kind: type[InMemoryMetricReader]) -> None:
    """Two engines on one provider report their sum, and what a dead one had counted stays."""
    reader = kind()
    provider = provider_with(reader)
    services = [Service(Telemetry(provider)) for _ in range(3)]
    for service in services:
        serve_some(service, random.Random(4))
    records = [record for service in services for record in service.records]

    data = reader.get_metrics_data()
    check(points(data, names.STAGE_DURATION), stage_durations(records))
    assert sum(numbers(data, names.REQUESTS).values()) == len(records)

    del service
    services[-1].serve(tier="pro", rest_s=0.01)
    engine = weakref.ref(services.pop().engine)
    gc.collect()
    assert engine() is None
    for _ in range(2):
        data = reader.get_metrics_data()
        assert sum(numbers(data, names.REQUESTS).values()) == len(records) + 1
        histogram = points(data, names.REQUEST_DURATION)
        assert sum(point.count for point in histogram.values()) == len(records) + 1


def test_engines_with_other_bounds_share_what_they_have_in_common() -> None:
    """Engines under different policies are merged in the boundaries both have."""
    reader = ReadyMade()
    provider = provider_with(reader)
    other = Policy(tiers={"free": TierPolicy(budget=0.033)}, routes=POLICY.routes)
    services = [Service(Telemetry(provider)), Service(Telemetry(provider), other)]
    for service in services:
        serve_some(service, random.Random(5))

    found = points(reader.get_metrics_data(), names.STAGE_DURATION)

    check(found, stage_durations([record for one in services for record in one.records]))
    (bounds,) = {tuple(point.explicit_bounds) for point in found.values()}
    assert set(SECONDS_BOUNDS) <= set(bounds)
    assert 0.033 not in bounds


@pytest.mark.skipif(
    not hasattr(MetricReader, "_set_meter_provider"),
    reason="before OpenTelemetry 1.41 a reader is not told its provider",
)
def test_providers_keep_to_their_own_engines() -> None:
    """With several providers, each one collects its own engines in its own way."""
    ready, plain = ReadyMade(), InMemoryMetricReader()
    first, second = (Service(Telemetry(provider_with(one))) for one in (ready, plain))
    serve_some(first, random.Random(6))
    serve_some(second, random.Random(7), rounds=25)

    for _ in range(2):
        for reader, service in ((plain, second), (ready, first)):
            data = reader.get_metrics_data()
            check(points(data, names.REQUEST_DURATION), durations(service.records))
            assert sum(numbers(data, names.REQUESTS).values()) == len(service.records)


def test_what_a_dead_engine_left_is_told_once() -> None:
    """The extremes of an engine that is no more belong to the interval they came in."""
    reader = ReadyMade(preferred_temporality=DELTA)
    provider = provider_with(reader)
    dead, alive = Service(Telemetry(provider)), Service(Telemetry(provider))
    reader.get_metrics_data()
    dead.serve(rest_s=0.5)
    del dead
    gc.collect()
    alive.serve(rest_s=0.02)
    both = points(reader.get_metrics_data(), names.REQUEST_DURATION)
    alive.serve(rest_s=0.03)
    one = points(reader.get_metrics_data(), names.REQUEST_DURATION)

    assert [(point.count, round(point.max, 9)) for point in both.values()] == [(2, 0.5)]
    assert [(point.count, round(point.max, 9)) for point in one.values()] == [(1, 0.03)]


def test_a_mode_is_chosen_once() -> None:
    """A reader of ours that comes late does not split a histogram in two."""
    reader = InMemoryMetricReader()
    service = Service(Telemetry(provider := provider_with(reader)))
    serve_some(service, random.Random(12))
    reader.get_metrics_data()

    late = Tap()
    connect(late)
    late.bind(provider)
    serve_some(service, random.Random(13))

    check(points(reader.get_metrics_data(), names.REQUEST_DURATION), durations(service.records))


class Old(AggregatedHistograms, InMemoryMetricReader):
    """A reader of ours as an older SDK would treat it."""

    def _set_meter_provider(self, meter_provider: Any) -> None:
        MetricReader._set_meter_provider(self, meter_provider)


@pytest.mark.parametrize("kind", [ReadyMade, Old])
def test_a_provider_without_engines_gets_nothing_of_another(
    kind: type[InMemoryMetricReader],
) -> None:
    """What one collection left on a thread is not taken for the next one's."""
    plain, ready = InMemoryMetricReader(), kind()
    service = Service(Telemetry(provider_with(plain), histograms="aggregated"))
    service.serve()
    stranger = provider_with(ready)
    stranger.get_meter("app").create_counter("c").add(1)

    plain.get_metrics_data()
    data = ready.get_metrics_data()

    assert data is not None
    assert [scope.scope.name for scope in data.resource_metrics[0].scope_metrics] == ["app"]


def test_a_histogram_the_sdk_has_is_not_added_again() -> None:
    """Where durations were recorded, ready-made ones would count twice."""
    recorded = InMemoryMetricReader()
    service = Service(Telemetry(provider_with(recorded)))
    service.serve(steps=[Step("db", 0.1)])
    data = recorded.get_metrics_data()
    assert data is not None
    ours = metrics_of(data)[names.REQUEST_DURATION]

    assert metrics_of(_with_histograms(data, [ours])) == metrics_of(data)


def test_instruments_are_made_once_per_provider() -> None:
    """A second engine adds to the first one's instruments instead of making its own."""
    made: list[str] = []

    class Counting(metrics.NoOpMeterProvider):
        def get_meter(self, *args: Any, **kwargs: Any) -> metrics.Meter:
            made.append(args[0])
            return super().get_meter(*args, **kwargs)

    provider = Counting()
    for _ in range(3):
        Telemetry(provider).watch(Engine())

    assert made == [names.SCOPE]


@pytest.mark.parametrize(
    ("histograms", "kind", "seen"),
    [
        ("auto", ReadyMade, True),
        ("auto", InMemoryMetricReader, True),
        ("aggregated", ReadyMade, True),
        ("aggregated", InMemoryMetricReader, False),
        ("recorded", ReadyMade, True),
        ("recorded", InMemoryMetricReader, True),
        ("off", ReadyMade, False),
        ("off", InMemoryMetricReader, False),
    ],
)
def test_each_mode_reports_once_or_not_at_all(
    histograms: Histograms,
    kind: type[InMemoryMetricReader],
    seen: bool,  # noqa: FBT001 - a table's column
) -> None:
    """No combination of mode and reader counts a duration twice; counters always work."""
    reader = kind()
    service = Service(Telemetry(provider_with(reader), histograms=histograms))
    serve_some(service, random.Random(8), rounds=3 * ABSORB_AT)

    data = reader.get_metrics_data()

    wanted = durations(service.records) if seen else {}
    check(points(data, names.REQUEST_DURATION), wanted)
    assert sum(numbers(data, names.REQUESTS).values()) == 3 * ABSORB_AT


def test_pending_durations_stay_few() -> None:
    """In no mode does the memory of an engine grow with its requests."""
    modes: tuple[Histograms, ...] = ("aggregated", "recorded", "off")
    for histograms in modes:
        service = Service(Telemetry(provider_with(), histograms=histograms))
        for _ in range(5 * ABSORB_AT):
            budget = service.serve(steps=[Step("db", 0.001)])
            assert len(budget.lane.durations) <= ABSORB_AT
        if histograms == "recorded":
            # A hundred durations at once would be felt by whoever comes next.
            assert service.engine.absorb_at == RECORD_AT


@EITHER_WAY
def test_collecting_while_serving_loses_nothing(kind: type[InMemoryMetricReader]) -> None:
    """Threads that serve while another collects neither deadlock nor lose a duration."""
    reader = kind(preferred_temporality=DELTA)
    service = Service(Telemetry(provider_with(reader), traces="off"))
    for observing in service.engine._audience.observers:
        service.engine.ignore(observing)
    rounds, workers = 5000, 4

    def work() -> None:
        for _ in range(rounds):
            budget = service.engine.begin("GET", "/signals/x", "pro")
            stage = budget.opens()
            stage.name, stage.start, stage.end = "db", 1.0, 1.001
            budget.append(stage)
            service.engine.finish(budget)

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    seen = {names.REQUEST_DURATION: 0, names.STAGE_DURATION: 0}
    counted: list[float] = [0]
    working = True
    while working:
        working = any(thread.is_alive() for thread in threads)
        data = reader.get_metrics_data()
        for metric in seen:
            seen[metric] += sum(point.count for point in points(data, metric).values())
        counted.append(sum(numbers(data, names.REQUESTS).values()))
    for thread in threads:
        thread.join(timeout=10)
        assert not thread.is_alive()

    assert set(seen.values()) == {rounds * workers}
    assert counted == sorted(counted)
    assert counted[-1] == rounds * workers


def test_a_reader_that_says_nothing_of_its_provider_is_found_out() -> None:
    """Older SDKs do not tell a reader its provider; the first collection does."""
    reader = Old()
    service = Service(Telemetry(provider_with(reader)))
    stranger = InMemoryMetricReader()
    serve_some(service, random.Random(9))
    first = points(reader.get_metrics_data(), names.REQUEST_DURATION)
    check(first, durations(service.records))

    # Bound by now, it is no reason to withhold durations from another provider.
    other = Service(Telemetry(provider_with(stranger)))
    serve_some(other, random.Random(10))
    check(
        points(stranger.get_metrics_data(), names.REQUEST_DURATION),
        durations(other.records),
    )


def test_a_fault_in_our_part_leaves_the_rest_of_the_export_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When our histograms cannot be made, other metrics go out and the failure is counted."""
    reader = ReadyMade()
    service = Service(Telemetry(provider_with(reader)))
    service.serve()
    with monkeypatch.context() as patch:
        patch.setattr("budgetware.telemetry.readers._points", _raise)
        data = reader.get_metrics_data()
    assert sum(numbers(data, names.REQUESTS).values()) == 1

    with monkeypatch.context() as patch:
        patch.setattr("budgetware.telemetry.metrics.Snapshot", _raise)
        reader.get_metrics_data()

    faults = numbers(reader.get_metrics_data(), names.INTERNAL_ERRORS)
    assert faults[labels(step="export")] == 1
    assert faults[labels(step="collect")] >= 1


def _raise(*_: object, **__: object) -> None:
    raise RuntimeError("ours")


def test_a_broken_provider_does_not_stop_the_service() -> None:
    """A provider that raises costs the metrics, not the start of the application."""

    class Broken(metrics.MeterProvider):
        def get_meter(self, *args: Any, **kwargs: Any) -> metrics.Meter:
            raise RuntimeError("no")

    service = Service(Telemetry(Broken()))
    service.serve()

    assert service.engine.tally.faults == {"watch": 1}
    assert len(service.records) == 1


def test_a_provider_lives_as_long_as_its_engine() -> None:
    """Telemetry keeps the provider it was given; without an engine it keeps nothing."""
    reader = ReadyMade()
    service = Service(Telemetry(provider_with(reader)))
    gc.collect()
    service.serve()
    assert points(reader.get_metrics_data(), names.REQUEST_DURATION)

    provider = weakref.ref(service.telemetry._meter_provider)
    del service, reader
    gc.collect()
    Telemetry(MeterProvider(shutdown_on_exit=False)).watch(Engine())
    gc.collect()
    assert provider() is None


def test_words_that_mean_nothing_are_refused() -> None:
    """A mode that does not exist is an error at once, with the ones that do."""
    with pytest.raises(ValueError, match="histograms must be one of auto, aggregated"):
        Telemetry(histograms="always")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="traces must be one of auto, stages, off"):
        Telemetry(traces="all")  # type: ignore[arg-type]
