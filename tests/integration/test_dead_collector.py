"""A server whose collector is gone: who has served nothing waits for nobody at its exit."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from tests.integration.serving import Gunicorn, gunicorn, request
from tests.servers import free_port

pytestmark = pytest.mark.server

APP = """
import json, os
from opentelemetry import metrics
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from budgetware.telemetry.readers import BudgetPeriodicReader
from budgetware.wsgi import BudgetMiddleware

facts = os.open(os.environ["FACTS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def note(**fact):
    os.write(facts, (json.dumps({**fact, "pid": os.getpid()}) + "\\n").encode())


class Exporter(OTLPMetricExporter):
    def export(self, data, *args, **named):
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics]
        points = [len(metric.data.data_points) for scope in scopes for metric in scope.metrics]
        note(exported=sum(points))
        return super().export(data, *args, **named)


def served(env, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


def app(env, start_response):
    if env["PATH_INFO"] == "/ready":  # asked without anybody's account
        return served(env, start_response)
    return door(env, start_response)


exporter = Exporter(endpoint="http://127.0.0.1:PORT/v1/metrics", timeout=1)
metrics.set_meter_provider(MeterProvider(metric_readers=[BudgetPeriodicReader(exporter)]))
door = BudgetMiddleware(served, policy="budgetware.yaml")
"""
POLICY = """
version: 1
mode: enforce
tiers: {pro: {budget: 100ms}}
routes: {item: {match: "GET /items/{id}", stages: {db: 20ms}, objectives: {degraded: 1%}}}
"""


def _serving(folder: Path) -> AbstractContextManager[Gunicorn]:
    """Run a preloading master with two workers, and no collector where they send to."""
    (folder / "budgetware.yaml").write_text(POLICY)
    return gunicorn(folder, APP.replace("PORT", str(free_port())), "--preload", "--workers=2")


def _exports(server: Gunicorn) -> dict[int, int]:
    """Return the data points that were to be exported, by process."""
    return {fact["pid"]: fact["exported"] for fact in server.facts if "exported" in fact}


def test_only_workers_that_have_served_export_anything(tmp_path: Path) -> None:
    """The master has preloaded the application and one of two workers was asked: one exports."""
    with _serving(tmp_path) as server:
        assert request(server.port, "GET", "/items/1") == (200, b"ok")
        server.stop()
        exports = _exports(server)

    assert server.process.returncode == 0
    assert server.process.pid not in exports
    assert len(exports) == 1
    assert min(exports.values()) > 0


def test_a_server_that_was_not_asked_exports_nothing(tmp_path: Path) -> None:
    """Neither the master nor its workers."""
    with _serving(tmp_path) as server:
        server.stop()
        exports = _exports(server)

    assert exports == {}
