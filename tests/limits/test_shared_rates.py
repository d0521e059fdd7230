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
from tests.limits.servers import RedisServer, Talker
from tests.servers import free_port, wait_until

from budgetware.limits.script import key_of
from budgetware.limits.tasks import AsyncSharedRates
from budgetware.limits.threads import PREFIX, SharedRates

pytestmark = pytest.mark.server

PATIENT_S = 2.0
"""On a loaded machine, an answer that is on its way is waited for."""


class Threaded:
    """``SharedRates``."""

    def __init__(self, url: str, workers: int = 4, timeout_s: float = PATIENT_S) -> None:
        self.rates = SharedRates(url, workers=workers, timeout_s=timeout_s, draw=lambda: 0.5)

    def take(
        self,
        identity: str | None,
        *,
        rate: float = 0.001,
        burst: float = 5.0,
        at_s: float = 100.0,
        remaining_s: float = inf,
    ) -> float:
        """Ask."""
        return self.rates.take("pro", identity, rate, burst, at_s, remaining_s)

    @property
    def alone(self) -> int:
        """How often it was not Redis that answered."""
        return self.rates.alone

    def close(self) -> None:
        """Close its connections."""
        self.rates.close()


class Looped:
    """``AsyncSharedRates`` on an event loop of its own."""

    def __init__(self, url: str, workers: int = 4, timeout_s: float = PATIENT_S) -> None:
        self.rates = AsyncSharedRates(url, workers=workers, timeout_s=timeout_s, draw=lambda: 0.5)
        self.runner = asyncio.Runner()
        self.closed = False

    def take(
        self,
        identity: str | None,
        *,
        rate: float = 0.001,
        burst: float = 5.0,
        at_s: float = 100.0,
        remaining_s: float = inf,
    ) -> float:
        """Ask."""
        return self.runner.run(self.rates.take("pro", identity, rate, burst, at_s, remaining_s))

    @property
    def alone(self) -> int:
        """How often it was not Redis that answered."""
        return self.rates.alone

    def close(self) -> None:
        """Close its connections and its loop."""
        if not self.closed:
            self.closed = True
            self.runner.run(self.rates.aclose())
            self.runner.close()


Make = Callable[..., Threaded | Looped]


@pytest.fixture(params=[Threaded, Looped])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Return a constructor of limiters that are closed afterwards."""
    made: list[Threaded | Looped] = []

    def build(url: str, **options: float) -> Threaded | Looped:
        made.append(request.param(url, **options))
        return made[-1]

    yield build
    for one in made:
        one.close()


@pytest.fixture(scope="module")
def shared_server() -> Iterator[RedisServer]:
    """Return a server for tests that do it no harm."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def server(shared_server: RedisServer) -> RedisServer:
    """Return that server, empty."""
    shared_server.command("FLUSHALL")
    shared_server.command("SCRIPT", "FLUSH")
    return shared_server


def is_open(face: Threaded | Looped) -> bool:
    """Tell whether the server is not being asked."""
    return face.rates.circuit.is_open


def admitted(face: Threaded | Looped, count: int, **how: float) -> int:
    """Return how many of *count* requests of one caller are admitted."""
    return sum(face.take("ann", **how) == 0.0 for _ in range(count))


def test_processes_agree(make: Make, server: RedisServer) -> None:
    """Two limiters admit one burst together, and say how long the next has to wait."""
    one, other = make(server.url), make(server.url)

    assert [one.take("ann"), other.take("ann"), other.take("ann")] == [0.0] * 3
    assert admitted(one, 5) + admitted(other, 5) == 2
    assert 900 < one.take("ann") <= 1000
    assert one.take("bob") == 0.0
    assert one.alone == other.alone == 0


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


def test_a_flushed_script_is_loaded_again(make: Make, server: RedisServer) -> None:
    """Nobody notices, and what was owed is still owed."""
    face = make(server.url)
    assert admitted(face, 3) == 3

    for _ in range(3):
        server.command("SCRIPT", "FLUSH")
        face.take("bob")

    assert admitted(face, 10) == 2
    assert face.alone == 0


def test_without_redis_each_process_has_its_part(make: Make) -> None:
    """A kill in the middle of a flood gives nobody more; a restart brings the agreement back."""
    with RedisServer() as server:
        face = make(server.url, workers=4)
        assert admitted(face, 30, rate=0.001, burst=20.0) == 20
        server.stop()

        # What it was busy with before is remembered: no new burst for the same caller.
        assert admitted(face, 50, rate=0.001, burst=20.0) == 0
        # A new caller gets a fourth.
        fresh = sum(face.take("new", rate=0.001, burst=20.0) == 0.0 for _ in range(50))
        assert fresh == 5
        assert is_open(face)
        assert face.alone == 100

        server.start()
        assert face.take("late", at_s=200.0) == 0.0
        assert not is_open(face)
        assert face.alone == 100


def test_a_flood_without_redis_gets_no_more_than_its_rate(make: Make) -> None:
    """Four processes that lost the server admit a minute's worth of the rate together."""
    faces = [make(f"redis://127.0.0.1:{free_port()}", workers=4) for _ in range(4)]
    count = sum(
        face.take("ann", rate=8.0, burst=8.0, at_s=100.0 + step / 40) == 0.0
        for step in range(60 * 40)
        for face in faces
    )

    assert 0.95 * (8 * 60) <= count <= 1.2 * (8 * 60)


def test_redis_that_was_never_there_is_no_error(make: Make) -> None:
    """Refused connections and names nobody knows are answered by the process itself."""
    for url in (f"redis://127.0.0.1:{free_port()}", "redis://nowhere.invalid:6379"):
        face = make(url, workers=1, timeout_s=0.05)
        assert admitted(face, 20) == 5
        assert face.alone == 20


def test_a_server_that_never_answers_is_soon_not_asked(make: Make) -> None:
    """Three are kept waiting; of the rest one asks again after the pause."""
    with Talker() as silent:
        face = make(silent.url, workers=1, timeout_s=0.015)
        assert admitted(face, 100) == 5
        assert is_open(face)
        wait_until(lambda: silent.met == 3, "it has met those three")

        for _ in range(20):
            face.take("ann", at_s=101.0)
        wait_until(lambda: silent.met == 4, "one of many has asked again after the pause")
        assert is_open(face)
        face.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"+OK\r\n",
        b":-5\r\n",
        b"$3\r\nabc\r\n",
        b"*1\r\n:0\r\n",
        b"-ERR no\r\n",
        b"-READONLY You can't write against a read only replica.\r\n",
        b"-LOADING Redis is loading the dataset in memory\r\n",
        b"-NOSCRIPT No matching script.\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x00\xff" * 50,
    ],
)
def test_odd_answers_are_no_answers(make: Make, answer: bytes) -> None:
    """Whatever a server says, nothing is raised, and this process's part is let through."""
    with Talker(answer) as odd:
        face = make(odd.url, workers=1, timeout_s=0.1)
        count = admitted(face, 20)
        face.close()

    assert count == 5


def test_no_question_takes_longer_than_half_of_what_is_left(make: Make) -> None:
    """With too little time nobody is asked; with little, a silent server is still found out."""
    with Talker() as silent:
        face = make(silent.url, timeout_s=PATIENT_S)
        for remaining_s in (0.0, -1.0, PATIENT_S / 4):
            face.take("ann", remaining_s=remaining_s)
        assert silent.met == 0

        brief = make(silent.url, timeout_s=0.4)
        for _ in range(5):
            brief.take("ann", remaining_s=0.2)
        assert is_open(brief)
        brief.close()
        face.close()


@pytest.mark.parametrize("kind", [SharedRates, AsyncSharedRates])
def test_an_unreadable_url_does_not_give_its_password_away(
    kind: type[SharedRates | AsyncSharedRates],
) -> None:
    """It is refused at the start, without repeating it."""
    with pytest.raises(ValueError, match="cannot be read") as caught:
        kind("rediss+odd://:hunter2@host:port/x", workers=1)

    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__
    with pytest.raises(ValueError, match="at least one worker"):
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


def test_a_stale_connection_is_replaced(server: RedisServer) -> None:
    """What the server closed meanwhile is found out before anything is asked on it."""
    rates = SharedRates(server.url, workers=1, timeout_s=PATIENT_S)
    assert rates.take("t", "ann", 0.001, 2.0, 1.0) == 0.0
    server.command("CLIENT", "KILL", "TYPE", "normal")
    (connection,) = rates._connections._idle.queue

    def has_ended() -> bool:
        try:
            return bool(connection.can_read(timeout=0))
        except redis.ConnectionError:
            return True

    wait_until(has_ended, "the end has come through")

    assert rates.take("t", "ann", 0.001, 2.0, 1.0) == 0.0
    assert rates.take("t", "ann", 0.001, 2.0, 1.0) > 0
    assert rates.alone == 0
    rates.close()


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
