"""Whether a server answers, as everybody knows who asks it."""

from __future__ import annotations

import asyncio
import gc

import pytest
from redis.connection import parse_url
from tests.answers.redis_server import BlackHole, RedisServer, with_store, written
from tests.answers.requests_made_up import KEY, stored
from tests.servers import free_port, wait_until

from budgetware.answers.circuit import FAILURES_TO_OPEN, FIRST_PAUSE_S
from budgetware.answers.redis_silence import Server, server_at
from budgetware.answers.redis_store import AsyncRedisStore, RedisStore


def _at(url: str) -> Server:
    return server_at(parse_url(url))  # type: ignore[no-untyped-call]


def test_one_server_is_known_by_its_host_and_port() -> None:
    """Databases, users and the case of a name make no difference; ports and sockets do."""
    server = _at("redis://me:secret@Example.test:6379/3")
    assert _at("redis://example.test") is server
    assert _at("redis://example.test:6380") is not server
    assert _at("redis://") is _at("redis://localhost:6379/0")
    assert _at("unix:///run/redis?db=1") is _at("unix:///run/redis")
    assert _at("unix:///run/redis") is not _at("unix:///run/other")


def test_what_nobody_asks_is_forgotten() -> None:
    """Silence does not outlive those who noticed it."""
    url = "redis://forgotten.test"
    _at(url).silent = True
    gc.collect()
    assert not _at(url).silent


def test_an_answer_ends_the_silence() -> None:
    """Whoever had it."""
    server = Server()
    server.silent = True
    server.answered()
    assert not server.silent


@pytest.mark.server
def test_the_second_store_need_not_find_out() -> None:
    """Once one has been kept waiting often enough, another one's requests do not even connect."""
    with BlackHole() as hole:
        first, second = (RedisStore(hole.url, operation_s=0.02) for _ in range(2))
        for _ in range(20):
            assert first.get(KEY, 100.0, 60.0) is None
        wait_until(lambda: first._errands._underway == 0, "all have given up")
        hole.connections()

        assert second.get(KEY, 5.0, 60.0) is None
        assert second.circuit.is_open
        assert hole.connections() == 0
        # Its pause is one of its own clock.
        assert second.get(KEY, 5.0 + FIRST_PAUSE_S, 60.0) is None
        wait_until(lambda: second._errands._underway == 0, "its probe has given up")
        assert hole.connections() == 1
        first.close()
        second.close()


@pytest.mark.server
def test_each_finds_its_way_back() -> None:
    """The probe of the one ends the silence, and the other's own probe closes its circuit."""
    with RedisServer() as server:

        async def work(store: AsyncRedisStore) -> None:
            other = AsyncRedisStore(server.url, operation_s=1.0)
            other._terms._server.silent = True
            for each in (store, other):
                assert await each.get(KEY, 100.0, 1.0) is None
                assert each.circuit.is_open
            for each in (store, other):
                assert await each.get(KEY, 101.0, 1.0) is None
                await written(each)
                assert not each.circuit.is_open
            store.put(KEY, stored(), 0.0, 101.0)
            await written(store)
            assert await other.get(KEY, 101.0, 1.0) is not None
            await other.close()

        asyncio.run(with_store(server.url, work))


def test_failures_that_add_up_slowly_are_no_news_again() -> None:
    """A circuit that stays open tells nobody a second time: others may have better luck."""
    store = RedisStore(f"redis://127.0.0.1:{free_port()}", operation_s=1.0)
    server = store._terms._server
    for _ in range(FAILURES_TO_OPEN):
        store._terms.failed(100.0)
    told = server.silent
    server.answered()

    store._terms.failed(100.0)

    assert (told, server.silent) == (True, False)
    store.close()
