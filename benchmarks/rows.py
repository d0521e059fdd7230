"""What is measured and what is promised of it. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table.

    Attributes:
        name: For ``--only`` and the results file.
        group: The module that measures it.
        what: What is divided by what.
        goal: The largest value that passes, the smallest with *at_least*; ``None`` without a goal.
        at_least: Whether larger is better.
        unit: What stands behind the value; nothing for a ratio.
        digits: Digits after the point.

    """

    name: str
    group: str
    what: str
    goal: float | None = None
    at_least: bool = False
    unit: str = ""
    digits: int = 2

    def passes(self, value: float) -> bool:
        """Tell whether *value* reaches the goal."""
        if self.goal is None:
            return True
        return value >= self.goal if self.at_least else value <= self.goal

    def written(self, value: float) -> str:
        """Return *value* as the table shows it."""
        return f"{value:.{self.digits}f}{self.unit}"


ROWS: Final = (
    Row(name="stage", group="stages", what="stage / FLOOR", goal=1.5),
    Row(name="stage-outside", group="stages", what="stage outside a request / FLOOR", goal=1.2),
    Row(name="asgi-0", group="requests_asgi", what="Starlette, 0 stages: total / bare", goal=1.18),
    Row(
        name="asgi-8",
        group="requests_asgi",
        what="Starlette, 8 stages + histograms: added / FLOOR8 added",
        goal=1.6,
    ),
    Row(
        name="asgi-8-timing",
        group="requests_asgi",
        what="the same + Server-Timing: added / FLOOR8 added",
        goal=2.3,
    ),
    Row(
        name="asgi-8-all",
        group="requests_asgi",
        what="8 stages, all that is on by default: added / 8 prometheus .time() added",
        goal=0.6,
    ),
    Row(
        name="asgi-8-all-timing",
        group="requests_asgi",
        what="the same + Server-Timing: added / 8 prometheus .time() added",
    ),
    Row(name="floor8", group="requests_asgi", what="FLOOR8: total / bare"),
    Row(name="asgi-8-total", group="requests_asgi", what="Starlette, 8 stages: total / bare"),
    Row(
        name="asgi-0-auto",
        group="requests_asgi",
        what="0 stages, traces=auto, no tracer: total / bare",
    ),
    Row(
        name="asgi-8-auto",
        group="requests_asgi",
        what="8 stages, traces=auto, no tracer: added / FLOOR8 added",
    ),
    Row(
        name="asgi-8-checked",
        group="requests_asgi",
        what="8 stages, longer than its least allocation: added / FLOOR8 added",
    ),
    Row(
        name="asgi-8-template",
        group="requests_asgi",
        what="8 stages, route from a template: added / FLOOR8 added",
    ),
    Row(
        name="callgrind-8",
        group="callgrind",
        what="8 stages + histograms, instructions: added / FLOOR8 added",
        goal=1.35,
    ),
    Row(
        name="callgrind-0",
        group="callgrind",
        what="0 stages, instructions: total / bare",
    ),
    Row(
        name="otel",
        group="peers",
        what="8 stages added / OpenTelemetry ASGI + 8 spans added",
        goal=1 / 30,
        digits=4,
    ),
    Row(
        name="sentry",
        group="peers",
        what="8 stages added / sentry ASGI + 8 spans added",
        goal=1 / 60,
        digits=4,
    ),
    Row(
        name="span",
        group="peers",
        what="8 stages added inside a recording span (traces=auto)",
        unit=" us",
        digits=1,
    ),
    Row(
        name="forecast-update",
        group="deciding",
        what="the forecast learns one duration",
        goal=1.0,
        unit=" us",
    ),
    Row(
        name="forecast-query",
        group="deciding",
        what="the forecast is asked at one point",
        goal=0.8,
        unit=" us",
    ),
    Row(
        name="forecast-request",
        group="deciding",
        what="a request of 8 stages, each decided on, and what it teaches",
        goal=20.0,
        unit=" us",
        digits=1,
    ),
    Row(
        name="forecast-floors",
        group="deciding",
        what="the same / FLOOR8 added",
        goal=5.0,
    ),
    Row(name="wsgi-8", group="requests_wsgi", what="Flask, 8 stages: total / bare", goal=1.25),
    Row(name="wsgi-0", group="requests_wsgi", what="Flask, 0 stages: total / bare"),
    Row(
        name="uvicorn",
        group="uvicorn_wrk",
        what="uvicorn + wrk, 8 stages: capacity by CPU, of bare",
        goal=75.0,
        at_least=True,
        unit=" %",
        digits=1,
    ),
    Row(
        name="uvicorn-floor8",
        group="uvicorn_wrk",
        what="uvicorn + wrk, FLOOR8: capacity by CPU, of bare",
        unit=" %",
        digits=1,
    ),
    Row(
        name="uvicorn-one-core",
        group="uvicorn_wrk",
        what="the same with server and wrk on one core, 8 stages",
        unit=" %",
        digits=1,
    ),
    Row(
        name="uvicorn-one-core-floor8",
        group="uvicorn_wrk",
        what="the same with server and wrk on one core, FLOOR8",
        unit=" %",
        digits=1,
    ),
    Row(
        name="import",
        group="imports",
        what="import budgetware, cold, over a bare interpreter",
        goal=40.0,
        unit=" ms",
        digits=1,
    ),
    Row(
        name="memory",
        group="memory",
        what="requests over 100k distinct paths: RSS growth after warm-up",
        goal=10.0,
        unit=" MB",
        digits=1,
    ),
    Row(
        name="reload-held",
        group="reload",
        what="a reload of the largest policy files: longest hold of the interpreter",
        goal=50.0,
        unit=" ms",
        digits=0,
    ),
    Row(
        name="reload-look",
        group="reload",
        what="a look at a policy file that did not change",
        unit=" us",
        digits=0,
    ),
    Row(
        name="live-goodput",
        group="live",
        what="3x capacity: answers in time, of capacity",
        goal=80.0,
        at_least=True,
        unit=" %",
        digits=0,
    ),
    Row(
        name="live-full",
        group="live",
        what="the same with `concurrency`: full answers in time, of capacity",
        goal=80.0,
        at_least=True,
        unit=" %",
        digits=0,
    ),
    Row(
        name="live-late-after",
        group="live",
        what="within 10 s of the load dropping: late",
        goal=1.0,
        unit=" %",
        digits=2,
    ),
    Row(
        name="live-health", group="live", what="failed health checks meanwhile", goal=0.0, digits=0
    ),
    Row(
        name="races-twice",
        group="races",
        what="races and cancels at +-1 ms: responses begun twice, or not at all",
        goal=0.0,
        digits=0,
    ),
    Row(
        name="races-lost",
        group="races",
        what="the same: cancellations of the server that got lost",
        goal=0.0,
        digits=0,
    ),
    Row(
        name="races-leaked",
        group="races",
        what="the same: slots or requests in flight left over, failures",
        goal=0.0,
        digits=0,
    ),
    Row(
        name="redis-failed",
        group="redis_down",
        what="Redis killed, frozen, restarted under 1,000 requests/s: failed",
        goal=0.0,
        digits=0,
    ),
    Row(
        name="redis-first",
        group="redis_down",
        what="added p99 in the first second without Redis",
        goal=20.0,
        unit=" ms",
        digits=1,
    ),
    Row(
        name="redis-after",
        group="redis_down",
        what="added p99 from then on",
        goal=0.5,
        unit=" ms",
    ),
    Row(
        name="redis-back",
        group="redis_down",
        what="shared again after it is back",
        goal=10.0,
        unit=" s",
        digits=1,
    ),
)
"""In the order of the table; the rows of a group are measured in one process."""


def groups(rows: tuple[Row, ...]) -> list[str]:
    """Return the groups of *rows* in their order, each once."""
    return list(dict.fromkeys(row.group for row in rows))
