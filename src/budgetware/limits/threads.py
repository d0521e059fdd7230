"""May this caller go on, asked from a thread? The shared answer, or this process's own.

Redis is asked once, for ``timeout_s`` and half of what the request has left at most; whatever goes
wrong, the answer is that of this process's part of the rate, and never an exception. After
several failures in a row nobody waits for the server until it answers again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable
from math import inf
from typing import Final

from budgetware._core.rate import MOST_IDENTITIES
from budgetware.answers.redis_silence import server_at
from budgetware.errors import MissingExtra
from budgetware.limits.circuit import Circuit
from budgetware.limits.connections import Connections
from budgetware.limits.part import LocalPart
from budgetware.limits.script import key_of, numbers_of
from budgetware.misuse import check_seconds, check_text

try:
    from redis.exceptions import ResponseError
except ImportError as error:
    raise MissingExtra("redis", "redis") from error

TIMEOUT_S: Final = 0.015
LONGEST_S: Final = 60.0
LEAST_PART: Final = 0.25
"""With less than this part of the timeout nobody is asked: it would say nothing of the server."""

PREFIX: Final = "budgetware:rate:"


class SharedRates:
    """Rates that several processes keep together in Redis or Valkey, for threads.

    Safe to use from many threads, and across a fork.

    Args:
        url: The server; ``redis://``, ``rediss://`` or ``unix://``.
        workers: How many processes share the rates, on all hosts together. Each falls back to
            this part of them.
        prefix: What all keys begin with. The policy's ``service`` and environment are in every
            key, too; without a ``service`` it needs to be one of the service's own.
        timeout_s: The longest one question may take.
        most_identities: Callers this process remembers by itself.
        draw: From 0 up to 1, for the length of pauses.

    Raises:
        TypeError: An argument is of another type.
        ValueError: *url* cannot be read, *workers* is below 1, or *timeout_s* is not more than 0.

    Attributes:
        circuit: Whether the server is asked at the moment.
        alone: How many requests were judged by this process alone.
        has_own_prefix: Whether its keys do not begin as everybody's.

    """

    def __init__(  # noqa: PLR0913 - all but two have a default
        self,
        url: str,
        *,
        workers: int,
        prefix: str = PREFIX,
        timeout_s: float = TIMEOUT_S,
        most_identities: int = MOST_IDENTITIES,
        draw: Callable[[], float] = random.random,
    ) -> None:
        check_text("prefix", prefix)
        check_seconds("timeout_s", timeout_s, LONGEST_S)
        self.circuit = Circuit(draw)
        self.alone = 0
        self._part = LocalPart(workers, most_identities)
        self._connections = Connections(url, timeout_s)
        self._server = server_at(self._connections.address)
        self._prefix = prefix
        self.has_own_prefix = prefix != PREFIX
        self._timeout_s = timeout_s
        self._least_s = timeout_s * LEAST_PART

    def take(  # noqa: PLR0913, PLR0917 - those of Rates.take, and the time that is left
        self,
        tier: str | None,
        identity: Hashable,
        rate_per_s: float,
        burst: float,
        now_s: float,
        remaining_s: float = inf,
        namespace: str = "",
    ) -> float:
        """Admit one request and return 0, or return the seconds until one would be admitted.

        Args:
            tier: As for ``Rates.take``, like the others but for the last two.
            identity: A ``str``, or something whose ``repr`` is the same in every process.
            rate_per_s: Requests per second in the long run.
            burst: Requests that may come at once.
            now_s: Monotonic seconds.
            remaining_s: What the request has left; no question takes more than half of it.
            namespace: The service and its environment: others on the same server share nothing.

        """
        wait_s = None
        within_s = min(self._timeout_s, remaining_s / 2)
        numbers = numbers_of(rate_per_s, burst)
        if self._server.silent:
            self.circuit.open(now_s)
        if numbers and within_s >= self._least_s and self.circuit.allows(now_s):
            silent = True
            try:
                key = key_of(self._prefix, tier, identity, namespace)
                wait_s = self._connections.ask(key, *numbers, within_s)
            except ResponseError:
                silent = False  # it is there, and may serve others better
            except Exception:  # noqa: BLE001 - no failure of the server is one of the request
                wait_s = None
            if wait_s is not None:
                self.circuit.succeeded()
                self._server.answered()
            elif self.circuit.failed(now_s) and silent:
                self._server.silent = True
        if wait_s:
            return wait_s
        own_s = self._part.take(tier, identity, rate_per_s, burst, now_s)
        if wait_s is not None:
            return wait_s
        self.alone += 1
        return own_s

    def close(self) -> None:
        """Close idle connections; ``take`` goes on to work, and opens new ones."""
        self._connections.close()
