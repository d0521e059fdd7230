"""gunicorn's settings: two workers, and a metrics port for each of them.

A worker counts for itself, and a scrape reaches one process only. So worker 0 serves its metrics
at ``METRICS_PORT``, worker 1 at the next port and so on, and Prometheus scrapes them all.
"""

from __future__ import annotations

import os
from typing import Any

from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry, start_http_server

from budgetware.telemetry.prometheus import BudgetPrometheusReader

METRICS_PORT = int(os.environ.get("METRICS_PORT", "9100"))

bind = os.environ.get("BIND", "127.0.0.1:8000")
workers = 2
worker_class = "gthread"
threads = 4


def pre_fork(server: Any, worker: Any) -> None:
    """Give *worker* the lowest number no other has; a worker's successor gets its number back."""
    taken = {other.number for other in server.WORKERS.values()}
    worker.number = min(set(range(len(taken) + 1)) - taken)


def post_fork(server: Any, worker: Any) -> None:  # noqa: ARG001 - gunicorn passes both
    """Set up metrics in the worker: threads and sockets do not survive a fork, so not before."""
    registry = CollectorRegistry()
    reader = BudgetPrometheusReader(registry=registry, scope_info_enabled=False)
    metrics.set_meter_provider(MeterProvider(metric_readers=[reader]))
    start_http_server(METRICS_PORT + worker.number, "127.0.0.1", registry)
