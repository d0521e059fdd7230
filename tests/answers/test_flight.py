"""One makes what many wait for."""

from __future__ import annotations

import asyncio
import threading
from math import inf, nan

import pytest

from budgetware.answers.flight import (
    LONGEST_WAIT_S,
    MOST_FLIGHTS,
    MOST_LEADERS,
    AsyncFlights,
    ThreadFlights,
    bounded_s,
)


class _Origin:
    """Something slow that fails as often as it is told to."""

    def __init__(self, failures: int = 0) -> None:
        self.calls = 0
        self.go = asyncio.Event()
        self._failures = failures

    async def __call__(self) -> int:
        self.calls += 1
        call = self.calls
        await self.go.wait()
        if call <= self._failures:
            raise LookupError(call)
        return call


async def _settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_ten_thousand_waiters_take_one_call() -> None:
    """All get what the one leader made, and nothing of it stays behind."""

    async def run() -> None:
        origin, flights = _Origin(), AsyncFlights[int]()
        waiters = [asyncio.create_task(flights.join("k", origin, 60.0)) for _ in range(10_000)]
        await _settle()
        origin.go.set()
        assert set(await asyncio.gather(*waiters)) == {1}
        await _settle()
        assert (origin.calls, len(flights), flights._flights) == (1, 0, {})

    asyncio.run(run())


def test_a_cancelled_leader_takes_nobody_along() -> None:
    """The first caller goes away: 0 of 1000 others are cancelled, and the work is done once."""

    async def run() -> None:
        origin, flights = _Origin(), AsyncFlights[int]()
        leader = asyncio.create_task(flights.join("k", origin, 60.0))
        await _settle()
        waiters = [asyncio.create_task(flights.join("k", origin, 60.0)) for _ in range(1000)]
        await _settle()
        leader.cancel()
        await _settle()
        assert leader.cancelled()
        origin.go.set()
        assert set(await asyncio.gather(*waiters)) == {1}
        assert origin.calls == 1

    asyncio.run(run())


def test_cancelled_work_is_led_by_the_next() -> None:
    """The task itself is cancelled: the next who waits leads, 0 of 1000 are cancelled."""

    async def run() -> None:
        origin, flights = _Origin(), AsyncFlights[int]()
        waiters = [asyncio.create_task(flights.join("k", origin, 60.0)) for _ in range(1000)]
        await _settle()
        (task,) = flights._tasks
        task.cancel()
        await _settle()
        origin.go.set()
        results = await asyncio.gather(*waiters)
        assert (results.count(2), results.count(None)) == (999, 1)
        assert origin.calls == 2

    asyncio.run(run())


def test_failures_are_not_tried_a_thousand_times() -> None:
    """Two lead and get their own errors; the others go without."""

    async def run() -> None:
        origin, flights = _Origin(failures=1000), AsyncFlights[int]()
        origin.go.set()
        waiters = [asyncio.create_task(flights.join("k", origin, 60.0)) for _ in range(1000)]
        results = await asyncio.gather(*waiters, return_exceptions=True)
        errors = [error for error in results if isinstance(error, LookupError)]
        assert len(errors) == origin.calls == MOST_LEADERS
        assert results.count(None) == 1000 - MOST_LEADERS
        assert await AsyncFlights[int]().join("k", _landed, 60.0) == 7

    asyncio.run(run())


async def _landed() -> int:
    await asyncio.sleep(0)
    return 7


def test_no_task_waits_longer_than_it_may() -> None:
    """Whoever has no time left goes without, and the work goes on for the others."""

    async def run() -> None:
        origin, flights = _Origin(), AsyncFlights[int]()
        for wait_s in (0.0, -1.0, nan, 0.001):
            assert await flights.join("k", origin, wait_s) is None
        waiting = asyncio.create_task(flights.join("k", origin, inf))
        await _settle()
        origin.go.set()
        assert (await waiting, origin.calls) == (1, 1)

    asyncio.run(run())


def test_many_keys_are_bounded() -> None:
    """Beyond the cap everyone works for himself, and what is remembered does not grow."""

    async def run() -> None:
        origin, flights = _Origin(), AsyncFlights[int]()
        keys = [*range(MOST_FLIGHTS), "over", "over"]
        waiters = [asyncio.create_task(flights.join(key, origin, 60.0)) for key in keys]
        await _settle()
        assert len(flights._flights) == MOST_FLIGHTS
        origin.go.set()
        await asyncio.gather(*waiters)
        await _settle()
        assert (origin.calls, len(flights)) == (MOST_FLIGHTS + 2, 0)

    asyncio.run(run())


def test_threads_take_one_call_too() -> None:
    """Thirty-two threads, one call, one value."""
    flights = ThreadFlights[int]()
    begun, go = threading.Event(), threading.Event()
    calls: list[int] = []
    values: list[int | None] = []

    def lead() -> int:
        calls.append(1)
        begun.set()
        go.wait(60)
        return len(calls)

    def join() -> None:
        values.append(flights.join("k", lead, 60.0))

    threads = [threading.Thread(target=join) for _ in range(32)]
    for thread in threads:
        thread.start()
    begun.wait(60)
    assert flights.join("k", lead, 0.0) is None
    go.set()
    for thread in threads:
        thread.join()

    # A thread that came when all was over led once more; none waited in vain.
    assert None not in values
    assert len(values) == 32
    assert len(flights) == 0


def test_a_thread_that_fails_hands_over_once() -> None:
    """Two threads lead and get their own errors; the rest goes without, however late it wakes."""
    flights = ThreadFlights[int]()
    go = threading.Event()
    calls: list[int] = []
    seen: list[object] = []
    boarded = threading.Semaphore(0)

    def lead() -> int:
        calls.append(1)
        go.wait(60)
        raise LookupError(len(calls))

    def join() -> None:
        boarded.release()
        try:
            seen.append(flights.join("k", lead, 60.0))
        except LookupError as error:
            seen.append(error)

    leader = threading.Thread(target=join)
    leader.start()
    while not calls:
        boarded.acquire(timeout=0.01)
    first = flights._flights["k"]
    others = [threading.Thread(target=join) for _ in range(16)]
    for thread in others:
        thread.start()
    while len(first.done._cond._waiters) < 16:  # type: ignore[attr-defined]
        boarded.acquire(timeout=0.01)
    go.set()
    for thread in [leader, *others]:
        thread.join()

    assert len(calls) == MOST_LEADERS
    assert seen.count(None) == 17 - MOST_LEADERS


def test_a_leader_does_not_wait_for_itself() -> None:
    """Joining from within the work just does the work."""
    flights = ThreadFlights[int]()

    assert flights.join("k", lambda: 1 + (flights.join("k", lambda: 1, 60.0) or 0), 60.0) == 2


@pytest.mark.parametrize(
    ("wait_s", "bounded"), [(nan, 0.0), (-1.0, 0.0), (inf, LONGEST_WAIT_S), (1e300, LONGEST_WAIT_S)]
)
def test_every_wait_is_one_that_platforms_take(wait_s: float, bounded: float) -> None:
    """No number reaches a lock or a loop that it cannot count to."""
    assert bounded_s(wait_s) == bounded
