"""A Prometheus reader for budgetware's ready-made histograms; needs ``budgetware[prometheus]``."""

from __future__ import annotations

from typing import Any

from budgetware.errors import MissingExtra
from budgetware.telemetry.readers import AggregatedHistograms

try:
    from opentelemetry.exporter.prometheus import PrometheusMetricReader
except ImportError as error:
    raise MissingExtra("prometheus", "opentelemetry-exporter-prometheus") from error


class BudgetPrometheusReader(AggregatedHistograms, PrometheusMetricReader):
    """Serves metrics to a Prometheus scrape, budgetware's histograms included.

    ``MeterProvider(metric_readers=[BudgetPrometheusReader()])`` puts them into the registry of
    ``prometheus_client``, from where ``start_http_server`` or ``make_asgi_app`` serve them.

    Args:
        options: Whatever ``PrometheusMetricReader`` takes, such as ``prefix`` and ``registry``.

    Raises:
        MissingExtra: On import, when the exporter is not installed.

    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
