"""How does a thread ask the server, and for how long? Requests never connect: that has no bound.

Looking up a name can take the resolver's half minute whatever the socket's timeouts. So a thread
that finds no idle connection has another thread open one, and waits for it, or for one that
comes back, no longer than it may.
"""

from __future__ import annotations

import os
import queue
import threading
import time
import weakref
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final

from budgetware.answers.redis_terms import made_from, unannounced
from budgetware.errors import MissingExtra
from budgetware.limits.script import DIGEST, SCRIPT, wait_s_of

try:
    import redis
    from redis.backoff import NoBackoff
    from redis.exceptions import NoScriptError, ResponseError
    from redis.retry import Retry
except ImportError as error:
    raise MissingExtra("redis", "redis") from error

MOST_OPEN: Final = 64
_MOST_OPENING: Final = 4


def bounded_options(timeout_s: float) -> dict[str, Any]:
    """Return the options that bound each step of a connection.

    The defaults of redis-py retry ten times with five seconds each (redis-py pull request 4082).
    """
    return {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "protocol": 2,  # spares the greeting
        "health_check_interval": 0,
        "decode_responses": False,
        **unannounced(),
    }


class Connections:
    """Open connections to one server, for threads; each is used by one at a time.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``, as for ``redis.Redis.from_url``.
        timeout_s: Bounds each step of connecting and each read.
        most_open: Connections at most.

    Raises:
        ValueError: *url* is none; its text, which may hold a password, is not repeated.

    """

    def __init__(self, url: str, timeout_s: float, most_open: int = MOST_OPEN) -> None:
        options = bounded_options(timeout_s)
        self._pool = made_from(
            url,
            partial(redis.ConnectionPool.from_url, retry=Retry(NoBackoff(), 0), **options),
        )
        self._most_open = most_open
        self._begin()
        _after_fork.add(self)

    def _begin(self) -> None:
        self._idle: queue.LifoQueue[Any] = queue.LifoQueue()
        self._lock = threading.Lock()
        self._open = 0
        self._opening = 0

    @property
    def address(self) -> Mapping[str, Any]:
        """Where the server is, as redis-py's ``parse_url`` has it."""
        address: Mapping[str, Any] = self._pool.connection_kwargs
        return address

    def ask(self, key: str, interval: str, tolerance: str, within_s: float) -> float | None:
        """Run the script; return the seconds to wait, ``None`` without an answer in time.

        Raises:
            Exception: Whatever redis-py, the server or the system finds wrong.

        """
        until_s = time.monotonic() + within_s
        connection = self.take(within_s)
        if connection is None:
            return None
        sound = False
        arguments = (1, key, interval, tolerance)
        try:
            try:
                reply = _exchange(connection, until_s, "EVALSHA", DIGEST, *arguments)
            except NoScriptError:
                # The server was restarted or another one took over; this makes it known again.
                reply = _exchange(connection, until_s, "EVAL", SCRIPT, *arguments)
            wait_s = wait_s_of(reply)
            sound = wait_s is not None
        except ResponseError:
            sound = True  # a whole answer, though not a good one: the next one is in step
            raise
        finally:
            # Also when anything is thrown into the middle: an answer may still be under way.
            (self.give_back if sound else self.drop)(connection)
        return wait_s

    def take(self, within_s: float) -> Any:
        """Return a connection, ``None`` when there is none after *within_s* seconds at most."""
        deadline_s = time.monotonic() + within_s
        while True:
            try:
                found = self._idle.get_nowait()
            except queue.Empty:
                break
            if found is not None and self._is_usable(found):
                return found
        self._have_one_opened()
        try:
            found = self._idle.get(timeout=max(0.0, deadline_s - time.monotonic()))
        except queue.Empty:
            return None
        # ``None`` is the news that none could be opened.
        return found if found is not None and self._is_usable(found) else None

    def give_back(self, connection: Any) -> None:
        """Let others use *connection*, on which nothing is under way."""
        self._idle.put(connection)

    def drop(self, connection: Any) -> None:
        """Close *connection*, on which something went wrong or is under way."""
        self._opened(-1)
        with suppress(Exception):  # it is gone either way
            connection.disconnect()

    def close(self) -> None:
        """Close those that are idle."""
        while True:
            try:
                found = self._idle.get_nowait()
            except queue.Empty:
                return
            if found is not None:
                self.drop(found)

    def _is_usable(self, connection: Any) -> bool:
        # What can be read before anything was asked is the end, or the answer to somebody else.
        try:
            usable = not connection.can_read(timeout=0)
        except Exception:  # noqa: BLE001 - closed
            usable = False
        if not usable:
            self.drop(connection)
        return usable

    def _have_one_opened(self) -> None:
        with self._lock:
            if self._opening >= _MOST_OPENING or self._open >= self._most_open:
                return
            self._opening += 1
            self._open += 1
        try:
            threading.Thread(
                target=self._connect, args=(self._idle,), name="budgetware-redis", daemon=True
            ).start()
        except BaseException:
            with self._lock:
                self._opening -= 1
            self._opened(-1)
            raise

    def _connect(self, idle: queue.LifoQueue[Any]) -> None:
        connection: Any = None
        try:
            made = self._pool.connection_class(**self._pool.connection_kwargs)
            made.connect()
            connection = made
        except Exception:  # noqa: BLE001 - whoever waits asks nobody then
            self._opened(-1)
        finally:
            with self._lock:
                self._opening -= 1
            idle.put(connection)

    def _opened(self, change: int) -> None:
        with self._lock:
            self._open += change


def _exchange(connection: Any, until_s: float, *command: str | int) -> object:
    connection.send_packed_command(connection.pack_command(*command), check_health=False)
    if not connection.can_read(timeout=max(0.0, until_s - time.monotonic())):
        raise TimeoutError
    reply: object = connection.read_response()
    return reply


_after_fork: weakref.WeakSet[Connections] = weakref.WeakSet()


def _renew() -> None:
    # The parent's sockets are its own; redis-py closes a child's copies without ending the talk.
    for connections in _after_fork:
        connections._begin()  # noqa: SLF001 - this file's own


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
