"""What a trace learns of a request."""

from __future__ import annotations

import contextlib
import time
from contextvars import ContextVar

import pytest
from opentelemetry import context, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import StatusCode
from tests.telemetry.driving import Service, Step, provider_with

from budgetware import names
from budgetware._core.current import current_budget, handle
from budgetware._core.policy import Policy
from budgetware.telemetry import Telemetry, Traces
from budgetware.telemetry.spans import _asked_first, current_context


class Traced:
    """A service within the spans of an SDK."""

    def __init__(self, traces: Traces, policy: Policy | None = None) -> None:
        self.spans = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.spans))
        telemetry = Telemetry(provider_with(), self.provider, traces=traces)
        self.service = Service(telemetry) if policy is None else Service(telemetry, policy)
        self.tracer = self.provider.get_tracer("server")

    def finished(self) -> dict[str, ReadableSpan]:
        """Return the finished spans by name."""
        spans = self.spans.get_finished_spans()
        found = {span.name: span for span in spans}
        assert len(found) == len(spans)
        return found


def test_the_requests_span_carries_the_account() -> None:
    """The span the server made says what was promised and what became of it; no events."""
    traced = Traced("auto")
    with traced.tracer.start_as_current_span("GET /signals"):
        traced.service.serve(tier="pro", steps=[Step("db", 0.01)], rest_s=0.115)

    (span,) = traced.finished().values()
    assert span.attributes == {
        names.ROUTE: "signals",
        names.TIER: "pro",
        names.OUTCOME: "exceeded",
        names.SPAN_LIMIT: 0.1,
        names.SPAN_ELAPSED: pytest.approx(0.125),
        names.SPAN_OVERAGE: pytest.approx(0.025),
        names.SPAN_POLICY: "d1gest",
    }
    assert span.events == ()


def test_what_is_not_promised_is_not_on_the_span() -> None:
    """Without tiers and limits there are no attributes for them, least of all infinity."""
    traced = Traced("auto", Policy())
    with traced.tracer.start_as_current_span("GET /"):
        traced.service.serve("/")

    (span,) = traced.finished().values()
    assert span.attributes is not None
    assert set(span.attributes) == {names.ROUTE, names.OUTCOME, names.SPAN_ELAPSED}


def test_stages_become_spans_with_the_times_they_had() -> None:
    """Child spans lie inside the request's span, nested the way the stages were."""
    traced = Traced("stages")
    service = traced.service
    clock = service.clock
    with traced.tracer.start_as_current_span("request"):
        before = time.time_ns()
        budget = service.engine.begin("GET", "/signals/x", "pro")
        token = current_budget.set(budget)
        clock.now += 0.001
        with handle.stage("gateway"):
            clock.now += 0.002
            with handle.stage("db", "select"):
                clock.now += 0.004
            with contextlib.suppress(KeyError), handle.stage("ml"):
                clock.now += 0.008
                raise KeyError
        current_budget.reset(token)
        service.engine.finish(budget)
        after = time.time_ns()

    spans = traced.finished()
    assert set(spans) == {"request", "gateway", "db select", "ml"}
    gateway, select, model = spans["gateway"], spans["db select"], spans["ml"]
    assert _parent(gateway) == _id(spans["request"])
    assert _parent(select) == _parent(model) == _id(gateway)
    assert _length(gateway) == pytest.approx(0.014, abs=1e-6)
    assert _length(select) == pytest.approx(0.004, abs=1e-6)
    assert _start(select) - _start(gateway) == pytest.approx(0.002, abs=1e-6)
    assert _start(model) - _start(gateway) == pytest.approx(0.006, abs=1e-6)
    assert before <= (gateway.end_time or 0) <= after
    assert select.attributes == {names.STAGE: "db", names.OPERATION: "select"}
    assert model.attributes == {names.STAGE: "ml", names.ERROR_TYPE: "KeyError"}
    assert model.status.status_code is StatusCode.ERROR
    assert gateway.status.status_code is StatusCode.UNSET


def _id(span: ReadableSpan) -> int:
    context = span.get_span_context()
    assert context is not None
    return context.span_id


def _parent(span: ReadableSpan) -> int:
    assert span.parent is not None
    return span.parent.span_id


def _start(span: ReadableSpan) -> float:
    assert span.start_time is not None
    return span.start_time / 1e9


def _length(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


def test_parallel_stages_are_siblings() -> None:
    """Stages that overlap without one holding the other have the same parent."""
    traced = Traced("stages")
    service = traced.service
    with traced.tracer.start_as_current_span("request"):
        budget = service.engine.begin("GET", "/signals/x", "pro")
        token = current_budget.set(budget)
        first = handle.stage("a")
        first.__enter__()
        service.clock.now += 0.001
        second = handle.stage("b")
        second.__enter__()
        service.clock.now += 0.001
        first.__exit__(None, None, None)
        service.clock.now += 0.001
        second.__exit__(None, None, None)
        current_budget.reset(token)
        service.engine.finish(budget)

    spans = traced.finished()
    assert _parent(spans["a"]) == _parent(spans["b"]) == _id(spans["request"])


def test_parallel_stages_of_one_instant_are_siblings() -> None:
    """Of two stages opened at once the shorter is no child of the longer opened after it."""
    traced = Traced("stages")
    service = traced.service
    with traced.tracer.start_as_current_span("request"):
        budget = service.engine.begin("GET", "/signals/x", "pro")
        for name, seconds in (("short", 0.001), ("long", 0.002)):
            stage = budget.opens()
            stage.name, stage.start = name, service.clock.now
            stage.end = service.clock.now + seconds
            budget.append(stage)
        service.clock.now += 0.002
        service.engine.finish(budget)

    spans = traced.finished()
    assert _parent(spans["short"]) == _parent(spans["long"]) == _id(spans["request"])


@pytest.mark.parametrize("traces", ["auto", "stages"])
def test_a_span_nobody_records_costs_no_record(traces: Traces) -> None:
    """Outside a recording span no observer wants the request."""
    telemetry = Telemetry(provider_with(), traces=traces)
    dropped = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False).get_tracer("t")

    wanted = [one.wanted() for one in telemetry.observers]
    with dropped.start_as_current_span("request"):
        wanted += [one.wanted() for one in telemetry.observers]

    assert len(wanted) == 2 * (2 if traces == "stages" else 1)
    assert not any(wanted)


def test_off_is_no_observer() -> None:
    """Switched off, there is nothing to ask."""
    assert Telemetry(provider_with(), traces="off").observers == ()


def test_nothing_is_left_in_the_context() -> None:
    """The current span is the same before and after, and no detach fails."""
    traced = Traced("stages")
    with traced.tracer.start_as_current_span("request") as span:
        traced.service.serve(steps=[Step("db", 0.1)])
        assert trace.get_current_span() is span


def test_every_request_is_asked_no_more_than_a_variable_in_c() -> None:
    """Of this release of OpenTelemetry; of one without it the public function is asked."""
    assert isinstance(getattr(current_context, "__self__", None), ContextVar)


def test_without_that_variable_the_public_function_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Contexts may be of another kind, and names that are not public may change."""
    monkeypatch.delattr(context, "_RUNTIME_CONTEXT")

    assert _asked_first() is context.get_current


def test_a_context_without_a_span_is_no_span() -> None:
    """It may hold something else, such as baggage."""
    traced = Traced("auto")
    token = context.attach(context.set_value("anything", 1))
    try:
        assert current_context()
        traced.service.serve(tier="pro", steps=[Step("db", 0.01)], rest_s=0.115)
    finally:
        context.detach(token)

    assert traced.finished() == {}
