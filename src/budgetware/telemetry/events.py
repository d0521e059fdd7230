"""What goes to the log: violations and budgetware's own failures, as structlog events.

One event is one line of flat keys with units. Nothing is configured here, the application's
context variables are only read by its own processors, and a logger that fails costs a count.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Final

import structlog
from opentelemetry import trace

from budgetware import names
from budgetware._core.record import Level
from budgetware.telemetry.limiter import Limiter
from budgetware.telemetry.plain import plain

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from budgetware._core.record import RequestRecord, StageTotal

Value = str | int | float | bool | None

# A share of the ladder's first rung is a hint; a broken promise is an error, once per second.
_METHODS: Final = {Level.WARNING: "warning", Level.CRITICAL: "error", Level.BREACH: "error"}


_IDENTITY: Final = "give the middleware `identity`"

# By reason; what a single request brings about has none.
_HINTS: Final = {
    "no_identity": f"the route has `vary: [identity]`, and nobody was named; {_IDENTITY}",
    "credentials": f"requests carry credentials, and nobody was named; {_IDENTITY}",
    "unlisted_field": f"a request header may say who the caller is; {_IDENTITY}, "
    "or say `cache: {public: true}` if the route answers everybody alike",
    "varies_by_caller": f"responses vary by who the caller is, and nobody was named; {_IDENTITY}",
    "varies": "responses vary on everything, or on too many headers",
    "too_long": "a body over 256 KiB is not kept",
}


class Events:
    """Writes events to a structlog logger, so many per second.

    Args:
        logger: Where to write; by default ``structlog.get_logger("budgetware")``, which follows
            whatever the application configures, before or after.
        clock: Monotonic seconds, for the rate limit.
        failed: Told that writing an event failed.

    """

    def __init__(
        self,
        logger: FilteringBoundLogger | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        failed: Callable[[], object] = lambda: None,
    ) -> None:
        self._logger = structlog.get_logger(names.SCOPE) if logger is None else logger
        self._limiter = Limiter(clock=clock)
        self._failed = failed

    def violations(self, record: RequestRecord) -> None:
        """Write one event for the request if it went over a rung, and one per stage that did.

        And one if it was answered with something smaller, which says why.
        """
        if record.answer is not None:
            self._degraded(record)
        if record.level is not None:
            figures = _figures(record.limit_s, record.elapsed_s, record.overage_s)
            self._violation(record, None, record.level, figures)
        for total in record.violations:
            if total.level is not None:
                figures = _figures(total.limit_s, total.spent_s, total.overage_s)
                if total.calls > total.calls_limit:
                    figures["calls"] = total.calls
                    figures["calls_limit"] = int(total.calls_limit)
                self._violation(record, total, total.level, figures)

    def internal_error(self, step: str, error: Exception, count: int) -> None:
        """Write that budgetware itself failed at *step*, for the *count*-th time."""
        suppressed = self._limiter.admit((names.EVENT_INTERNAL_ERROR, step))
        if suppressed is not None:
            self._write(
                "error",
                names.EVENT_INTERNAL_ERROR,
                step=step,
                error_type=type(error).__name__,
                error=plain(error),
                count=count,
                suppressed=suppressed,
            )

    def not_kept(self, route: str, tier: str | None, reason: str, detail: str) -> None:
        """Write that responses of a route are not kept, if whoever runs the service can help it."""
        hint = _HINTS.get(reason)
        if hint is not None:
            self._write(
                "info",
                names.EVENT_NOT_KEPT,
                route=route,
                tier=tier,
                reason=reason,
                detail=detail or None,
                hint=hint,
            )

    def say(self, event: str, method: str = "info", **fields: Value) -> None:
        """Write *event*, which does not come with requests and so needs no limit."""
        self._write(method, event, **fields)

    def _degraded(self, record: RequestRecord) -> None:
        suppressed = self._limiter.admit((names.EVENT_DEGRADED, record.route, record.answer))
        if suppressed is not None:
            self._write(
                "info",
                names.EVENT_DEGRADED,
                route=record.route,
                tier=record.tier,
                answer=record.answer,
                reason=record.reason,
                **_figures(record.limit_s, record.elapsed_s, record.overage_s),
                outcome=record.outcome.value,
                policy=record.policy or None,
                suppressed=suppressed,
                **_trace(),
            )

    def _violation(
        self,
        record: RequestRecord,
        total: StageTotal | None,
        level: Level,
        figures: dict[str, Value],
    ) -> None:
        stage = None if total is None else total.name
        operation = None if total is None else total.operation
        suppressed = self._limiter.admit((record.route, stage, operation, level))
        if suppressed is None:
            return
        self._write(
            _METHODS[level],
            names.EVENT_WARNING if level is Level.WARNING else names.EVENT_EXCEEDED,
            scope=names.SCOPE_REQUEST if total is None else names.SCOPE_STAGE,
            route=record.route,
            tier=record.tier,
            stage=stage,
            operation=operation,
            # Not "level": structlog's own processors write the log level there.
            budget_level=level.value,
            **figures,
            outcome=record.outcome.value,
            policy=record.policy or None,
            suppressed=suppressed,
            **_trace(),
        )

    def _write(self, method: str, event: str, **fields: Value) -> None:
        try:
            getattr(self._logger, method)(
                event,
                **{
                    key: plain(value) if isinstance(value, str) else value
                    for key, value in fields.items()
                    if value is not None
                },
            )
        except Exception:  # noqa: BLE001 - a closed stdout or a broken processor is not our request's
            self._failed()


def _figures(limit_s: float, actual_s: float, overage_s: float) -> dict[str, Value]:
    figures: dict[str, Value] = {"actual_ms": _ms(actual_s)}
    if limit_s < inf:
        figures = {"budget_ms": _ms(limit_s), **figures, "overage_ms": _ms(overage_s)}
    return figures


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _trace() -> dict[str, Value]:
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {
        "trace_id": trace.format_trace_id(context.trace_id),
        "span_id": trace.format_span_id(context.span_id),
    }
