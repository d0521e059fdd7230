"""Rates and answers in one server that falls silent: a request waits for it once, not twice."""

from __future__ import annotations

import pytest
import redis
from tests.answers.redis_server import BlackHole
from tests.answers.requests_made_up import KEY
from tests.limits.faces import Make, admitted, is_open
from tests.limits.servers import RedisServer, Talker
from tests.servers import wait_until

from budgetware.answers.redis_silence import server_at
from budgetware.answers.redis_store import RedisStore

pytestmark = pytest.mark.server


def test_who_asked_for_the_rate_in_vain_does_not_ask_for_the_answer(make: Make) -> None:
    """The store takes the word of the rates, and nothing connects on its behalf."""
    with BlackHole() as hole:
        store = RedisStore(hole.url)
        face = make(hole.url, workers=1, timeout_s=0.015)
        admitted(face, 3)
        assert is_open(face)
        hole.connections()

        assert store.get(KEY, 100.0, 60.0) is None
        assert store.circuit.is_open
        assert hole.connections() == 0
        store.close()


def test_who_asked_for_an_answer_in_vain_does_not_ask_for_the_rate(make: Make) -> None:
    """The rates take the word of the store, and each process goes on with its part."""
    with BlackHole() as hole:
        store = RedisStore(hole.url, operation_s=0.02)
        face = make(hole.url, workers=1, timeout_s=0.015)
        for _ in range(20):
            store.get(KEY, 100.0, 60.0)
        wait_until(lambda: store._errands._underway == 0, "all have given up")
        hole.connections()

        assert admitted(face, 20) == 5
        assert is_open(face)
        assert hole.connections() == 0
        store.close()


def test_an_answer_to_one_is_news_for_the_other(make: Make, server: RedisServer) -> None:
    """Once the rates are shared again, the silence is over."""
    known = server_at(redis.connection.parse_url(server.url))  # type: ignore[no-untyped-call]
    known.silent = True
    face = make(server.url)

    face.take("ann")
    assert (is_open(face), face.alone) == (True, 1)
    face.take("ann", at_s=101.0)

    assert (is_open(face), face.alone, known.silent) == (False, 1, False)


def test_a_server_that_refuses_the_script_is_not_silent(make: Make) -> None:
    """Its rates are given up, and the answers in it are still asked for."""
    with Talker(b"-NOPERM this user has no permissions\r\n") as refusing:
        known = server_at(redis.connection.parse_url(refusing.url))  # type: ignore[no-untyped-call]
        face = make(refusing.url, workers=1, timeout_s=2.0)
        admitted(face, 20)

        assert is_open(face)
        assert not known.silent
        face.close()
