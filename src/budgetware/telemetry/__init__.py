"""Records and totals on their way out: OpenTelemetry metrics and spans, structlog events.

``Telemetry`` is the door. Making one starts no thread, configures no provider and no logger, and
registers nothing with ``atexit``: whatever the application has set up, before or after, is used.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, get_args

from budgetware import names
from budgetware.telemetry.events import Events, Value
from budgetware.telemetry.metrics import make_instruments
from budgetware.telemetry.outlet import Histograms, outlet_of
from budgetware.telemetry.spans import span_observers

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider
    from structlog.typing import FilteringBoundLogger

    from budgetware._core.audience import Observing
    from budgetware._core.engine import Engine
    from budgetware._core.record import Observer
    from budgetware.telemetry.outlet import Outlet, Watched

__all__ = ["Histograms", "Telemetry", "Traces"]

Traces = Literal["auto", "stages", "off"]

RECORD_AT: Final = 8
"""Requests after which pending durations are recorded; at some 6 µs each, more would be felt."""


class Telemetry:
    """Where an engine's facts go.

    Args:
        meter_provider: Makes the metrics; the global provider by default.
        tracer_provider: Makes the stages' spans; the global provider by default.
        logger: A structlog logger; ``structlog.get_logger("budgetware")`` by default.
        histograms: How durations reach OpenTelemetry: ``aggregated`` in our own buckets, through
            one of our readers; ``recorded`` one by one, through any; ``off``; ``auto`` is the
            first if one of our readers collects the provider, else the second.
        traces: ``auto`` for attributes on the current span, ``stages`` for a child span per
            stage as well, ``off`` for neither.
        clock: Monotonic seconds, for the rate limit of log events.
        wall_ns: The time of day in nanoseconds since 1970.

    Attributes:
        observers: For ``Engine(observers=)``.
        alarms: For ``Engine(alarms=)``.
        on_fault: For ``Engine(on_fault=)``.
        on_not_kept: For ``Engine(on_not_kept=)``.

    Raises:
        ValueError: *histograms* or *traces* is none of the words above.

    """

    def __init__(  # noqa: PLR0913 - the names FastAPI and Starlette use, and two words
        self,
        meter_provider: MeterProvider | None = None,
        tracer_provider: TracerProvider | None = None,
        logger: FilteringBoundLogger | None = None,
        *,
        histograms: Histograms = "auto",
        traces: Traces = "auto",
        clock: Callable[[], float] = time.monotonic,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        _check("histograms", histograms, get_args(Histograms))
        _check("traces", traces, get_args(Traces))
        self._meter_provider = meter_provider
        self._histograms = histograms
        self._wall_ns = wall_ns
        self._engine: Engine | None = None
        self._said: set[str] = set()
        self._events = Events(logger, clock=clock, failed=self._log_failed)
        self.observers: tuple[Observing, ...] = span_observers(traces, tracer_provider, wall_ns)
        self.alarms: tuple[Observer, ...] = (self._events.violations,)
        self.on_fault = self._events.internal_error
        self.on_not_kept = self._events.not_kept

    def watch(self, engine: Engine) -> None:
        """Export the totals of *engine* from now on, and see to its pending durations.

        Several engines may share a provider; their totals are added up. A fault of the provider
        is counted and reported like any other and leaves the engine without metrics.
        """
        self._engine = engine
        try:
            outlet = outlet_of(self._meter_provider, self._wall_ns())
            outlet.equip(partial(make_instruments, bounds=engine.tally.bounds))
            watched = outlet.watch(engine, self._histograms)
            engine.absorb = partial(self._hand_over, outlet, watched)
            outlet.fold()
        except Exception as error:  # noqa: BLE001 - the application starts all the same
            engine.fault("watch", error)

    def no_policy(self) -> None:
        """Say, once, that there is no policy: requests are measured and nothing is promised."""
        hint = "add budgetware.yaml or set BUDGETWARE_POLICY"
        self._say_once(names.EVENT_NO_POLICY, "info", hint)

    def nested(self) -> None:
        """Say, once, that requests arrive which another door has on the account already."""
        hint = "a middleware with the same policy is around this one; remove one of the two"
        self._say_once(names.EVENT_NESTED, "warning", hint)

    def no_service(self) -> None:
        """Say, once, that others on the shared server are not told apart from this service."""
        hint = "give the policy a `service`, or the store and the rates a `prefix` of their own"
        self._say_once(names.EVENT_NO_SERVICE, "warning", hint)

    def no_clock(self) -> None:
        """Say, once, that the clock neither answers nor cancels on the loop there is."""
        hint = (
            "on trio the timer neither answers nor cancels, and nobody waits for a slot, which "
            "takes asyncio; what is decided as a request begins, at its stages and by "
            "budget.degrade is decided here, too"
        )
        self._say_once(names.EVENT_NO_CLOCK, "warning", hint)

    def no_fallback(self, routes: Iterable[str]) -> None:
        """Say, once, that these routes would answer with a fallback they do not have."""
        hint = (
            "give the middleware `fallbacks`, a function by route, or take `fallback` out of the "
            "routes' `answers`"
        )
        self._say_once(names.EVENT_NO_FALLBACK, "warning", hint, routes=", ".join(routes))

    def say(self, event: str, method: str = "info", **fields: Value) -> None:
        """Write a log event that does not come with requests, such as a reload; never raises.

        Args:
            event: Its name, one of ``budgetware.names``.
            method: The logger's method: ``info``, ``warning`` or ``error``.
            fields: Flat keys with units; ``None`` is left out.

        """
        self._events.say(event, method, **fields)

    def _say_once(self, event: str, method: str, hint: str, **fields: Value) -> None:
        if event not in self._said:
            self._said.add(event)
            self.say(event, method, **fields, hint=hint)

    def _hand_over(self, outlet: Outlet, watched: Watched) -> None:
        # Bound to this object on purpose: as long as the engine lives, so does the provider.
        outlet.hand_over(watched)
        engine = watched.engine()
        if engine is not None and outlet.records():
            engine.absorb_at = RECORD_AT

    def _log_failed(self) -> None:
        if self._engine is not None:
            self._engine.tally.fault("log")


def _check(name: str, value: str, words: tuple[str, ...]) -> None:
    if value not in words:
        raise ValueError(f"{name} must be one of {', '.join(words)}, not {value!r}")
