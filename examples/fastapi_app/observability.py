"""Logs and metrics, set up by the application: budgetware only uses what it finds here."""

from __future__ import annotations

import itertools
import os

import structlog
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp, Receive, Scope, Send

from budgetware.telemetry.prometheus import BudgetPrometheusReader

_FIRST = ("timestamp", "level", "event", "scope", "route", "tier", "stage", "operation")


def configure_logging() -> None:
    """Have everything logged to standard output, one line of ``key=value`` pairs per event."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.LogfmtRenderer(key_order=_FIRST, drop_missing=True),
        ],
    )


def metrics_for(registry: CollectorRegistry) -> MeterProvider:
    """Return a meter provider whose metrics a scrape of *registry* sees.

    Our reader takes durations that are already sorted into buckets, which costs a request nothing.
    """
    reader = BudgetPrometheusReader(registry=registry, scope_info_enabled=False)
    return MeterProvider(metric_readers=[reader])


class RequestId:
    """Gives every request a number that all of its log events carry.

    Plain ASGI, so that what is bound here is still bound when the answer has left and budgetware
    writes about the request.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._numbers = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        number = f"{os.getpid()}-{next(self._numbers)}"
        with structlog.contextvars.bound_contextvars(request_id=number):
            await self._app(scope, receive, send)
