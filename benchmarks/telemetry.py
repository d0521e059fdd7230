"""Telemetry as an application sets it up, and the proof that it counted what was run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import structlog
from benchmarks.compare import WrongCountError
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import Histogram, InMemoryMetricReader

from budgetware.telemetry.readers import AggregatedHistograms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from budgetware.runtime import Options

POLICY = Path(__file__).resolve().parent / "policy.yaml"


class Reader(AggregatedHistograms, InMemoryMetricReader):
    """Collects when it is asked to, and not in the middle of a measurement."""


class Telemetry:
    """One middleware's policy, meter provider and logger.

    Attributes:
        options: What to give the middleware: histograms aggregated, alarms logged to nowhere,
            and *traces*.

    """

    def __init__(
        self,
        environment: str | None = None,
        *,
        traces: Literal["auto", "off"] = "off",
    ) -> None:
        self._reader = Reader()
        nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - for the process
        self.options: Options = {
            "policy": POLICY,
            "environment": environment,
            "meter_provider": MeterProvider([self._reader]),
            "histograms": "aggregated",
            "traces": traces,
            "logger": structlog.wrap_logger(structlog.PrintLogger(nowhere)),
        }

    def counts(self) -> dict[str, int]:
        """Return how many durations were exported, of requests (``""``) and by stage."""
        found: dict[str, int] = {}
        data = self._reader.get_metrics_data()
        for resource in [] if data is None else data.resource_metrics:
            for metric in (one for scope in resource.scope_metrics for one in scope.metrics):
                if isinstance(metric.data, Histogram) and metric.name.startswith("budgetware."):
                    for point in metric.data.data_points:
                        name = str((point.attributes or {}).get("budgetware.stage", ""))
                        found[name] = found.get(name, 0) + point.count
        return found

    def verify(self, what: str, requests: int, stages: Sequence[str] = ()) -> None:
        """Raise unless *requests* durations were exported, and as many of each of *stages*."""
        found = self.counts()
        wanted = {"": requests, **dict.fromkeys(stages, requests)}
        if found != wanted:
            raise WrongCountError(f"{what}: exported {found}, but {wanted} were run")
