"""How do processes share responses through Redis or Valkey? Without ever waiting long for it.

Whatever goes wrong is a miss. Failures in a row open the circuit; then nobody asks any more
except a probe of our own, which no request waits for.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from budgetware.answers.circuit import Circuit
from budgetware.answers.errands import Errands
from budgetware.answers.redis_terms import MOST_AT_ONCE, OPERATION_S, RedisTerms, made_from
from budgetware.answers.stored import Found, Stored
from budgetware.answers.tee import MOST_BODY_BYTES
from budgetware.errors import MissingExtra

if TYPE_CHECKING:
    import redis
    import redis.asyncio

PREFIX: Final = "budgetware:answers"
PROBE_S: Final = 0.25
"""The longest a probe waits; it has nobody waiting for it, and may have to connect."""
THREADS: Final = 4


class RedisStore:
    """Keeps responses in Redis or Valkey, for threads; every call is bounded and none raises.

    Operations run on a few threads of the store's own, so that a caller's wait ends on time even
    while a name is being looked up or a reply trickles in.

    Args:
        url: Such as ``redis://localhost:6379/0``, ``rediss://`` or ``unix://``.
        prefix: Begins every name in the server. The policy's ``service`` and environment are in
            every name, too; without a ``service`` it needs to be one of the service's own.
        secret: When given, entries made without it are misses; at most 64 bytes.
        operation_s: The longest wait for one operation, at most a second.
        most_body_bytes: A longer body is neither kept nor read.

    Raises:
        MissingExtra: ``redis`` is not installed.
        TypeError: An argument is of another type: *secret* is bytes.
        ValueError: The address or a bound is no good.

    Attributes:
        has_own_prefix: Whether its names do not begin as everybody's.

    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = PREFIX,
        secret: bytes = b"",
        operation_s: float = OPERATION_S,
        most_body_bytes: int = MOST_BODY_BYTES,
    ) -> None:
        try:
            import redis  # noqa: PLC0415 - an extra
            from redis.backoff import NoBackoff  # noqa: PLC0415
            from redis.connection import parse_url  # noqa: PLC0415
            from redis.retry import Retry  # noqa: PLC0415
        except ImportError:
            raise MissingExtra("redis", "redis") from None
        address = made_from(url, parse_url)
        self.has_own_prefix = prefix != PREFIX
        self._terms = RedisTerms(address, prefix, secret, operation_s, most_body_bytes)
        pool = redis.ConnectionPool(**self._terms.options(), retry=Retry(NoBackoff(), 0))
        self._client: redis.Redis = redis.Redis.from_pool(pool)
        self._errands = Errands("budgetware-redis", THREADS, MOST_AT_ONCE)

    @property
    def circuit(self) -> Circuit:
        """Whether the server is being asked."""
        return self._terms.circuit

    def get(self, key: bytes, now: float, wait_s: float) -> Found | None:
        """Return what is kept under *key*, ``None`` when it cannot be had within *wait_s*."""
        if not self._worth_asking(now) or not wait_s > 0:
            return None
        bound_s = min(wait_s, self._terms.operation_s)
        task = partial(self._read, self._terms.name(key), now)
        done, reply = self._errands.run(task, bound_s)
        if done:
            return None if reply is None else self._terms.found(key, reply)
        if done is False and bound_s == self._terms.operation_s:
            # The thread may be stuck where no time-out of a socket reaches it.
            self._terms.failed(now)
        return None

    def put(self, key: bytes, stored: Stored, resident_s: float, now: float) -> None:
        """Begin to keep *stored*; the caller does not wait."""
        if self._worth_asking(now):
            entry = self._terms.entry(key, stored, resident_s)
            if entry is not None:
                self._errands.send(partial(self._write, self._terms.name(key), entry, now))

    def close(self) -> None:
        """Let go of connections and threads."""
        self._errands.close()
        self._client.close()

    def _worth_asking(self, now: float) -> bool:
        if self._terms.may_ask(now):
            return True
        if self._terms.circuit.may_probe(now):
            self._errands.send(partial(self._probe, now))
        return False

    def _read(self, name: bytes, now: float) -> Any:
        with self._client.pipeline(transaction=True) as pipeline:
            return self._guarded(partial(self._terms.ask(pipeline, name).execute), now)

    def _write(self, name: bytes, entry: tuple[bytes, int], now: float) -> None:
        self._guarded(partial(self._client.set, name, entry[0], px=entry[1]), now)

    def _guarded(self, operation: Callable[[], Any], now: float) -> Any:
        try:
            reply = operation()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a miss
            if _is_reply(error):
                self._terms.succeeded()
            else:
                self._terms.failed(now)
            return None
        self._terms.succeeded()
        return reply

    def _probe(self, now: float) -> None:
        began = time.monotonic()
        try:
            self._client.ping()
        except Exception:  # noqa: BLE001 - it is not back yet, whatever it says
            self._terms.circuit.probe_failed(now + time.monotonic() - began)
        else:
            self._terms.succeeded()


class AsyncRedisStore:
    """Keeps responses in Redis or Valkey, for asyncio tasks; bounded, and never raises.

    An operation runs in a task of its own: cancelling the request that waits for it leaves no
    reply behind on a connection that the next request would take for its own.

    Args:
        url: As for ``RedisStore``, and so are the others.
        prefix: Begins every name in the server. The policy's ``service`` and environment are in
            every name, too; without a ``service`` it needs to be one of the service's own.
        secret: When given, entries made without it are misses; at most 64 bytes.
        operation_s: The longest wait for one operation, at most a second.
        most_body_bytes: A longer body is neither kept nor read.

    Raises:
        MissingExtra: ``redis`` is not installed.
        TypeError: An argument is of another type: *secret* is bytes.
        ValueError: The address or a bound is no good.

    Attributes:
        has_own_prefix: Whether its names do not begin as everybody's.

    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = PREFIX,
        secret: bytes = b"",
        operation_s: float = OPERATION_S,
        most_body_bytes: int = MOST_BODY_BYTES,
    ) -> None:
        try:
            from redis.asyncio.connection import parse_url  # noqa: PLC0415 - an extra
        except ImportError:
            raise MissingExtra("redis", "redis") from None
        self.has_own_prefix = prefix != PREFIX
        self._terms = RedisTerms(
            made_from(url, parse_url), prefix, secret, operation_s, most_body_bytes
        )
        self._clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, redis.asyncio.Redis]
        self._clients = weakref.WeakKeyDictionary()
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def circuit(self) -> Circuit:
        """Whether the server is being asked."""
        return self._terms.circuit

    async def get(self, key: bytes, now: float, wait_s: float) -> Found | None:
        """Return what is kept under *key*, ``None`` when it cannot be had within *wait_s*."""
        if not self._worth_asking(now) or not wait_s > 0:
            return None
        task = self._start(self._read, self._terms.name(key), now)
        if task is None:
            return None
        await asyncio.wait({task}, timeout=min(wait_s, self._terms.operation_s))
        if not task.done() or task.cancelled() or task.exception() is not None:
            return None
        reply = task.result()
        return None if reply is None else self._terms.found(key, reply)

    def put(self, key: bytes, stored: Stored, resident_s: float, now: float) -> None:
        """Begin to keep *stored*; the caller does not wait."""
        if self._worth_asking(now):
            entry = self._terms.entry(key, stored, resident_s)
            if entry is not None:
                self._start(self._write, self._terms.name(key), entry, now)

    async def close(self) -> None:
        """Let go of the running loop's connections; what is under way is awaited."""
        mine = [task for task in self._tasks if task.get_loop() is asyncio.get_running_loop()]
        if mine:
            await asyncio.wait(mine)
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    def _worth_asking(self, now: float) -> bool:
        if self._terms.may_ask(now):
            return True
        if self._terms.circuit.may_probe(now):
            self._start(self._probe, now, most=MOST_AT_ONCE)
        return False

    def _start(
        self,
        operation: Callable[..., Coroutine[Any, Any, Any]],
        *args: Any,
        most: int | None = None,
    ) -> asyncio.Task[Any] | None:
        if len(self._tasks) > MOST_AT_ONCE:
            self._tasks -= {task for task in self._tasks if task.get_loop().is_closed()}
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # another event loop than asyncio's, or none
            return None
        if len(self._tasks) >= (self._terms.room.at_once if most is None else most):
            return None
        task = loop.create_task(operation(self._client(loop), *args))
        self._tasks.add(task)
        task.add_done_callback(self._landed)
        return task

    def _landed(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # seen

    def _client(self, loop: asyncio.AbstractEventLoop) -> redis.asyncio.Redis:
        client = self._clients.get(loop)
        if client is None:
            import redis.asyncio  # noqa: PLC0415 - an extra
            from redis.asyncio.retry import Retry  # noqa: PLC0415
            from redis.backoff import NoBackoff  # noqa: PLC0415

            pool = redis.asyncio.ConnectionPool(
                **self._terms.options(), retry=Retry(NoBackoff(), 0)
            )
            client = redis.asyncio.Redis.from_pool(pool)
            self._clients[loop] = client
        return client

    async def _read(self, client: redis.asyncio.Redis, name: bytes, now: float) -> Any:
        async with client.pipeline(transaction=True) as pipeline:
            return await self._guarded(self._terms.ask(pipeline, name).execute, now)

    async def _write(
        self,
        client: redis.asyncio.Redis,
        name: bytes,
        entry: tuple[bytes, int],
        now: float,
    ) -> None:
        await self._guarded(partial(client.set, name, entry[0], px=entry[1]), now)

    async def _guarded(self, operation: Callable[[], Any], now: float) -> Any:
        try:
            async with asyncio.timeout(self._terms.operation_s):
                reply = await operation()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a miss
            if _is_reply(error):
                self._terms.succeeded(len(self._tasks))
            else:
                self._terms.failed(now)
            return None
        self._terms.succeeded(len(self._tasks))
        return reply

    async def _probe(self, client: redis.asyncio.Redis, now: float) -> None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(PROBE_S):
                await client.ping()
        except Exception:  # noqa: BLE001 - it is not back yet, whatever it says
            self._terms.circuit.probe_failed(now + time.monotonic() - began)
        else:
            self._terms.succeeded(len(self._tasks))


def _is_reply(error: Exception) -> bool:
    # The server is there and disagrees, for instance about the type of a key.
    import redis.exceptions  # noqa: PLC0415 - an extra, and imported by now

    answered = (redis.exceptions.ResponseError,)
    absent = (redis.exceptions.AuthenticationError, redis.exceptions.BusyLoadingError)
    return isinstance(error, answered) and not isinstance(error, absent)
