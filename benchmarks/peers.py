"""Against tracing every stage: OpenTelemetry's and sentry's ASGI middleware with eight spans."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import sentry_sdk  # type: ignore[import-not-found]
from benchmarks.asgi import STAGES, Client, application, hello, hello_in_stages
from benchmarks.compare import Candidate, Rounds, WrongCountError, quietest, report
from benchmarks.telemetry import Telemetry
from opentelemetry.instrumentation.asgi import (  # type: ignore[import-not-found]
    OpenTelemetryMiddleware,
)
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from sentry_sdk.integrations.asgi import (  # type: ignore[import-not-found]
    SentryAsgiMiddleware,
)
from sentry_sdk.transport import Transport  # type: ignore[import-not-found]
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from budgetware import BudgetMiddleware

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.asgi import App, Receive, Scope, Send


class Nowhere(SpanExporter):
    """Counts the spans it is given and keeps none."""

    def __init__(self) -> None:
        self.spans = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Count *spans*."""
        self.spans += len(spans)
        return SpanExportResult.SUCCESS


class NoTransport(Transport):  # type: ignore[misc]
    """Counts the envelopes it is given and sends none."""

    envelopes = 0

    def capture_envelope(self, envelope: object) -> None:  # noqa: ARG002 - sentry's signature
        """Count *envelope*."""
        NoTransport.envelopes += 1


class InSpan:
    """An application inside a recording span, as a framework's instrumentation makes it."""

    def __init__(self, app: App, provider: TracerProvider) -> None:
        self.app = app
        self.tracer = provider.get_tracer("bench")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        with self.tracer.start_as_current_span("GET /hello"):
            await self.app(scope, receive, send)


def traced(provider: TracerProvider) -> App:
    """Return the application behind OpenTelemetry: metrics, a server span and eight more."""
    tracer = provider.get_tracer("bench")

    async def endpoint(_: Request) -> Response:
        for name in STAGES:
            with tracer.start_as_current_span(name):
                pass
        return PlainTextResponse("hello")

    app: App = OpenTelemetryMiddleware(
        application(endpoint),
        tracer_provider=provider,
        meter_provider=MeterProvider([InMemoryMetricReader()]),
    )
    return app


def sampled() -> App:
    """Return the application behind sentry, every transaction sampled, with eight spans."""
    sentry_sdk.init(
        "http://public@127.0.0.1:9/1",
        transport=NoTransport,
        traces_sample_rate=1.0,
        default_integrations=False,
        auto_enabling_integrations=False,
    )

    async def endpoint(_: Request) -> Response:
        for name in STAGES:
            with sentry_sdk.start_span(op="stage", name=name):
                pass
        return PlainTextResponse("hello")

    app: App = SentryAsgiMiddleware(application(endpoint))
    return app


def good(rounds: Rounds) -> bool:
    """Tell whether one set is enough."""
    added = rounds.added_usually("eight", "bare")
    return (
        added / rounds.added_usually("otel", "bare") <= 1 / 30
        and added / rounds.added_usually("sentry", "bare") <= 1 / 60
    )


def measure(quick: bool) -> dict[str, Any]:  # noqa: FBT001 - the one switch there is
    """Return the values of this group's rows."""
    client = Client()
    exporter = Nowhere()
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(exporter))
    plain, spanned = Telemetry(), Telemetry(traces="auto")
    endpoint = application(hello_in_stages)
    apps: list[tuple[str, App, int]] = [
        ("bare", application(hello), 128),
        ("eight", BudgetMiddleware(endpoint, **plain.options), 128),
        ("otel", traced(provider), 16),
        ("sentry", sampled(), 16),
        ("in_span", InSpan(application(hello), provider), 32),
        ("span", InSpan(BudgetMiddleware(endpoint, **spanned.options), provider), 32),
    ]
    candidates = [Candidate(name, client.timing(name, app), times) for name, app, times in apps]
    rounds, remark = quietest(candidates, 60 if quick else 150, good, sets=2)
    plain.verify("eight", client.sent["eight"], STAGES)
    spanned.verify("span", client.sent["span"], STAGES)
    if NoTransport.envelopes < client.sent["sentry"] or not exporter.spans:
        raise WrongCountError(f"sentry sent {NoTransport.envelopes}, OTel {exporter.spans} spans")
    added = rounds.added_usually("eight", "bare")

    def against(name: str) -> dict[str, Any]:
        beyond = rounds.added_usually(name, "bare")
        note = f"1/{beyond / added:.0f}; {1e6 * added:.1f} against {1e6 * beyond:.0f} us"
        return {"value": added / beyond, "remark": f"{note}; {remark}" if remark else note}

    return {
        "rows": {
            "otel": against("otel"),
            "sentry": against("sentry"),
            "span": {"value": 1e6 * rounds.added_usually("span", "in_span")},
        },
        "details": rounds.figures(),
    }


if __name__ == "__main__":
    sys.exit(report(measure))
