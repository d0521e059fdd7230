"""Which engines belong to which meter provider, and how their durations leave.

An OpenTelemetry SDK runs the callbacks of the instrument that was made first and forgets those
of a second one of the same name. So engines that share a provider share one outlet, and what a
collection reports is the sum over all outlets whose provider is the one being collected.
"""

from __future__ import annotations

import os
import threading
import weakref
from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING, Final, Literal

from opentelemetry import context, metrics

from budgetware import names
from budgetware.telemetry.snapshot import (
    Admission,
    Limits,
    Snapshot,
    limits_of,
    request_attributes,
    stage_attributes,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.metrics import Histogram, MeterProvider

    from budgetware._core.engine import Engine
    from budgetware._core.policy import Policy
    from budgetware._core.tally import RequestSeries, StageSeries, Tally
    from budgetware.telemetry.tap import Tap

Histograms = Literal["auto", "aggregated", "recorded", "off"]

# Durations are recorded later, in the context of whichever request came last; its span must not
# become their exemplar. An empty context would do, but the SDK takes it for none at all.
# OpenTelemetry before 1.28 has no exemplars, and ``record`` takes no context.
_NO_REQUEST: Final = (
    (context.set_value(names.SCOPE, True, context.Context()),)  # noqa: FBT003 - the API's
    if "context" in signature(metrics.Histogram.record).parameters
    else ()
)

# Re-entrant: the garbage collector may finish an abandoned request of the same thread.
_lock = threading.RLock()
_recording = threading.local()
_outlets: list[Outlet] = []
_taps: weakref.WeakSet[Tap] = weakref.WeakSet()


@dataclass(slots=True)
class Watched:
    """An engine whose totals leave through an outlet.

    Its tally outlives it until the next collection, so that nothing is lost.
    """

    engine: weakref.ref[Engine]
    tally: Tally
    spreads: bool
    _limits: tuple[Policy, Limits] | None = None

    def limits_of(self, policy: Policy) -> Limits:
        """Return the limits of *policy*, worked out once."""
        if self._limits is None or self._limits[0] is not policy:
            self._limits = policy, limits_of(policy)
        return self._limits[1]


class Outlet:
    """One meter provider as it was given to us, and the engines behind it.

    Attributes:
        since_ns: When the first engine was watched, in nanoseconds since 1970.
        histograms: The instruments that single durations are recorded to.
        admission: Which attribute sets exist.

    """

    def __init__(self, provider: MeterProvider | None, since_ns: int) -> None:
        self._given = None if provider is None else _reference(provider)
        self._watched: list[Watched] = []
        self._departed: Snapshot | None = None
        self._has_served = False
        self._mode: Histograms | None = None
        self._equipped: list[Callable[[], MeterProvider | None]] = []
        self.since_ns = since_ns
        self.histograms: dict[str, Histogram] = {}
        self.admission = Admission()

    @property
    def provider(self) -> MeterProvider | None:
        """The provider now meant: the one given, or whichever is the global one at present."""
        return metrics.get_meter_provider() if self._given is None else self._given()

    @property
    def alive(self) -> bool:
        """Whether the provider that was given still exists."""
        return self._given is None or self._given() is not None

    def belongs_to(self, provider: MeterProvider | None) -> bool:
        """Tell whether this is the outlet for *provider*, ``None`` being whichever is global."""
        return provider is (None if self._given is None else self._given())

    def watch(self, engine: Engine, histograms: Histograms) -> Watched:
        """Report *engine* from now on."""
        watched = Watched(weakref.ref(engine), engine.tally, histograms != "off")
        with _lock:
            if self._mode is None and histograms in {"aggregated", "recorded"}:
                self._mode = histograms
            self._watched.append(watched)
        return watched

    def equip(self, make: Callable[[Outlet], None]) -> None:
        """Call *make* unless instruments were already made for the provider now meant."""
        provider = self.provider
        if provider is not None and all(one() is not provider for one in self._equipped):
            self._equipped.append(_reference(provider))
            make(self)

    def records(self) -> bool:
        """Tell whether durations are recorded one by one; settled for good when first needed.

        A change of mind later would leave half a histogram with the SDK and half with us.
        """
        if self._mode is None:
            provider = self.provider
            if provider is None or _stands_in(provider):
                # Nobody to record to yet; buckets keep the durations until somebody comes.
                return False
            served = any(tap.serves(provider) for tap in taps())
            self._mode = "aggregated" if served else "recorded"
        return self._mode == "recorded"

    def hand_over(self, watched: Watched) -> None:
        """Record what is pending, or sort it into buckets."""
        if not (watched.spreads and self.records()):
            watched.tally.absorb()
        # The SDK's own locks are not re-entrant: what the garbage collector finishes while this
        # thread is recording stays pending until the next time.
        elif not getattr(_recording, "busy", False):
            _recording.busy = True
            try:
                watched.tally.drain(self._record_request, self._record_stage)
            finally:
                _recording.busy = False

    def contribute(self, snapshot: Snapshot) -> None:
        """Add the totals of every engine there is or was behind this outlet to *snapshot*.

        An engine that has never served anything has none, and no limits to tell of.
        """
        self.fold()
        records = self.records()
        with _lock:
            # Both at once, so that an engine is in exactly one of the two.
            still = [one for one in self._watched if one.tally.counted]
            if self._departed is not None:
                snapshot.add(self._departed)
                self._departed.settle()
        for watched in still:
            self.hand_over(watched)
            snapshot.include(watched.tally, spreads=watched.spreads and not records)
            engine = watched.engine()
            if engine is not None:
                limits = watched.limits_of(engine.policy)
                snapshot.include_limits(limits)
                try:
                    now_s = engine.clock()
                except Exception:  # noqa: BLE001 - the clock has been told of
                    now_s = None
                snapshot.include_quotas(watched.tally, limits, now_s)

    def fault(self, step: str, error: Exception) -> None:
        """Count a failure of ours with every engine it may concern, and report it."""
        for watched in self.watched():
            engine = watched.engine()
            if engine is not None:
                engine.fault(step, error)

    def fold(self) -> None:
        """Add the last totals of engines that are no more together, and let go of them."""
        gone = [one for one in self.watched() if one.engine() is None]
        for watched in gone:
            self.hand_over(watched)
        with _lock:
            # Another thread may have been quicker.
            gone = [one for one in gone if any(one is kept for kept in self._watched)]
            self._watched = [kept for kept in self._watched if all(kept is not one for one in gone)]
            for watched in gone:
                if watched.tally.counted:
                    departed = self._departed = self._departed or Snapshot(self.admission)
                    departed.include(watched.tally, spreads=watched.spreads and not self.records())
                self._has_served = self._has_served or not watched.tally.idle

    @property
    def has_served(self) -> bool:
        """Whether any engine there is or was behind this outlet has served in this process."""
        return self._has_served or not all(watched.tally.idle for watched in self.watched())

    def begin_anew(self) -> None:
        """Note, in a forked child, that so far it was its parent that has served."""
        self._has_served = False

    def watched(self) -> list[Watched]:
        """Return the engines behind this outlet."""
        with _lock:
            return list(self._watched)

    def _record_request(self, series: RequestSeries, values: list[float]) -> None:
        self._record(names.REQUEST_DURATION, request_attributes(series), values)

    def _record_stage(self, series: StageSeries, values: list[float]) -> None:
        self._record(names.STAGE_DURATION, stage_attributes(series), values)

    def _record(self, metric: str, key: tuple[tuple[str, str], ...], values: list[float]) -> None:
        attributes = dict(self.admission.admit(metric, key))
        record = self.histograms[metric].record
        for value in values:
            record(max(0.0, value), attributes, *_NO_REQUEST)


def outlet_of(provider: MeterProvider | None, now_ns: int) -> Outlet:
    """Return the outlet of *provider*, ``None`` for the global one."""
    with _lock:
        _outlets[:] = [one for one in _outlets if one.alive]
        for outlet in _outlets:
            if outlet.belongs_to(provider):
                return outlet
        outlet = Outlet(provider, now_ns)
        _outlets.append(outlet)
        return outlet


def outlets_of(provider: MeterProvider | None) -> list[Outlet]:
    """Return every outlet whose provider is now *provider*."""
    with _lock:
        found = list(_outlets)
    return [outlet for outlet in found if outlet.provider is provider]


def taps() -> list[Tap]:
    """Return the taps of our readers that are alive in this process."""
    with _lock:
        return list(_taps)


def connect(tap: Tap) -> None:
    """Take note of a reader of ours."""
    with _lock:
        _taps.add(tap)


def _stands_in(provider: MeterProvider) -> bool:
    # The API's own providers record nothing: the placeholder until a global one is set, the no-op.
    return type(provider).__module__.startswith(metrics.__name__)


def _reference(provider: MeterProvider) -> Callable[[], MeterProvider | None]:
    try:
        return weakref.ref(provider)
    except TypeError:  # a class with slots and no room for it; such a provider is kept alive
        return lambda: provider


def _begin_anew() -> None:
    # A thread of the parent may have held one of the locks at the moment of the fork.
    global _lock  # noqa: PLW0603 - one lock for a handful of lists
    _lock = threading.RLock()
    for tap in _taps:
        tap.renew_lock()
    for outlet in _outlets:
        outlet.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
