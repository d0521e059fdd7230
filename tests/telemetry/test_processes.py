"""What needs a process of its own: global providers, forks, imports without side effects."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

GLOBAL = """
import sys
from opentelemetry import metrics
from budgetware import names
from budgetware.telemetry import Telemetry
from budgetware._core.engine import Engine
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from tests.telemetry.driving import ReadyMade, Service, numbers, points, provider_with

early = Service(Telemetry())
for _ in range(300):
    early.serve(rest_s=0.01)
reader = {kind}()
provider = provider_with(reader)
metrics.set_meter_provider(provider)
late, explicit = Service(Telemetry()), Service(Telemetry(provider))
for service in (early, late, explicit):
    service.serve(rest_s=0.01)
for _ in range(2):
    data = reader.get_metrics_data()
    assert sum(numbers(data, names.REQUESTS).values()) == 303
    seen = sum(point.count for point in points(data, names.REQUEST_DURATION).values())
    print(seen)
"""


@pytest.mark.parametrize(("kind", "counts"), [("ReadyMade", 303), ("InMemoryMetricReader", None)])
def test_the_global_provider_may_be_set_late(kind: str, counts: int | None) -> None:
    """Engines from before and after ``set_meter_provider`` all come out, once."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", GLOBAL.format(kind=kind)],
        capture_output=True,
        text=True,
        check=False,
    )

    # Before OpenTelemetry 1.30 it is said of every instrument that is asked for twice.
    said = [line for line in run.stderr.splitlines() if "has been created already" not in line]
    assert said == []
    first, second = run.stdout.split()
    assert first == second
    # Single durations cannot be recorded before there is anybody to record to.
    assert int(first) == counts if counts else 3 <= int(first) < 303


FORK = """
import os, signal, threading, time
from opentelemetry.sdk.metrics import Histogram
from opentelemetry.sdk.metrics.export import AggregationTemporality
from budgetware import names
from budgetware.telemetry import Telemetry, limiter, outlet
from tests.telemetry.driving import ReadyMade, Service, numbers, provider_with

reader = ReadyMade(preferred_temporality={Histogram: AggregationTemporality.DELTA})
service = Service(Telemetry(provider_with(reader)))
service.serve(rest_s=5.0)
reader.get_metrics_data()
held = [limiter._lock, outlet._lock, reader._tap._lock, service.engine.tally.lock]
ready = threading.Event()

def hold():
    for lock in held:
        lock.acquire()
    ready.set()
    time.sleep(60)

threading.Thread(target=hold, daemon=True).start()
ready.wait()
child = os.fork()
if child == 0:
    signal.alarm(15)  # should it hang, it must not outlive the test
    service.serve(rest_s=5.0)
    data = reader.get_metrics_data()
    os._exit(0 if sum(numbers(data, names.REQUESTS).values()) == 2 else 3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_while_our_locks_are_held_hangs_nothing() -> None:
    """A worker forked in the middle of our work serves, logs and collects."""
    run = subprocess.run(
        [sys.executable, "-c", FORK],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )

    assert run.stdout.strip().splitlines()[-1:] == ["0"], run.stderr


EXPORTING = """
import os, signal, threading, time
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult
from budgetware.telemetry.readers import BudgetPeriodicReader

exporting, go_on, parent = threading.Event(), threading.Event(), os.getpid()

class Exporter(MetricExporter):
    exports = 0
    def export(self, data, timeout_millis=10_000, **more):
        if os.getpid() == parent:
            exporting.set()
            go_on.wait()
        self.exports += 1
        return MetricExportResult.SUCCESS
    def force_flush(self, timeout_millis=10_000):
        return True
    def shutdown(self, timeout_millis=30_000, **more):
        pass

exporter = Exporter()
reader = BudgetPeriodicReader(exporter, 50)
provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
provider.get_meter("app").create_counter("c").add(1)
exporting.wait()
child = os.fork()
if child == 0:
    signal.alarm(15)  # should it hang, it must not outlive the test
    provider.shutdown()
    os._exit(0 if exporter.exports else 3)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
go_on.set()
provider.shutdown()
print(code)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_in_the_middle_of_an_export_hangs_nothing() -> None:
    """A worker of a preloaded master exports and ends, whatever the master was at just then."""
    run = subprocess.run(
        [sys.executable, "-c", EXPORTING],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )

    assert run.stdout.strip().splitlines()[-1:] == ["0"], run.stderr


CONSTRUCTION = """
import atexit, sys, threading
registered = []
atexit.register = lambda function, *a, **k: registered.append(function) or function
from budgetware.telemetry import Telemetry
from budgetware._core.engine import Engine
telemetry = Telemetry()
engine = Engine(observers=telemetry.observers, alarms=telemetry.alarms)
telemetry.watch(engine)
engine.finish(engine.begin("GET", "/"))
ours = [one for one in registered if "budgetware" in getattr(one, "__module__", "")]
sdk = [name for name in sys.modules if name.startswith("opentelemetry.sdk")]
import structlog
from opentelemetry import metrics, trace
print(len(ours), threading.active_count(), sdk, structlog.is_configured())
print(type(metrics.get_meter_provider()).__name__, type(trace.get_tracer_provider()).__name__)
"""


def test_construction_has_no_side_effects() -> None:
    """No thread, no exit handler, no provider, no logging set-up, and no SDK imported."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", CONSTRUCTION],
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.stderr == ""
    assert run.stdout.split("\n")[:2] == [
        "0 1 [] False",
        "_ProxyMeterProvider ProxyTracerProvider",
    ]
