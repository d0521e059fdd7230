"""Is it worth asking now? Not for a while after several failures in a row.

When the while is over one question is let through, and the others only after it was answered. If
it is never answered, another one follows after the next while, so nothing can get stuck.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final

MOST_ERRORS: Final = 3
PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 4.0

_JITTER = 0.2  # processes that lost one server must not come back to it in step


class Circuit:
    """Open after failures in a row, closed by one success.

    Needs no lock: of threads that race, some ask once too often.

    Args:
        random: From 0 up to 1, drawn anew for every pause.
        most_errors: Failures in a row that open it.
        pause_s: Seconds of the first pause; each further one is twice as long.
        longest_pause_s: The longest pause, but for a jitter of 20 %.

    """

    def __init__(
        self,
        random: Callable[[], float],
        *,
        most_errors: int = MOST_ERRORS,
        pause_s: float = PAUSE_S,
        longest_pause_s: float = LONGEST_PAUSE_S,
    ) -> None:
        self._random = random
        self._most_errors = most_errors
        self._first_pause_s = pause_s
        self._longest_pause_s = longest_pause_s
        self.succeeded()

    @property
    def is_open(self) -> bool:
        """Whether questions are held back."""
        return self._until_s > -inf

    def allows(self, now_s: float) -> bool:
        """Tell whether to ask now; ``succeeded`` or ``failed`` should follow."""
        until_s = self._until_s
        if until_s == -inf:
            return True
        # A clock that jumped back must not make the pause longer than any pause is.
        if now_s < until_s <= now_s + self._longest_pause_s * (1 + _JITTER):
            return False
        self._pause(now_s)
        return True

    def succeeded(self) -> None:
        """Take note of an answer."""
        self._errors = 0
        self._until_s = -inf
        self._pause_s = self._first_pause_s

    def failed(self, now_s: float) -> bool:
        """Take note of a failure; tell whether it was the one too many."""
        self._errors += 1
        return self._errors >= self._most_errors and self.open(now_s)

    def open(self, now_s: float) -> bool:
        """Ask no more for a while; tell whether that is new."""
        new = self._until_s == -inf
        if new:
            self._pause(now_s)
        return new

    def _pause(self, now_s: float) -> None:
        pause_s = min(self._pause_s, self._longest_pause_s)
        self._pause_s = pause_s * 2
        self._until_s = now_s + pause_s * (1 - _JITTER + 2 * _JITTER * self._random())
