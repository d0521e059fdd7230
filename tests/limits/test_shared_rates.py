"""Rates kept in Redis: agreed among processes, and never worse than each process's own part."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from math import inf

import pytest
import redis
from tests.limits.faces import PATIENT_S, Make, admitted
from tests.limits.servers import RedisServer

from budgetware.limits.script import key_of
from budgetware.limits.tasks import AsyncSharedRates
from budgetware.limits.threads import PREFIX, SharedRates

pytestmark = pytest.mark.server


def test_processes_agree(make: Make, server: RedisServer) -> None:
    """Two limiters admit one burst together, and say how long the next has to wait."""
    one, other = make(server.url), make(server.url)

    assert [one.take("ann"), other.take("ann"), other.take("ann")] == [0.0] * 3
    assert admitted(one, 5) + admitted(other, 5) == 2
    assert 900 < one.take("ann") <= 1000
    assert one.take("bob") == 0.0
    assert one.alone == other.alone == 0


@pytest.mark.parametrize("kind", [SharedRates, AsyncSharedRates])
def test_services_on_one_server_share_nothing(kind: type, server: RedisServer) -> None:
    """Nor do two environments of one, whose callers have the same names."""
    rates = kind(server.url, workers=1, timeout_s=PATIENT_S)
    with asyncio.Runner() as runner:

        def take(namespace: str) -> float:
            found = rates.take("pro", "ann", 0.001, 1.0, 100.0, inf, namespace)
            wait_s: float = runner.run(found) if asyncio.iscoroutine(found) else found
            return wait_s

        namespaces = ("shop\0", "shop\0staging", "bank\0", "")
        assert [take(one) for one in namespaces] == [0.0] * 4
        assert all(take(one) > 0 for one in namespaces)
        if kind is AsyncSharedRates:
            runner.run(rates.aclose())
        else:
            rates.close()
    assert rates.alone == 0


def test_a_connection_begins_with_the_question(make: Make, server: RedisServer) -> None:
    """Neither the protocol nor the library is spoken of first: a new connection costs no more."""
    with redis.Redis(port=server.port, single_connection_client=True) as client:
        client.config_resetstat()
        assert make(server.url).take("ann") == 0.0
        asked = client.info("commandstats")
    assert "cmdstat_evalsha" in asked
    assert not [name for name in asked if name.startswith(("cmdstat_client", "cmdstat_hello"))]


def test_what_is_owed_is_earned_back(make: Make, server: RedisServer) -> None:
    """After the wait a request was told, on the server's clock, it is admitted."""
    face = make(server.url)
    waits_s = [face.take("ann", rate=20.0, burst=1.0) for _ in range(2)]
    assert waits_s[0] == 0.0
    assert 0 < waits_s[1] <= 0.05

    time.sleep(waits_s[1])

    assert face.take("ann", rate=20.0, burst=1.0) == 0.0
    assert face.alone == 0


def test_keys_go_away_and_tell_nothing(make: Make, server: RedisServer) -> None:
    """A key lives until nothing is owed, is bounded in length and is no identity."""
    face = make(server.url)
    face.take("a secret name" * 1000, rate=1.0, burst=1.0)

    (key,) = server.command("KEYS", "*")

    assert key == key_of(PREFIX, "pro", "a secret name" * 1000).encode()
    assert len(key) < 60
    assert 0 < server.command("PTTL", key) <= 1002


@pytest.mark.parametrize(
    "command",
    [
        ("SET", "{}", "garbage"),
        ("SET", "{}", "nan"),
        ("SET", "{}", "inf"),
        ("SET", "{}", "-inf"),
        ("SET", "{}", "9e300"),
        ("SET", "{}", ""),
        ("RPUSH", "{}", "x"),
    ],
)
def test_hostile_values_cost_a_burst_at_most(
    make: Make,
    server: RedisServer,
    command: tuple[str, ...],
) -> None:
    """Whatever stands under the key, the caller goes on after one interval at the latest."""
    face = make(server.url)
    server.command(*(word.format(key_of(PREFIX, "pro", "ann")) for word in command))

    wait_s = face.take("ann", rate=20.0, burst=1.0)
    assert wait_s <= 0.05
    time.sleep(wait_s)
    assert wait_s == 0.0 or face.take("ann", rate=20.0, burst=1.0) == 0.0
    assert face.alone == 0


@pytest.mark.parametrize("kind", [SharedRates, AsyncSharedRates])
def test_an_unreadable_url_does_not_give_its_password_away(
    kind: type[SharedRates | AsyncSharedRates],
) -> None:
    """It is refused at the start, without repeating it."""
    with pytest.raises(ValueError, match="cannot be read") as caught:
        kind("rediss+odd://:hunter2@host:port/x", workers=1)

    assert "hunter2" not in str(caught.value)
    assert caught.value.__context__ is None
    with pytest.raises(ValueError, match="workers must be at least 1"):
        kind("redis://host", workers=0)


def test_threads_agree(server: RedisServer) -> None:
    """Thirty-two threads that start at once share a burst exactly and a few connections."""
    rates = SharedRates(server.url, workers=1, timeout_s=PATIENT_S * 5)
    barrier = threading.Barrier(32)
    counts: list[int] = []

    def knock() -> None:
        barrier.wait()
        counts.append(sum(rates.take("t", "ann", 0.001, 100.0, 1.0) == 0.0 for _ in range(10)))

    threads = [threading.Thread(target=knock) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(counts) == 100
    assert rates.alone == 0
    assert 1 <= rates._connections._open <= 33
    rates.close()
    assert rates._connections._open == 0


def test_tasks_agree(server: RedisServer) -> None:
    """Two hundred tasks at once, more than there are connections, never exceed the rate."""

    async def main() -> tuple[int, int]:
        rates = AsyncSharedRates(server.url, workers=10, timeout_s=PATIENT_S * 5)
        waits_s = await asyncio.gather(
            *(rates.take("t", "ann", 0.001, 50.0, 1.0) for _ in range(200))
        )
        await rates.aclose()
        assert not rates.circuit.is_open
        return waits_s.count(0.0), rates.alone

    count, alone = asyncio.run(main())
    assert 45 <= count <= 55
    assert alone < 200


def test_a_cancellation_at_any_moment_of_a_question_is_heard(server: RedisServer) -> None:
    """Also in the turn in which a part of it ends, where Python 3.11 loses it on redis-py's way."""

    async def main() -> list[int]:
        limiter = AsyncSharedRates(server.url, workers=4, timeout_s=PATIENT_S)
        lost = []
        for turns in range(60):
            task = asyncio.ensure_future(limiter.take("pro", "ann", 1000.0, 1000.0, 100.0))
            for _ in range(turns):
                await asyncio.sleep(0)
            requested = task.cancel()
            (outcome,) = await asyncio.gather(task, return_exceptions=True)
            if requested and not isinstance(outcome, asyncio.CancelledError):
                lost.append(turns)
        await limiter.aclose()
        return lost

    assert asyncio.run(main()) == []


def test_a_cancelled_question_answers_nobody_else(server: RedisServer) -> None:
    """After hundreds of cancelled questions each caller still gets its own answer."""

    async def main() -> None:
        rates = AsyncSharedRates(server.url, workers=1, timeout_s=PATIENT_S * 5)
        await rates.take("t", "poor", 0.001, 1.0, 1.0)
        for number in range(300):
            task = asyncio.ensure_future(rates.take("t", "poor", 0.001, 1.0, 1.0))
            for _ in range(number % 7):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert await rates.take("t", "rich", 1e5, 1e5, 1.0) == 0.0
        assert await rates.take("t", "poor", 0.001, 1.0, 1.0) > 900
        assert rates.alone == 0
        await rates.aclose()

    asyncio.run(main())


def test_each_event_loop_has_its_own_connections(server: RedisServer) -> None:
    """One limiter serves one loop after the other."""
    rates = AsyncSharedRates(server.url, workers=1, timeout_s=PATIENT_S)

    async def ask(close: Callable[[], Awaitable[None]]) -> float:
        wait_s = await rates.take("t", "ann", 0.001, 2.0, 1.0)
        await close()
        return wait_s

    assert [asyncio.run(ask(rates.aclose)) for _ in range(2)] == [0.0, 0.0]
    assert asyncio.run(ask(rates.aclose)) > 900
    assert rates.alone == 0


@contextmanager
def child(work: Callable[[], bool]) -> Iterator[None]:
    """Run *work* in a forked process; fail unless it returns true there."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if work() else 2
        finally:
            os._exit(code)
    yield
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_a_child_process_does_not_talk_on_its_parents_connections(server: RedisServer) -> None:
    """Both go on, each with its own, and agree."""
    rates = SharedRates(server.url, workers=1, timeout_s=PATIENT_S * 5)
    assert rates.take("t", "ann", 0.001, 100.0, 1.0) == 0.0

    def fifty() -> bool:
        waits_s = [rates.take("t", "ann", 0.001, 100.0, 1.0) for _ in range(49)]
        return waits_s == [0.0] * 49 and rates.alone == 0

    with child(fifty):
        assert fifty()
    assert rates.take("t", "ann", 0.001, 100.0, 1.0) == 0.0
    assert rates.take("t", "ann", 0.001, 100.0, 1.0) > 0
    rates.close()


def test_numbers_no_server_need_be_asked_about(make: Make, server: RedisServer) -> None:
    """No rate at all is a no, an endless one a yes, and tiers without identity are one caller."""
    face = make(server.url)

    assert face.take("ann", rate=0.0) > 1000
    assert face.take("ann", rate=inf) == 0.0
    assert server.command("KEYS", "*") == []
    assert [face.take(None, burst=1.0) > 0 for _ in range(2)] == [False, True]
    assert partial(face.take, "None", burst=1.0)() == 0.0
