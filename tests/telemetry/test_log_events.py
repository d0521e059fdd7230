"""What is written to the log, how often, and what happens when that fails."""

from __future__ import annotations

import io
import json
import random
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider
from structlog.testing import CapturingLogger, capture_logs
from tests.doors.broken_clock import BrokenClock
from tests.telemetry.driving import Clock, ReadyMade, Service, Step, labels, numbers, provider_with

from budgetware import names
from budgetware._core.policy import Policy
from budgetware._core.record import Level, Outcome, RequestRecord, StageTotal
from budgetware.answers.storable import NotKept
from budgetware.answers.tee import MOST_BODY_BYTES
from budgetware.telemetry import Telemetry
from budgetware.telemetry.events import _HINTS, Events


@pytest.fixture(autouse=True)
def _untouched_structlog() -> Iterator[None]:
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def _service(**options: Any) -> Service:
    return Service(Telemetry(provider_with(), **options))


def test_a_request_over_its_budget_is_an_error_with_figures() -> None:
    """The event says what was promised, what it took and by how much that was too long."""
    with capture_logs() as logs:
        _service().serve(tier="pro", rest_s=0.14)

    assert logs == [
        {
            "event": "budget_exceeded",
            "log_level": "error",
            "scope": "request",
            "route": "signals",
            "tier": "pro",
            "budget_level": "critical",
            "budget_ms": 100.0,
            "actual_ms": 140.0,
            "overage_ms": 40.0,
            "outcome": "exceeded",
            "policy": "d1gest",
            "suppressed": 0,
        },
    ]


def test_a_stage_and_its_operation_have_events_of_their_own() -> None:
    """What went over inside the request is named, with its own figures."""
    with capture_logs() as logs:
        _service().serve(tier="pro", steps=[Step("db", 0.025, "select")])

    assert [
        (one["event"], one["scope"], one["stage"], one.get("operation"), one["budget_ms"])
        for one in logs
    ] == [
        ("budget_exceeded", "stage", "db", None, 20.0),
        ("budget_exceeded", "stage", "db", "select", 10.0),
    ]
    assert [one["budget_level"] for one in logs] == ["critical", "breach"]
    assert logs[0]["outcome"] == "met"


def test_too_many_calls_say_how_many() -> None:
    """When it is the count that is exceeded, the event carries the count."""
    with capture_logs() as logs:
        _service().serve(tier="pro", steps=[Step("db", 0.001)] * 4)

    (event,) = logs
    assert (event["calls"], event["calls_limit"], event["overage_ms"]) == (4, 3, 0.0)


def test_close_to_the_budget_is_a_warning() -> None:
    """The first rung is a warning and called one."""
    with capture_logs() as logs:
        _service().serve(tier="pro", rest_s=0.09)

    (event,) = logs
    assert (event["event"], event["log_level"]) == ("budget_warning", "warning")
    assert event["overage_ms"] == 0.0


def test_the_ladders_level_survives_structlogs_own() -> None:
    """``add_log_level`` of the default processors overwrites "level"; ours has another name."""
    out = io.StringIO()
    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.processors.JSONRenderer()],
        logger_factory=structlog.PrintLoggerFactory(out),
    )
    _service().serve(tier="pro", rest_s=0.5)

    event = json.loads(out.getvalue())
    assert (event["level"], event["budget_level"]) == ("error", "breach")


def test_the_applications_context_is_merged_and_left_alone() -> None:
    """A request id the application bound appears in the event; nothing is bound by us."""
    out = io.StringIO()
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, structlog.processors.JSONRenderer()],
        logger_factory=structlog.PrintLoggerFactory(out),
    )
    service = _service()
    structlog.contextvars.bind_contextvars(request_id="r-1")
    service.serve(tier="pro", rest_s=0.5)

    assert json.loads(out.getvalue())["request_id"] == "r-1"
    assert structlog.contextvars.get_contextvars() == {"request_id": "r-1"}


def test_an_event_can_be_found_from_its_trace() -> None:
    """Within a span the event carries its ids, without one it has none."""
    service = _service()
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    with capture_logs() as logs:
        with tracer.start_as_current_span("request") as span:
            service.serve(tier="pro", rest_s=0.5)
        service.serve(tier="pro", rest_s=0.5)

    assert logs[0]["trace_id"] == format(span.get_span_context().trace_id, "032x")
    assert logs[0]["span_id"] == format(span.get_span_context().span_id, "016x")
    assert "trace_id" not in logs[1]


def test_a_given_logger_is_used() -> None:
    """``logger=`` takes the place of the global one."""
    mine = CapturingLogger()
    with capture_logs() as logs:
        _service(logger=structlog.wrap_logger(mine, processors=[])).serve(rest_s=2)

    assert logs == []
    assert [call.kwargs["event"] for call in mine.calls] == ["budget_exceeded"]


def test_a_flood_is_cut_and_counted() -> None:
    """A thousand violations in a moment are five lines; the next line says what was left out."""
    clock = Clock()
    service = _service(clock=clock)
    with capture_logs() as logs:
        for _ in range(1000):
            service.serve(tier="pro", rest_s=0.2)
        clock.now += 1
        service.serve(tier="pro", rest_s=0.2)
        service.serve(tier="pro", rest_s=0.12)

    assert [one["suppressed"] for one in logs] == [0, 0, 0, 0, 0, 995, 0]
    assert logs[-1]["budget_level"] == "critical"


def test_failures_of_our_own_are_limited_by_step() -> None:
    """The log names the step, the error and how many there were, and is not flooded either."""
    service = _service(clock=Clock())
    with capture_logs() as logs:
        for number in range(100):
            service.engine.fault("begin", ValueError(f"no {number}\nInjected"))
        service.engine.fault("tell", KeyError("x"))

    assert len(logs) == 6
    assert logs[0] == {
        "event": "budgetware_internal_error",
        "log_level": "error",
        "step": "begin",
        "error_type": "ValueError",
        "error": "no 0\\nInjected",
        "count": 1,
        "suppressed": 0,
    }
    assert logs[-1]["step"] == "tell"


def test_a_missing_policy_is_said_once() -> None:
    """Without a policy there is one line that says what that means."""
    telemetry = Telemetry(provider_with())
    with capture_logs() as logs:
        telemetry.no_policy()
        telemetry.no_policy()

    (event,) = logs
    assert (event["event"], event["log_level"]) == ("budgetware_no_policy", "info")
    assert "BUDGETWARE_POLICY" in event["hint"]


def test_anything_can_be_said_in_the_same_way() -> None:
    """Events that do not come with requests are escaped and guarded like the others."""
    telemetry = Telemetry(provider_with())
    with capture_logs() as logs:
        telemetry.say(names.EVENT_POLICY_REJECTED, "error", problem="a\nb", line=None)

    assert logs == [
        {"event": "budgetware_policy_rejected", "log_level": "error", "problem": r"a\nb"}
    ]


class _Broken:
    """A logger whose every call fails."""

    def __getattr__(self, name: str) -> Any:
        raise BrokenPipeError(name)


def test_a_logger_that_fails_costs_a_count() -> None:
    """Neither a violation nor an error of ours can be made worse by the logger."""
    service = _service(logger=_Broken())
    seen: list[RequestRecord] = service.records

    service.serve(tier="pro", rest_s=0.5)
    service.engine.fault("begin", ValueError("x"))
    service.telemetry.no_policy()

    assert len(seen) == 1
    assert service.engine.tally.faults == {"begin": 1, "log": 3}


def test_a_closed_stdout_costs_a_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service whose standard output is gone goes on serving."""
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdout", closed)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory())
    service = _service()

    service.serve(tier="pro", rest_s=0.5)

    assert service.engine.tally.faults == {"log": 1}


def test_a_processor_that_drops_is_no_failure() -> None:
    """An application may filter our events out."""

    def drop(*_: Any) -> Any:
        raise structlog.DropEvent

    structlog.configure(processors=[drop])
    service = _service()
    service.serve(tier="pro", rest_s=0.5)

    assert service.engine.tally.faults == {}


NASTY = [
    '\n{"event": "forged"}',
    "\r\nSet-Cookie: x",
    "\x1b[2J\x1b[31m",
    "\u202e\u2066\u200b\ufeff",
    "\ud800\udfff"[:1],
    "${jndi:ldap://x/y}",
    "%s%n{}{0}",
    "\x00\x07\x7f\x9b",
    "\u2028\u2029\x85\x0b\x0c",
    "é" * 5000,
]


def test_ten_thousand_nasty_names_are_one_line_each() -> None:
    """Whatever a name holds, one event is one line of JSON with values of bounded length."""
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="utf-8", errors="strict")
    structlog.configure(
        processors=[structlog.processors.JSONRenderer(ensure_ascii=False)],
        logger_factory=structlog.WriteLoggerFactory(out),
    )
    clock = Clock()
    failures: list[None] = []
    events = Events(clock=clock, failed=lambda: failures.append(None))
    pick = random.Random(11)
    for _ in range(10_000):
        clock.now += 1
        name = "".join(pick.sample(NASTY, 3))[: pick.randrange(1, 400)]
        total = StageTotal(name=name, operation=name, limit_s=1, spent_s=2, level=Level.BREACH)
        events.violations(_record(name, total))

    out.flush()
    lines = raw.getvalue().decode("utf-8").splitlines()
    assert failures == []
    assert len(lines) == 10_000
    for line in lines:
        event = json.loads(line)
        assert event["event"] == "budget_exceeded"
        assert line.isprintable()
        assert max(len(value) for value in event.values() if isinstance(value, str)) <= 256


def _record(name: str, total: StageTotal) -> RequestRecord:
    return RequestRecord(
        route=name,
        tier=name,
        limit_s=1.0,
        reserve_s=0.0,
        elapsed_s=0.5,
        first_byte_s=None,
        duration_s=0.5,
        waited_s=0.0,
        outcome=Outcome.MET,
        level=None,
        overage_s=0.0,
        stages=(total,),
        openings=(),
        unattributed_s=0.0,
        pool_s=0.0,
        status=200,
        error=None,
        policy="",
        violations=(total,),
    )


def test_without_promises_nothing_is_written() -> None:
    """A service that promises nothing breaks nothing."""
    service = Service(Telemetry(provider_with()), Policy())
    with capture_logs() as logs:
        service.serve("/anything", steps=[Step("db", 9.0)])

    assert logs == []


def test_failed_log_calls_are_exported() -> None:
    """A service that cannot log still says so in its metrics."""
    reader = ReadyMade()
    service = Service(Telemetry(provider_with(reader), logger=_Broken()))
    service.serve(rest_s=2)

    assert numbers(reader.get_metrics_data(), names.INTERNAL_ERRORS)[labels(step="log")] == 1


@pytest.mark.parametrize("way", ["raises", "gives None"])
def test_a_limit_whose_clock_fails_costs_lines_and_nothing_else(way: str) -> None:
    """What cannot be limited is not written, and that is counted."""
    service = _service(clock=BrokenClock(f"{way} for good").over(Clock()))
    with capture_logs() as logs:
        service.serve(rest_s=2)
        service.engine.fault("begin", ValueError("x"))

    assert logs == []
    assert service.engine.tally.faults == {"observe": 1, "begin": 1}
    assert service.records[-1].outcome is Outcome.BREACHED


def test_hints_are_of_reasons_there_are() -> None:
    """Whoever reads the log is told what can be done about each reason that is theirs to mend."""
    assert set(_HINTS) <= set(NotKept)
    assert f"{MOST_BODY_BYTES // 1024} KiB" in _HINTS[NotKept.TOO_LONG]
