"""Who makes a response that many wait for? One leads, the others wait as long as they can.

A leader that fails or is taken away hands over to the next who waits, once: a thousand waiters
are no reason to try a thousand times.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")

MOST_LEADERS: Final = 2
"""How many of those who wait for the same thing try to make it, one after the other."""
LONGEST_WAIT_S: Final = 86_400.0
MOST_FLIGHTS: Final = 4096
"""Beyond so many at once everyone works for himself."""


class _Flight(Generic[T]):
    __slots__ = ("done", "landed", "leader", "leaders", "successor", "value")

    def __init__(self, leaders: int) -> None:
        self.leaders = leaders
        self.done = threading.Event()
        self.leader = threading.get_ident()
        self.landed = False
        self.value: T | None = None
        self.successor: _Flight[T] | None = None


class ThreadFlights(Generic[T]):
    """Lets one thread per key work; a leader works in its own thread and is not interrupted."""

    def __init__(self) -> None:
        self._begin()
        _after_fork.add(self)

    def join(self, key: Hashable, lead: Callable[[], T], wait_s: float) -> T | None:
        """Return what *lead* or another caller's leader made, ``None`` when it is not to be had.

        Args:
            key: What is being made.
            lead: Makes it; called in this thread if this is the leader.
            wait_s: How long to wait for another leader, in seconds.

        Raises:
            BaseException: Whatever *lead* raised, in the thread that called it.

        """
        deadline = time.monotonic() + bounded_s(wait_s)
        flight, leading = self._board(key, None)
        while not leading:
            if flight.leader == threading.get_ident():
                return lead()  # it would wait for itself
            if not flight.done.wait(max(0.0, deadline - time.monotonic())):
                return None
            if flight.landed:
                return flight.value
            if flight.leaders >= MOST_LEADERS:
                return None
            flight, leading = self._board(key, flight)
        return self._lead(key, flight, lead)

    def _board(self, key: Hashable, failed: _Flight[T] | None) -> tuple[_Flight[T], bool]:
        with self._lock:
            present = self._flights.get(key) if failed is None else failed.successor
            if present is not None:
                return present, False
            flight: _Flight[T] = _Flight(1 if failed is None else failed.leaders + 1)
            if failed is not None:
                failed.successor = flight
            if len(self._flights) < MOST_FLIGHTS:
                self._flights.setdefault(key, flight)
            return flight, True

    def _lead(self, key: Hashable, flight: _Flight[T], lead: Callable[[], T]) -> T:
        try:
            value = lead()
            flight.value, flight.landed = value, True
            return value
        finally:
            with self._lock:
                if self._flights.get(key) is flight:
                    del self._flights[key]
            flight.done.set()

    def __len__(self) -> int:
        return len(self._flights)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[Hashable, _Flight[T]] = {}


class _TaskFlight(Generic[T]):
    __slots__ = ("leaders", "successor", "task")

    def __init__(self, task: asyncio.Task[T], leaders: int) -> None:
        self.task = task
        self.leaders = leaders
        self.successor: _TaskFlight[T] | None = None


class AsyncFlights(Generic[T]):
    """Lets one task per key work on the running asyncio loop; use one instance per loop.

    A leader works in a task of its own, in a copy of its caller's context: cancelling whoever
    waits, the first caller included, cancels neither the work nor any other who waits.
    """

    def __init__(self) -> None:
        self._flights: dict[Hashable, _TaskFlight[T]] = {}
        self._tasks: set[asyncio.Task[T]] = set()

    async def join(
        self,
        key: Hashable,
        lead: Callable[[], Awaitable[T]],
        wait_s: float,
    ) -> T | None:
        """Return what *lead* or another caller's leader made, ``None`` when it is not to be had.

        Args:
            key: What is being made.
            lead: Makes it; awaited in a task of its own if this is the leader.
            wait_s: How long to wait, in seconds; the work goes on afterwards.

        Raises:
            Exception: Whatever *lead* raised, to the caller whose *lead* it was.

        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + bounded_s(wait_s)
        flight, leading = self._board(key, lead, None)
        while True:
            task = flight.task
            await asyncio.wait({task}, timeout=max(0.0, deadline - loop.time()))
            if not task.done():
                return None
            if not task.cancelled() and (leading or task.exception() is None):
                return task.result()
            if leading or flight.leaders >= MOST_LEADERS:
                return None
            flight, leading = self._board(key, lead, flight)

    def _board(
        self,
        key: Hashable,
        lead: Callable[[], Awaitable[T]],
        failed: _TaskFlight[T] | None,
    ) -> tuple[_TaskFlight[T], bool]:
        present = self._flights.get(key) if failed is None else failed.successor
        if present is not None:
            return present, False
        task = asyncio.get_running_loop().create_task(_awaited(lead))
        flight = _TaskFlight(task, 1 if failed is None else failed.leaders + 1)
        if failed is not None:
            failed.successor = flight
        if len(self._flights) < MOST_FLIGHTS:
            self._flights.setdefault(key, flight)
        # The loop itself only holds tasks weakly, and whoever waits may be gone.
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._land(key, flight, done))
        return flight, True

    def _land(self, key: Hashable, flight: _TaskFlight[T], task: asyncio.Task[T]) -> None:
        self._tasks.discard(task)
        if self._flights.get(key) is flight:
            del self._flights[key]
        if not task.cancelled():
            task.exception()  # seen, so that asyncio does not report it when nobody waits

    def __len__(self) -> int:
        return len(self._tasks)


async def _awaited(lead: Callable[[], Awaitable[T]]) -> T:
    return await lead()


def bounded_s(wait_s: float) -> float:
    """Return *wait_s* as a time-out every platform takes; what is no number is no wait."""
    return min(LONGEST_WAIT_S, wait_s) if wait_s > 0 else 0.0


_after_fork: weakref.WeakSet[ThreadFlights[Any]] = weakref.WeakSet()


def _begin_anew() -> None:
    # The leaders are threads of the parent.
    for flights in _after_fork:
        flights._begin()  # noqa: SLF001 - the same file


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
