"""Metrics all the way: a real OTLP exporter, real gunicorn workers.

What arrives must equal what the records of the same run say.
"""

from __future__ import annotations

import collections
import random
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import Histogram, ObservableCounter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    MetricReader,
    PeriodicExportingMetricReader,
)
from tests.integration.otlp_backend import Backend
from tests.integration.serving import gunicorn, request
from tests.servers import Collector
from tests.telemetry.driving import (
    Service,
    durations,
    expected,
    outcomes,
    provider_with,
    serve_some,
    stage_durations,
)

from budgetware import names
from budgetware.telemetry import Telemetry
from budgetware.telemetry.readers import BudgetPeriodicReader

NEVER = float("inf")
"""An interval for tests that export by themselves."""


# --- OTLP ---------------------------------------------------------------------------------------


def _check_backend(backend: Backend, service: Service) -> None:
    counted = backend.numbers[names.REQUESTS]
    assert {key: value for key, value in counted.items() if value} == outcomes(service.records)
    for metric, wanted in (
        (names.REQUEST_DURATION, durations(service.records)),
        (names.STAGE_DURATION, stage_durations(service.records)),
    ):
        assert backend.histograms[metric].keys() == wanted.keys()
        for series, values in wanted.items():
            found = backend.histograms[metric][series]
            figures = found.count, found.counts, found.least, found.most
            assert figures == expected(values, found.bounds)
            assert found.total == pytest.approx(sum(values))


def _reader(
    collector: Collector,
    *,
    ready_made: bool,
    temporality: AggregationTemporality,
    every_ms: float = NEVER,
) -> MetricReader:
    kind = BudgetPeriodicReader if ready_made else PeriodicExportingMetricReader
    exporter = OTLPMetricExporter(
        endpoint=collector.endpoint,
        preferred_temporality={Histogram: temporality, ObservableCounter: temporality},
    )
    return kind(exporter, every_ms)


TEMPORALITIES = [AggregationTemporality.CUMULATIVE, AggregationTemporality.DELTA]


@pytest.mark.parametrize("ready_made", [True, False], ids=["aggregated", "recorded"])
@pytest.mark.parametrize("temporality", TEMPORALITIES, ids=["cumulative", "delta"])
def test_otlp_carries_what_the_records_say(
    ready_made: bool,  # noqa: FBT001 - a table's column
    temporality: AggregationTemporality,
) -> None:
    """Over several exports a backend arrives at the records' counts, buckets, sums, extremes."""
    with Collector() as collector:
        provider = provider_with(
            _reader(collector, ready_made=ready_made, temporality=temporality),
        )
        service = Service(Telemetry(provider))
        pick = random.Random(21)
        for _ in range(4):
            serve_some(service, pick, 100)
            provider.force_flush()
        provider.shutdown()

    assert len(collector.received) >= 4
    backend = Backend()
    backend.take(collector.received)
    _check_backend(backend, service)


def test_the_exporters_own_thread_finds_our_histograms() -> None:
    """Exports of the SDK's own thread, in the middle of the traffic, lose and double nothing."""
    with Collector() as collector:
        provider = provider_with(
            _reader(
                collector,
                ready_made=True,
                temporality=AggregationTemporality.DELTA,
                every_ms=20,
            ),
        )
        service = Service(Telemetry(provider))
        pick = random.Random(22)
        deadline = time.monotonic() + 10
        while len(collector.received) < 5 and time.monotonic() < deadline:
            serve_some(service, pick, 20)
            time.sleep(0.001)
        provider.shutdown()

    assert len(collector.received) > 5
    backend = Backend()
    backend.take(collector.received)
    _check_backend(backend, service)


# --- gunicorn -----------------------------------------------------------------------------------

APP = """
import os
from opentelemetry import metrics
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import Histogram, MeterProvider, ObservableCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality
from budgetware import budget
from budgetware._core.policy import Amount, Match, Policy, Route, StagePolicy
from budgetware.telemetry.readers import BudgetPeriodicReader
from budgetware.wsgi import BudgetMiddleware

delta = AggregationTemporality.DELTA
exporter = OTLPMetricExporter(
    preferred_temporality={Histogram: delta, ObservableCounter: delta}, timeout=1
)
metrics.set_meter_provider(MeterProvider(metric_readers=[BudgetPeriodicReader(exporter, 200)]))


def answer(environ, start_response):
    with budget.stage("db"):
        body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


policy = Policy(
    routes={
        "r": Route(
            name="r", match=(Match("GET", "/r"),), stages={"db": StagePolicy(budget=Amount(5.0))}
        )
    }
)
app = BudgetMiddleware(answer, policy=policy)
"""


@pytest.mark.server
def test_workers_of_a_preloaded_gunicorn_add_up(tmp_path: Path) -> None:
    """Three forked workers push to one collector: their totals are the requests, none hangs."""
    served: collections.Counter[bytes] = collections.Counter()

    def ask() -> None:
        for _ in range(100):
            served[request(server.port, "GET", "/r")[1]] += 1

    with Collector() as collector:
        where = {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": collector.endpoint}
        with gunicorn(tmp_path, APP, "--preload", "--workers=3", **where) as server:
            clients = [threading.Thread(target=ask) for _ in range(4)]
            for client in clients:
                client.start()
            for client in clients:
                client.join()

    backend = Backend()
    backend.take(collector.received)
    assert sum(served.values()) == 400
    assert len(served) >= 2
    route = {(names.ROUTE, "r")}
    assert sum(backend.numbers[names.REQUESTS].values()) == 400
    assert (
        backend.numbers[names.REQUESTS][frozenset(route | {(names.OUTCOME, "unbudgeted")})] == 400
    )
    assert backend.histograms[names.REQUEST_DURATION][frozenset(route)].count == 400
    stage = backend.histograms[names.STAGE_DURATION][frozenset(route | {(names.STAGE, "db")})]
    assert sum(stage.counts) == stage.count == 400


EXIT = """
import sys, time
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from budgetware._core.engine import Engine
from budgetware.telemetry import Telemetry
from budgetware.telemetry.readers import BudgetPeriodicReader

ours, endpoint = sys.argv[1] == "ours", sys.argv[2]
exporter = OTLPMetricExporter(endpoint=endpoint, timeout=1)
kind = BudgetPeriodicReader if ours else PeriodicExportingMetricReader
provider = MeterProvider(metric_readers=[kind(exporter)])
provider.get_meter("app").create_counter("c").add(1)
if ours:
    telemetry = Telemetry(provider)
    engine = Engine(observers=telemetry.observers, alarms=telemetry.alarms)
    telemetry.watch(engine)
    for _ in range(1000):
        engine.finish(engine.begin("GET", "/"))
print(time.monotonic(), flush=True)
"""


def test_a_dead_collector_keeps_nobody_longer_because_of_us() -> None:
    """With a collector that never answers, exit takes as long as with the SDK alone."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}/v1/metrics"
        took: dict[str, float] = {}
        watches = [
            threading.Thread(target=_time_exit, args=(who, endpoint, took))
            for who in ("theirs", "ours")
        ]
        for watch in watches:
            watch.start()
        for watch in watches:
            watch.join(timeout=20)

    assert took["ours"] - took["theirs"] <= 0.5


def _time_exit(who: str, endpoint: str, took: dict[str, float]) -> None:
    run = subprocess.run(
        [sys.executable, "-c", EXIT, who, endpoint],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    took[who] = time.monotonic() - float(run.stdout)
