"""Sharing responses through a real server, and doing without it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import sys
import threading
import traceback
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
import redis
import trio
from tests.answers.redis_server import RedisServer, SlowRoad, with_store, written
from tests.answers.requests_made_up import KEY, POLICY, full, get, stored
from tests.servers import wait_until

from budgetware.answers.cache import AsyncResponseCache
from budgetware.answers.redis_store import AsyncRedisStore, RedisStore
from budgetware.answers.redis_terms import RedisTerms
from budgetware.answers.stored import Found
from budgetware.answers.wire import encoded
from budgetware.errors import MissingExtra
from budgetware.limits.tasks import AsyncSharedRates
from budgetware.limits.threads import SharedRates

pytestmark = pytest.mark.server

# The machine that runs the tests may be busy; how long is not what is tested.
PATIENT_S = 1.0


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """Return a server for the tests that leave it running."""
    with RedisServer() as running:
        yield running


@pytest.fixture
def store(server: RedisServer) -> Iterator[RedisStore]:
    """Return a store on an empty server."""
    with contextlib.closing(server.client()) as client:
        client.flushall()
    made = RedisStore(server.url, operation_s=PATIENT_S)
    yield made
    made.close()


def _put(store: RedisStore, key: bytes = KEY, **changes: Any) -> None:
    store.put(key, stored(**changes), 0.0, 0.0)
    wait_until(lambda: store._errands._underway == 0, "it is written")


def _name(key: bytes = KEY) -> str:
    return f"budgetware:answers:{key.hex()}"


def test_what_one_process_keeps_another_finds(server: RedisServer, store: RedisStore) -> None:
    """Threads and tasks read each other's entries, and each goes away by itself."""
    _put(store, body=b"shared")
    found = store.get(KEY, 0.0, PATIENT_S)
    assert found is not None
    assert found.stored == stored(body=b"shared")
    with contextlib.closing(server.client()) as client:
        left_ms = client.pttl(_name())
    assert isinstance(left_ms, int)
    assert 0 < left_ms <= 61_000

    async def work(other: AsyncRedisStore) -> None:
        found = await other.get(KEY, 0.0, PATIENT_S)
        assert found is not None
        assert found.stored.body == b"shared"
        other.put(KEY[::-1], stored(body=b"back"), 0.0, 0.0)
        await written(other)

    asyncio.run(with_store(server.url, work))
    back = store.get(KEY[::-1], 0.0, PATIENT_S)
    assert back is not None
    assert back.stored.body == b"back"


def test_a_connection_begins_with_the_question(server: RedisServer) -> None:
    """Neither the protocol nor the library is spoken of first, by threads or by tasks."""

    async def look(other: AsyncRedisStore) -> None:
        await other.get(KEY, 0.0, PATIENT_S)

    with redis.Redis(port=server.port, single_connection_client=True) as client:
        client.config_resetstat()
        with contextlib.closing(RedisStore(server.url, operation_s=PATIENT_S)) as store:
            store.get(KEY, 0.0, PATIENT_S)
        asyncio.run(with_store(server.url, look))
        asked = client.info("commandstats")
    assert asked["cmdstat_getrange"]["calls"] == 2
    assert not [name for name in asked if name.startswith(("cmdstat_client", "cmdstat_hello"))]


def test_the_age_is_the_servers_countdown(server: RedisServer, store: RedisStore) -> None:
    """An entry with ten of its 61 seconds left is 51 seconds old, whatever our clock says."""
    _put(store)
    with contextlib.closing(server.client()) as client:
        client.pexpire(_name(), 10_000)

    found = store.get(KEY, 12_345.0, PATIENT_S)

    assert found is not None
    assert 51.0 <= found.resident_s < 61.0
    assert not found.is_fresh


def test_hostile_values_are_misses(server: RedisServer, store: RedisStore) -> None:
    """Pickles, cuts, other types, others' entries, lives without end: none opens the circuit."""
    whole = encoded(KEY, stored())
    plants: list[bytes] = [
        b"",
        b"x",
        pickle.dumps({"a": 1}),
        whole[:-1],
        whole + b"x",
        encoded(KEY[::-1], stored()),
    ]
    with contextlib.closing(server.client()) as client:
        for plant in plants:
            client.set(_name(), plant, px=60_000)
            assert store.get(KEY, 0.0, PATIENT_S) is None
        client.set(_name(), whole)
        assert store.get(KEY, 0.0, PATIENT_S) is None
        client.set(_name(), whole, px=3_600_000)
        assert store.get(KEY, 0.0, PATIENT_S) is None
        client.delete(_name())
        client.rpush(_name(), b"a list")
        for _ in range(5):
            assert store.get(KEY, 0.0, PATIENT_S) is None
    assert not store.circuit.is_open
    _put(store, body=b"healed")
    assert store.get(KEY, 0.0, PATIENT_S) is not None


def test_a_value_of_100_mb_is_not_read(server: RedisServer, store: RedisStore) -> None:
    """No more than an entry may have comes over the wire."""
    store.get(KEY, 0.0, PATIENT_S)
    with contextlib.closing(server.client()) as client:
        client.setrange(_name(), 100_000_000, b"x")
        client.pexpire(_name(), 60_000)
        tracemalloc.start()
        try:
            assert store.get(KEY, 0.0, PATIENT_S) is None
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        client.delete(_name())

    assert peak_bytes < 1_500_000


def test_a_secret_keeps_strangers_out(server: RedisServer, store: RedisStore) -> None:
    """An entry made without the secret is a miss."""
    _put(store)
    guarded = RedisStore(server.url, secret=b"secret", operation_s=PATIENT_S)

    assert guarded.get(KEY, 0.0, PATIENT_S) is None
    _put(guarded)
    assert guarded.get(KEY, 0.0, PATIENT_S) is not None
    guarded.close()


def test_cancelled_requests_leave_no_answer_to_the_next(server: RedisServer) -> None:
    """Over a slow road 2000 look-ups are cancelled at random: 0 later ones get another's entry."""

    async def run() -> None:
        keys = [bytes([number]) * 32 for number in range(16)]
        async with SlowRoad(server.port, 0.003) as road:

            async def work(store: AsyncRedisStore) -> None:
                for key in keys:
                    store.put(key, stored(key), 0.0, 0.0)
                    await written(store)
                wrong = right = 0
                for number in range(2000):
                    task = asyncio.create_task(store.get(keys[number % 16], 0.0, PATIENT_S))
                    await asyncio.sleep((number % 7) / 10_000)
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task
                    if number % 20 == 0:
                        await written(store)
                        found = await store.get(keys[number % 16], 0.0, PATIENT_S)
                        if found is not None:
                            right += found.stored.body == keys[number % 16]
                            wrong += found.stored.body != keys[number % 16]
                assert (wrong, right) == (0, 100)

            await with_store(road.url, work)

    asyncio.run(run())


def test_each_loop_has_its_own_connections(server: RedisServer, store: RedisStore) -> None:
    """One store serves one loop after the other, and several in threads."""
    _put(store)
    shared = AsyncRedisStore(server.url, operation_s=PATIENT_S)
    seen: list[bool] = []

    async def ask() -> None:
        seen.append(await shared.get(KEY, 0.0, PATIENT_S) is not None)
        await shared.close()

    asyncio.run(ask())
    threads = [threading.Thread(target=asyncio.run, args=(ask(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert seen == [True] * 5


def test_where_there_is_no_asyncio_it_misses(server: RedisServer) -> None:
    """On trio nothing is asked and nothing fails; the process's own entries are still there."""
    cache = AsyncResponseCache(shared=AsyncRedisStore(server.url))

    async def run() -> Found | None:
        draft = cache.draft(get(), POLICY, full())
        assert draft is not None
        assert cache.keep(draft, 0.0, 0.0)
        return await cache.look_up(get(), POLICY, 5.0, 1.0)

    assert trio.run(run) is not None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_shares_as_well(store: RedisStore) -> None:
    """A store made before a fork works after it, in parent and child."""
    _put(store)
    assert store.get(KEY, 0.0, PATIENT_S) is not None
    child = os.fork()
    if child == 0:
        os._exit(0 if store.get(KEY, 0.0, PATIENT_S) is not None else 1)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert store.get(KEY, 0.0, PATIENT_S) is not None


@pytest.mark.parametrize("kind", [RedisStore, AsyncRedisStore])
def test_a_missing_package_says_how_to_get_it(
    kind: type[RedisStore | AsyncRedisStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the extra."""
    for module in [name for name in sys.modules if name.split(".")[0] == "redis"]:
        monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(MissingExtra, match=r"budgetware\[redis\]"):
        kind("redis://127.0.0.1")


@pytest.mark.parametrize("kind", [RedisStore, AsyncRedisStore])
@pytest.mark.parametrize(
    ("url", "options", "words"),
    [
        ("http://127.0.0.1", {}, "scheme"),
        ("redis://127.0.0.1", {"operation_s": 0.0}, "operation_s"),
        ("redis://127.0.0.1", {"operation_s": 2.0}, "operation_s"),
        ("redis://127.0.0.1", {"secret": b"x" * 65}, "64 bytes"),
    ],
)
def test_bad_options_are_told_at_start(
    kind: Any, url: str, options: dict[str, Any], words: str
) -> None:
    """Not at the first request."""
    with pytest.raises(ValueError, match=words):
        kind(url, **options)


def test_a_socket_in_the_file_system_is_an_address_too(server: RedisServer) -> None:
    """Threads and tasks share entries there as they do over the network."""
    store = RedisStore(server.socket_url, operation_s=PATIENT_S)
    _put(store)
    assert store.get(KEY, 0.0, PATIENT_S) is not None
    store.close()

    async def work(other: AsyncRedisStore) -> None:
        assert await other.get(KEY, 0.0, PATIENT_S) is not None

    asyncio.run(with_store(server.socket_url, work))


def test_an_address_cannot_loosen_the_bounds(server: RedisServer) -> None:
    """Time-outs, retries and texts asked for in the address are not taken over."""
    store = RedisStore(
        f"{server.url}?socket_timeout=30&decode_responses=true&max_connections=1",
        operation_s=PATIENT_S,
    )
    _put(store)

    options = store._client.connection_pool.connection_kwargs
    assert (options["socket_timeout"], options["decode_responses"]) == (PATIENT_S, False)
    assert store.get(KEY, 0.0, PATIENT_S) is not None
    store.close()


def test_only_what_fits_iswritten() -> None:
    """Too long, too many lines or over already: no entry."""
    terms = RedisTerms({}, "p", b"", 0.02, 10)

    assert terms.entry(KEY, stored(), 0.0) is not None
    assert terms.entry(KEY, stored(bytes(terms.most_bytes)), 0.0) is None
    assert terms.entry(KEY, stored(headers=[(b"x", b"y")] * 600), 0.0) is None
    assert terms.entry(KEY, stored(), 61.0) is None


@pytest.mark.parametrize("kind", [RedisStore, AsyncRedisStore, SharedRates, AsyncSharedRates])
@pytest.mark.parametrize(
    "url", ["redis://:se/cr#et@127.0.0.1:6379/0", "se cret://127.0.0.1", "redis://u:pw@h:se]cret"]
)
def test_a_password_is_in_no_traceback(kind: Any, url: str) -> None:
    """Neither in what is shown of an error nor in the errors behind it."""
    more = {"workers": 1} if "Rates" in kind.__name__ else {}
    with pytest.raises(ValueError, match="cannot be read") as caught:
        kind(url, **more)

    error: BaseException | None = caught.value
    assert "cr" not in "".join(traceback.format_exception_only(caught.value))
    while error is not None:
        assert "cr" not in str(error)
        error = error.__cause__ or error.__context__
