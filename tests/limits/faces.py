"""Both kinds of shared rates, asked the same way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf

from budgetware.limits.tasks import AsyncSharedRates
from budgetware.limits.threads import SharedRates

PATIENT_S = 2.0
"""On a loaded machine, an answer that is on its way is waited for."""


class Threaded:
    """``SharedRates``."""

    def __init__(self, url: str, workers: int = 4, timeout_s: float = PATIENT_S) -> None:
        self.rates = SharedRates(url, workers=workers, timeout_s=timeout_s, draw=lambda: 0.5)

    def take(
        self,
        identity: str | None,
        *,
        rate: float = 0.001,
        burst: float = 5.0,
        at_s: float = 100.0,
        remaining_s: float = inf,
    ) -> float:
        """Ask."""
        return self.rates.take("pro", identity, rate, burst, at_s, remaining_s)

    @property
    def alone(self) -> int:
        """How often it was not Redis that answered."""
        return self.rates.alone

    def close(self) -> None:
        """Close its connections."""
        self.rates.close()


class Looped:
    """``AsyncSharedRates`` on an event loop of its own."""

    def __init__(self, url: str, workers: int = 4, timeout_s: float = PATIENT_S) -> None:
        self.rates = AsyncSharedRates(url, workers=workers, timeout_s=timeout_s, draw=lambda: 0.5)
        self.runner = asyncio.Runner()
        self.closed = False

    def take(
        self,
        identity: str | None,
        *,
        rate: float = 0.001,
        burst: float = 5.0,
        at_s: float = 100.0,
        remaining_s: float = inf,
    ) -> float:
        """Ask."""
        return self.runner.run(self.rates.take("pro", identity, rate, burst, at_s, remaining_s))

    @property
    def alone(self) -> int:
        """How often it was not Redis that answered."""
        return self.rates.alone

    def close(self) -> None:
        """Close its connections and its loop."""
        if not self.closed:
            self.closed = True
            self.runner.run(self.rates.aclose())
            self.runner.close()


Make = Callable[..., Threaded | Looped]


def is_open(face: Threaded | Looped) -> bool:
    """Tell whether the server is not being asked."""
    return face.rates.circuit.is_open


def admitted(face: Threaded | Looped, count: int, **how: float) -> int:
    """Return how many of *count* requests of one caller are admitted."""
    return sum(face.take("ann", **how) == 0.0 for _ in range(count))
