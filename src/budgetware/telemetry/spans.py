"""What a trace learns: attributes on the request's own span, and a child span per stage if wanted.

Nothing is attached to a context and no span is started while the request runs; the spans of the
stages are made afterwards, with the times they had.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from math import inf
from typing import TYPE_CHECKING

from opentelemetry import context, trace

from budgetware import names
from budgetware._core.audience import Observing
from budgetware._core.record import Ending
from budgetware._version import __version__
from budgetware.telemetry.plain import plain

if TYPE_CHECKING:
    from opentelemetry.trace import Span, TracerProvider

    from budgetware._core.record import RequestRecord, StageRecord

Value = str | float


def _asked_first() -> Callable[[], object]:
    """Return what gives the current context, which is empty where there is no span."""
    # The variable that ``get_current`` reads is asked of every request, and by itself it is written
    # in C. It is no public name; without it, as with contexts of another kind, it is the function.
    variable = getattr(getattr(context, "_RUNTIME_CONTEXT", None), "_current_context", None)
    return variable.get if isinstance(variable, ContextVar) else context.get_current


current_context = _asked_first()


def is_recording() -> bool:
    """Tell whether the current span wants to know anything."""
    return trace.get_current_span().is_recording()


def annotate(record: RequestRecord) -> None:
    """Put the request's account on the current span."""
    trace.get_current_span().set_attributes(span_attributes(record))


def span_attributes(record: RequestRecord) -> dict[str, Value]:
    """Return what a span says about *record*; durations are in seconds."""
    attributes: dict[str, Value] = {
        names.ROUTE: plain(record.route),
        names.OUTCOME: record.outcome.value,
        names.SPAN_ELAPSED: record.elapsed_s,
    }
    if record.tier is not None:
        attributes[names.TIER] = plain(record.tier)
    if record.limit_s < inf:
        attributes[names.SPAN_LIMIT] = record.limit_s
        attributes[names.SPAN_OVERAGE] = record.overage_s
    if record.answer is not None:
        attributes[names.ANSWER] = record.answer
        attributes[names.REASON] = plain(record.reason)
    if record.policy:
        attributes[names.SPAN_POLICY] = plain(record.policy)
    return attributes


class StageSpans:
    """Makes a child span of the current span for every opening of a stage.

    A stage within another becomes its child. Waits for the client are no part of a budget, so
    with them the spans stand later than they were, by at most the time waited.

    Args:
        tracer_provider: Who makes the spans; the global provider by default.
        wall_ns: The time of day in nanoseconds since 1970.

    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._tracer = trace.get_tracer(
            names.SCOPE,
            __version__,
            tracer_provider,
            schema_url=names.SCHEMA_URL,
        )
        self._wall_ns = wall_ns

    def __call__(self, record: RequestRecord) -> None:
        """Make the spans of *record*, which has just ended."""
        began_ns = self._wall_ns() - round(record.duration_s * 1e9)
        request = trace.get_current_span()
        around: list[tuple[StageRecord, Span]] = []
        for opening in sorted(record.openings, key=lambda one: one.start_s):
            span = self._tracer.start_span(
                _title(opening),
                context=trace.set_span_in_context(_parent(opening, around) or request),
                attributes=_attributes(opening),
                start_time=began_ns + round(opening.start_s * 1e9),
            )
            around.append((opening, span))
        for opening, span in around:
            if opening.ending is Ending.FAILED:
                span.set_status(trace.StatusCode.ERROR, opening.error)
            span.end(began_ns + round((opening.start_s + opening.duration_s) * 1e9))


def span_observers(
    traces: str,
    tracer_provider: TracerProvider | None,
    wall_ns: Callable[[], int],
) -> tuple[Observing, ...]:
    """Return the observers for *traces*: ``auto``, ``stages`` or ``off``, which has none."""
    if traces == "off":
        return ()
    if traces == "auto":
        return (Observing(annotate, is_recording, before_answer=True, hint=current_context),)
    stages = StageSpans(tracer_provider, wall_ns)
    return (
        Observing(annotate, is_recording, before_answer=True, hint=current_context),
        Observing(stages, is_recording, before_answer=True, hint=current_context),
    )


def _parent(opening: StageRecord, around: Sequence[tuple[StageRecord, Span]]) -> Span | None:
    end_s = opening.start_s + opening.duration_s
    for other, span in reversed(around):
        if end_s <= other.start_s + other.duration_s:
            return span
    return None


def _title(opening: StageRecord) -> str:
    name = plain(opening.name)
    return name if opening.operation is None else f"{name} {plain(opening.operation)}"


def _attributes(opening: StageRecord) -> dict[str, str]:
    attributes = {names.STAGE: plain(opening.name)}
    if opening.operation is not None:
        attributes[names.OPERATION] = plain(opening.operation)
    if opening.error is not None:
        attributes[names.ERROR_TYPE] = plain(opening.error)
    return attributes
