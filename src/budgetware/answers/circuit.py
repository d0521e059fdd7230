"""Is it worth asking a server that did not answer? A probe finds out, never a request.

While the circuit is open they are told so at once, and one probe at a time,
outside any request, closes it again.
"""

from __future__ import annotations

import threading
from typing import Final

FAILURES_TO_OPEN: Final = 3
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 4.0
PROBE_LEASE_S: Final = 2.0
"""A probe that has not come back by then is taken for lost, and another may start."""


class Circuit:
    """Closed while operations succeed; opened by failures in a row; closed again by a probe.

    ``now`` is monotonic seconds everywhere.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures = 0
        self._pause_s = FIRST_PAUSE_S
        self._opened: float | None = None
        self._next_probe = 0.0

    @property
    def is_open(self) -> bool:
        """Whether operations are not worth starting."""
        return self._opened is not None

    def succeeded(self) -> None:
        """Take note of an operation that worked."""
        if self._failures or self._opened is not None:
            with self._lock:
                self._failures = 0
                self._opened = None
                self._pause_s = FIRST_PAUSE_S

    def failed(self, now: float) -> None:
        """Take note of an operation that did not work."""
        with self._lock:
            self._failures += 1
            if self._opened is None and self._failures >= FAILURES_TO_OPEN:
                self._opened = now
                self._next_probe = now + self._pause_s

    def probe_failed(self, now: float) -> None:
        """Take note of a probe that did not work; the next one waits twice as long."""
        with self._lock:
            self._pause_s = min(LONGEST_PAUSE_S, self._pause_s * 2)
            self._next_probe = now + self._pause_s

    def may_probe(self, now: float) -> bool:
        """Tell whether the caller is to start the next probe; only one caller is."""
        if self._opened is None or now < self._next_probe:
            return False
        with self._lock:
            if self._opened is None or now < self._next_probe:
                return False
            self._next_probe = now + PROBE_LEASE_S
            return True
