"""A real Prometheus that scrapes services of ours, and what it says of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path

import prometheus_client
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from tests.integration.otlp_backend import Series
from tests.servers import Prometheus, require_program
from tests.telemetry.driving import Service, provider_with

from budgetware.telemetry import Histograms, Telemetry
from budgetware.telemetry.prometheus import BudgetPrometheusReader


def reader_for(
    registry: prometheus_client.CollectorRegistry,
    kind: type[PrometheusMetricReader] = BudgetPrometheusReader,
) -> PrometheusMetricReader:
    """Return a reader of *kind* in *registry* and no other."""
    if "registry" in signature(PrometheusMetricReader).parameters:
        return kind(registry=registry)
    # Before 0.63b0 the exporter knows the global registry only.
    reader = kind()
    prometheus_client.REGISTRY.unregister(reader._collector)
    registry.register(reader._collector)
    return reader


@contextmanager
def scraped(folder: Path) -> Iterator[tuple[Prometheus, dict[str, Service]]]:
    """Run a Prometheus that scrapes a service of each mode; yield both, services by job."""
    program = require_program("prometheus")
    services: dict[str, Service] = {}
    targets: dict[str, int] = {}
    endpoints = []
    kinds: dict[Histograms, type[PrometheusMetricReader]] = {
        "aggregated": BudgetPrometheusReader,
        "recorded": PrometheusMetricReader,
    }
    for job, kind in kinds.items():
        registry = prometheus_client.CollectorRegistry()
        provider = provider_with(reader_for(registry, kind))
        # Said, because before OpenTelemetry 1.41 the reader of one may be taken for the other's.
        services[job] = Service(Telemetry(provider, histograms=job))
        endpoint = prometheus_client.start_http_server(0, "127.0.0.1", registry)
        endpoints.append(endpoint)
        targets[job] = endpoint[0].server_port
    prometheus = Prometheus(program, folder, targets)
    try:
        yield prometheus, services
    finally:
        prometheus.stop()
        for server, thread in endpoints:
            server.shutdown()
            server.server_close()
            thread.join()


def labelled(series: Series, **more: str) -> Series:
    """Return attributes the way Prometheus names them, and *more* labels."""
    return frozenset(
        {(name.replace(".", "_"), value) for name, value in series} | set(more.items()),
    )


def answers(prometheus: Prometheus, expression: str) -> bool:
    """Tell whether *expression* has a value by now."""
    return bool(prometheus.query(expression))
