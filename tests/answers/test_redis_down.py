"""Doing without a shared store that is slow, silent or gone."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest
from tests.answers.redis_server import BlackHole, RedisServer, with_store, written
from tests.answers.requests_made_up import KEY, POLICY, full, get, stored
from tests.servers import free_port, wait_until

from budgetware.answers.cache import ResponseCache
from budgetware.answers.redis_store import AsyncRedisStore, RedisStore
from budgetware.answers.redis_terms import MOST_AT_ONCE
from budgetware.answers.stored import Found

pytestmark = pytest.mark.server

# The machine that runs the tests may be busy; how long is not what is tested.
PATIENT_S = 1.0


def test_no_time_left_asks_nobody() -> None:
    """A request whose time is over does not even connect."""
    with BlackHole() as hole:
        store = RedisStore(hole.url)
        assert [store.get(KEY, 0.0, wait_s) for wait_s in (0.0, -1.0, float("nan"))] == [None] * 3
        assert hole.connections() == 0
        store.close()


def test_a_server_that_never_answers_is_left_alone() -> None:
    """After a few misses the circuit is open and nothing is asked; probes wait for the pause."""
    with BlackHole() as hole:
        store = RedisStore(hole.url, operation_s=0.02)
        for _ in range(20):
            assert store.get(KEY, 100.0, 60.0) is None
        wait_until(lambda: store._errands._underway == 0, "all have given up")
        assert store.circuit.is_open
        hole.connections()

        for _ in range(100):
            assert store.get(KEY, 100.0, 60.0) is None
            store.put(KEY, stored(), 0.0, 100.0)
        assert hole.connections() == 0
        for _ in range(100):
            assert store.get(KEY, 101.0, 60.0) is None
        wait_until(lambda: store._errands._underway == 0, "the probe has given up")
        assert hole.connections() == 1
        store.close()


def test_tasks_leave_it_alone_too() -> None:
    """The same for tasks, a thousand at once: few connect, none fails."""
    with BlackHole() as hole:

        async def work(store: AsyncRedisStore) -> None:
            asked = [store.get(KEY, 100.0, 60.0) for _ in range(1000)]
            assert await asyncio.gather(*asked) == [None] * 1000
            await written(store)
            assert store.circuit.is_open
            assert hole.connections() <= MOST_AT_ONCE
            assert await asyncio.gather(*(store.get(KEY, 100.0, 60.0) for _ in range(100))) == (
                [None] * 100
            )
            assert hole.connections() == 0
            await asyncio.gather(*(store.get(KEY, 101.0, 60.0) for _ in range(100)))
            await written(store)
            assert hole.connections() == 1

        asyncio.run(with_store(hole.url, work, operation_s=0.02))


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_a_server_that_comes_back_is_used_again(how: str) -> None:
    """Killed or frozen under load: every look-up is answered from here; then it is shared again."""
    with RedisServer() as server:
        store = RedisStore(server.url, operation_s=0.2)
        cache = ResponseCache(shared=store)
        other = RedisStore(server.url, operation_s=0.2)

        def ask(target: bytes) -> Found | None:
            now = time.monotonic()
            draft = cache.draft(get(target), POLICY, full())
            assert draft is not None
            draft.tee.add(target)
            assert cache.keep(draft, 0.0, now)
            stale = time.monotonic() + 1.5
            return cache.look_up(get(target), POLICY, stale, 0.2)

        def shared() -> bool:
            now = time.monotonic()
            store.put(KEY, stored(), 0.0, now)
            return other.get(KEY, now, 0.2) is not None

        wait_until(shared, "an entry is shared")
        (server.kill if how == "killed" else server.freeze)()
        for number in range(50):
            found = ask(b"/%d" % number)
            assert found is not None
            assert found.stored.body == b"/%d" % number
        assert store.circuit.is_open
        (server.start if how == "killed" else server.thaw)()
        with contextlib.closing(server.client()) as client:
            client.flushall()
        wait_until(shared, "an entry is shared again", timeout_s=10.0)
        store.close()
        other.close()


def test_nobody_listening_is_a_miss() -> None:
    """A port without a server is refused at once, and three times are enough."""
    store = RedisStore(f"redis://127.0.0.1:{free_port()}/0", operation_s=PATIENT_S)

    assert [store.get(KEY, 0.0, PATIENT_S) for _ in range(4)] == [None] * 4
    assert store.circuit.is_open
    store.close()
