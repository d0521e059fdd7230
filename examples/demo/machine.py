"""How busy the machine is: how often a timer of the demo's own goes off too late.

A promise can only be kept by who gets the processor in time. The demo's client runs in another
process than the service, so nothing the service does wrong makes these timers late.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

LATE_S: Final = 0.003
"""What the policy keeps in reserve for a signal: a timer later than that breaks the promise."""

BUSY: Final = 0.1
"""The share of late timers above which lateness says more of the machine than of the service."""

_EVERY_S: Final = 0.01


class Timers:
    """Sets one timer after the other, and counts those that go off late.

    Args:
        clock: Monotonic seconds.
        sleep: Waits for so many of them.

    """

    def __init__(
        self,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._late: list[bool] = []

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            due_s = self._clock() + _EVERY_S
            await self._sleep(_EVERY_S)
            self._late.append(self._clock() - due_s > LATE_S)

    def late(self) -> float:
        """Return the share of late ones since it was last asked for."""
        late, self._late = self._late, []
        return sum(late) / (len(late) or 1)
