"""What a process runs: one engine, wired to the policy file and to telemetry."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, ClassVar, Literal, Self, TypedDict

from budgetware._core.engine import Engine, Observing
from budgetware._core.policy import Policy
from budgetware._core.record import Observer
from budgetware.telemetry import Telemetry

if TYPE_CHECKING:
    from typing import Unpack

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider
    from structlog.typing import FilteringBoundLogger


class Options(TypedDict, total=False):
    """What both doors and ``Runtime.start`` take; everything is optional.

    Attributes:
        policy: A policy, or the file to read it from. By default the file is looked for:
            ``BUDGETWARE_POLICY``, ``./budgetware.yaml``, ``[tool.budgetware]`` in
            ``pyproject.toml``; without any, requests are measured and nothing is promised.
        environment: The layer of the file's ``environments``; by default ``BUDGETWARE_ENV``.
        reload: ``"file"`` puts a changed file in force within a second; a signal's number does so
            when that signal comes. Off by default.
        meter_provider: By default the global one.
        tracer_provider: By default the global one.
        logger: A structlog logger; by default ``structlog.get_logger("budgetware")``.
        histograms: How durations reach OpenTelemetry: ``"aggregated"`` by one of our readers,
            ``"recorded"`` one by one through any provider, ``"off"``; ``"auto"`` is the first as
            soon as such a reader exists, the second otherwise.
        traces: ``"auto"`` puts attributes on the current span, ``"stages"`` also makes a child
            span per stage, ``"off"`` does neither.
        observers: Called with every ``RequestRecord`` after the answer has left.
        clock: Monotonic seconds.

    """

    policy: Policy | str | Path | None
    environment: str | None
    reload: Literal["file"] | int | None
    meter_provider: MeterProvider | None
    tracer_provider: TracerProvider | None
    logger: FilteringBoundLogger | None
    histograms: Literal["auto", "aggregated", "recorded", "off"]
    traces: Literal["auto", "stages", "off"]
    observers: Sequence[Observer]
    clock: Callable[[], float]


class Runtime:
    """An engine at work, with its telemetry."""

    _current: ClassVar[Runtime | None] = None
    _starting: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, policy: Policy, telemetry: Telemetry, options: Options) -> None:
        self.telemetry = telemetry
        self.engine = Engine(
            policy,
            clock=options.get("clock", perf_counter),
            observers=(
                *telemetry.observers,
                *(Observing(observer) for observer in options.get("observers", ())),
            ),
            alarms=telemetry.alarms,
            on_fault=telemetry.on_fault,
        )
        telemetry.watch(self.engine)

    @classmethod
    def start(cls, **options: Unpack[Options]) -> Self:
        """Read the policy, wire an engine to telemetry and make it this process's current one.

        Raises:
            PolicyError: The policy file cannot be used.

        """
        policy = options.get("policy")
        if not isinstance(policy, Policy):
            from budgetware.policyfile import load  # noqa: PLC0415 - a policy may come from code

            policy = load(policy, environment=options.get("environment"))
        telemetry = Telemetry(
            meter_provider=options.get("meter_provider"),
            tracer_provider=options.get("tracer_provider"),
            logger=options.get("logger"),
            histograms=options.get("histograms", "auto"),
            traces=options.get("traces", "auto"),
        )
        runtime = cls(policy, telemetry, options)
        Runtime._current = runtime
        return runtime

    @classmethod
    def current(cls) -> Runtime:
        """Return the runtime of the door that was opened last, or one for the discovered policy.

        Raises:
            PolicyError: There is no door yet and the policy file cannot be used.

        """
        with cls._starting:
            return cls._current or cls.start()
