"""May this caller go on, asked from a coroutine? The shared answer, or this process's own.

What ``limits.threads`` is to threads, on asyncio. On another event loop, where redis-py does not
run, every answer is this process's own.
"""

from __future__ import annotations

import asyncio
import random
import weakref
from collections.abc import Callable, Hashable
from functools import partial
from math import inf
from typing import Any

from budgetware._core.rate import MOST_IDENTITIES
from budgetware.answers.redis_room import Room
from budgetware.answers.redis_silence import server_at
from budgetware.answers.redis_terms import made_from
from budgetware.errors import MissingExtra
from budgetware.limits.circuit import Circuit
from budgetware.limits.connections import MOST_OPEN, bounded_options
from budgetware.limits.part import LocalPart
from budgetware.limits.script import DIGEST, SCRIPT, key_of, numbers_of, wait_s_of
from budgetware.limits.threads import LEAST_PART, LONGEST_S, PREFIX, TIMEOUT_S
from budgetware.limits.turns import Turns
from budgetware.misuse import check_seconds, check_text

try:
    from redis.asyncio import Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import MaxConnectionsError, NoScriptError, ResponseError
except ImportError as error:
    raise MissingExtra("redis", "redis") from error


class AsyncSharedRates:
    """Rates that several processes keep together in Redis or Valkey, for coroutines.

    Each event loop has connections of its own. A question that is cancelled, or whose time is up,
    takes its connection with it, so that no answer ever reaches somebody else.

    Args:
        url: The server; ``redis://``, ``rediss://`` or ``unix://``.
        workers: How many processes share the rates, on all hosts together. Each falls back to
            this part of them.
        prefix: What all keys begin with. The policy's ``service`` and environment are in every
            key, too; without a ``service`` it needs to be one of the service's own.
        timeout_s: The longest one question may take, connecting included.
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
        self._prefix = prefix
        self.has_own_prefix = prefix != PREFIX
        self._timeout_s = timeout_s
        self._least_s = timeout_s * LEAST_PART
        self._url = url
        self._room = Room(MOST_OPEN)
        self._turns: weakref.WeakKeyDictionary[Any, Turns] = weakref.WeakKeyDictionary()
        self._clients: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
        made = self._new_client()  # an unreadable URL is found at the start
        self._server = server_at(made.connection_pool.connection_kwargs)

    async def take(  # noqa: PLR0913, PLR0917 - those of Rates.take, and the time that is left
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

        The arguments are those of ``SharedRates.take``. A cancellation from outside is passed on.
        """
        wait_s = None
        within_s = min(self._timeout_s, remaining_s / 2)
        numbers = numbers_of(rate_per_s, burst)
        if self._server.silent and self.circuit.open(now_s):
            self._room.lost()
        if numbers and within_s >= self._least_s and self.circuit.allows(now_s):
            wait_s = await self._shared((tier, identity, namespace), numbers, within_s, now_s)
        if wait_s:
            return wait_s
        own_s = self._part.take(tier, identity, rate_per_s, burst, now_s)
        if wait_s is not None:
            return wait_s
        self.alone += 1
        return own_s

    async def aclose(self) -> None:
        """Close this event loop's connections; ``take`` goes on to work, and opens new ones."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    async def _shared(
        self,
        caller: tuple[str | None, Hashable, str],
        numbers: tuple[str, str],
        within_s: float,
        now_s: float,
    ) -> float | None:
        """Return what the server says, ``None`` when it says nothing in time."""
        counts = silent = True
        cancelled = _cancelling()
        try:
            turns = self._turns_here()
            async with asyncio.timeout(within_s):
                counts = False  # the time may be up before anything was asked
                key = key_of(self._prefix, *caller)
                waited = await turns.take()
                try:
                    if waited and self.circuit.is_open:
                        return None
                    counts = True
                    wait_s = await self._ask(key, *numbers)
                finally:
                    under_way = turns.under_way
                    turns.give_back()
        except MaxConnectionsError:
            counts, wait_s = False, None  # many at once are no fault of the server
        except ResponseError:
            silent, wait_s = False, None  # it is there, and may serve others better
        except Exception:  # noqa: BLE001 - no failure of the server is one of the request
            wait_s = None
        if wait_s is not None:
            self.circuit.succeeded()
            self._room.answered(under_way)
            self._server.answered()
        elif counts:
            self._failed(now_s, silent=silent)
        if _cancelling() > cancelled:
            # redis-py asks by way of ``wait_for``, which before Python 3.12 loses a cancellation in
            # the turn in which it ends (python/cpython#86296).
            raise asyncio.CancelledError
        return wait_s

    def _failed(self, now_s: float, *, silent: bool) -> None:
        self._room.missed()
        if self.circuit.failed(now_s):
            self._room.lost()
            if silent:
                self._server.silent = True

    async def _ask(self, key: str, interval: str, tolerance: str) -> float | None:
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            client = self._clients[loop] = self._new_client()
        try:
            reply = await client.evalsha(DIGEST, 1, key, interval, tolerance)
        except NoScriptError:
            # The server was restarted or another one took over; this makes it known again.
            reply = await client.eval(SCRIPT, 1, key, interval, tolerance)
        return wait_s_of(reply)

    def _turns_here(self) -> Turns:
        loop = asyncio.get_running_loop()
        turns = self._turns.get(loop)
        if turns is None:
            turns = self._turns[loop] = Turns(self._room)
        return turns

    def _new_client(self) -> Any:
        options = bounded_options(self._timeout_s) | {"max_connections": MOST_OPEN}
        return made_from(self._url, partial(Redis.from_url, retry=Retry(NoBackoff(), 0), **options))


def _cancelling() -> int:
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()
