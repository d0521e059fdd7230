"""Redis gone, silent, restarted or talking nonsense: no request fails, and none gains by it."""

from __future__ import annotations

import threading

import pytest
import redis
from tests.limits.faces import PATIENT_S, Make, admitted, is_open
from tests.limits.servers import RedisServer, Talker
from tests.servers import free_port, wait_until

from budgetware.limits.threads import SharedRates

pytestmark = pytest.mark.server


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


def test_a_process_that_can_start_no_thread_decides_alone(
    server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is no error, and once threads can be started again Redis is asked again."""
    rates = SharedRates(server.url, workers=1, timeout_s=PATIENT_S)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert rates.take("t", "ann", 0.001, 2.0, 1.0) == 0.0
    assert (rates.alone, rates._connections._open, rates._connections._opening) == (1, 0, 0)

    assert rates.take("t", "ann", 0.001, 2.0, 1.0) == 0.0
    assert rates.alone == 1
    rates.close()


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
