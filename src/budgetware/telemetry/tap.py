"""What one of our readers needs to know: whose metrics it collects, and what it reported last."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING

from budgetware.telemetry.spread import NO_EXTREMES, Extremes, Spread, wider

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.metrics import MeterProvider

    from budgetware.telemetry.snapshot import Attributes, Snapshot

    Spreads = dict[str, dict[Attributes, Spread]]


class Tap:
    """A reader's place in the collection of one provider."""

    def __init__(self) -> None:
        self._provider: weakref.ref[MeterProvider] | None = None
        self._reported: Spreads = {}
        self._extremes: dict[tuple[str, Attributes], Extremes] = {}
        self._deltas = False
        # Re-entrant: the garbage collector may finish an abandoned request of the same thread.
        self._lock = threading.RLock()
        self.reported_ns: int | None = None

    def renew_lock(self) -> None:
        """Make a new lock, in a forked child whose parent may have held this one."""
        self._lock = threading.RLock()

    def bind(self, provider: MeterProvider) -> None:
        """Note that the reader belongs to *provider*."""
        self._provider = weakref.ref(provider)

    @property
    def bound(self) -> bool:
        """Whether it is known whom the reader belongs to."""
        return self._provider is not None

    def serves(self, provider: MeterProvider) -> bool:
        """Tell whether the reader collects *provider*, or may yet come to do so."""
        return self._provider is None or self._provider() is provider

    def widen(self, spreads: Mapping[str, Mapping[Attributes, Spread]]) -> None:
        """Note the extremes that are new in *spreads*, whoever is collecting them."""
        if self._deltas:
            with self._lock:
                for metric, by_attributes in spreads.items():
                    for attributes, spread in by_attributes.items():
                        had = self._extremes.get((metric, attributes), NO_EXTREMES)
                        self._extremes[metric, attributes] = wider(had, spread.latest)

    def since_last(self, snapshot: Snapshot, at_ns: int) -> Spreads:
        """Return what *snapshot* has beyond the last one this was asked for."""
        with self._lock:
            found: Spreads = {}
            for metric, by_attributes in snapshot.spreads.items():
                reported = self._reported.get(metric, {})
                for attributes, spread in by_attributes.items():
                    had = reported.get(attributes)
                    if had is None:
                        found.setdefault(metric, {})[attributes] = spread
                    elif spread.count != had.count:
                        extremes = self._extremes.get((metric, attributes), NO_EXTREMES)
                        added = spread.since(had, extremes)
                        found.setdefault(metric, {})[attributes] = added
            self._reported = {metric: dict(found) for metric, found in snapshot.spreads.items()}
            self._extremes = {}
            self._deltas = True
            self.reported_ns = at_ns
            return found
