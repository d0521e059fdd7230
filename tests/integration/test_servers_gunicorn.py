"""The WSGI door under gunicorn's sync, threaded and gevent workers, preloaded and forked."""

from __future__ import annotations

import asyncio
import collections
import os
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.integration import wsgi_shapes
from tests.integration.serving import Gunicorn, connect, exchange, gunicorn, head, request, reset
from tests.servers import wait_until

pytestmark = pytest.mark.server

APP = f"""
import sys

sys.path.insert(0, {str(Path(__file__).parents[2])!r})
import json, os, random, threading, time
from tests.integration import wsgi_shapes
from budgetware import budget
from budgetware._core.current import current_budget
from budgetware._core.policy import Match, Policy, Route
from budgetware.wsgi import BudgetMiddleware

facts = os.open(os.environ["FACTS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
policy = Policy(routes={{
    "ours": Route(name="ours", match=(Match("GET", "/ready"), Match("GET", "/closes"))),
    "mine": Route(name="mine", match=(Match("GET", "/mine/**"),), budget=10.0),
    "slow": Route(name="slow", match=(Match("GET", "/slow"),), budget=10.0),
}})


def note(**fact):
    os.write(facts, (json.dumps({{**fact, "pid": os.getpid()}}) + "\\n").encode())


def told(record):
    note(
        route=record.route,
        outcome=record.outcome,
        status=record.status,
        stages=sorted({{one.name for one in record.openings}}),
    )


def mine(number, start_response):
    account = current_budget.get()
    for _ in range(3):
        with budget.stage(f"s{{number}}"):
            time.sleep(random.random() / 200)
        if current_budget.get() is not account:
            note(crossed=number)
    start_response("200 OK", [("Content-Length", str(len(number) * 2))])
    for _ in range(2):
        with budget.stage(f"s{{number}}"):
            time.sleep(random.random() / 200)
            if current_budget.get() is not account:
                note(crossed=number)
        yield number.encode()


class Shapes:
    def __call__(self, env, start_response):
        path = env["PATH_INFO"]
        if path.startswith("/bare/"):
            env["PATH_INFO"] = path.removeprefix("/bare")
            return wsgi_shapes.app(env, start_response)
        return door(env, start_response)


def inner(env, start_response):
    path = env["PATH_INFO"]
    if path.startswith("/mine/"):
        return mine(path.removeprefix("/mine/"), start_response)
    if path == "/closes":
        text = f"{{len(wsgi_shapes.made)}} {{len(wsgi_shapes.closed)}}"
        start_response("200 OK", [("Content-Length", str(len(text)))])
        return [text.encode()]
    if path in ("/ready", "/slow"):
        time.sleep(1.0 if path == "/slow" else 0)
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]
    return wsgi_shapes.app(env, start_response)


door = BudgetMiddleware(inner, policy=policy, observers=[told])
app = Shapes()
"""
WORKERS = {
    "sync": ("--worker-class=sync",),
    "gthread": ("--worker-class=gthread", "--threads=8"),
    "gevent": ("--worker-class=gevent", "--worker-connections=300"),
}
CLOSE = "Host: t\r\nConnection: close\r\n"


@pytest.fixture(scope="module", params=WORKERS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gunicorn]:
    """Run one worker of each class around the same application."""
    folder = tmp_path_factory.mktemp(request.param)
    with gunicorn(folder, APP, *WORKERS[request.param]) as server:
        yield server


def _sent(prefix: str) -> Iterator[bytes]:
    for path in wsgi_shapes.PATHS:
        for method in ("GET", "HEAD"):
            yield f"{method} {prefix}{path} HTTP/1.1\r\n{CLOSE}\r\n".encode()
        yield f"GET {prefix}{path} HTTP/1.0\r\n\r\n".encode()
    for method in ("POST", "PUT"):
        start = f"{method} {prefix}/echo HTTP/1.1\r\n{CLOSE}Content-Length: 7\r\n"
        yield f"{start}\r\none\ntwo".encode()
        yield f"{start}Expect: 100-continue\r\n\r\none\ntwo".encode()


def _stable(answer: bytes) -> bytes:
    return re.sub(rb"(?i)\r\ndate: [^\r]*", b"", answer)


def _closed(server: Gunicorn) -> bool:
    made, closed = request(server.port, "GET", "/closes")[1].split()
    return made == closed


def test_the_bytes_on_the_wire_are_the_same(server: Gunicorn) -> None:
    """Every shape of body by several methods: the bare application's bytes, as many closes."""
    told = len(server.facts)
    for sent, bare in zip(_sent(""), _sent("/bare"), strict=True):
        assert _stable(exchange(server.port, sent)) == _stable(exchange(server.port, bare)), sent

    wait_until(lambda: _closed(server), "all bodies are closed")
    wait_until(lambda: len(server.facts) - told >= len(list(_sent(""))), "all are told of")
    assert "budgetware_internal_error" not in server.errors


def test_clients_that_reset_cost_nothing_but_their_answer(server: Gunicorn) -> None:
    """Resets before and within answers: every body is closed, and the next request is served."""

    def leave(number: int) -> None:
        connection = connect(server.port)
        connection.sendall(head("GET", ("/big", "/body", "/lazy")[number % 3]))
        if number % 2:
            connection.recv(100)
        reset(connection)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(leave, range(60)))

    wait_until(lambda: _closed(server), "all bodies are closed")
    assert "budgetware" not in re.sub(r"File \S+", "", server.errors)


def test_two_hundred_at_once_never_mix(server: Gunicorn) -> None:
    """Each request sees its own budget only, in its call and in its body, whatever is switched."""
    many = 200 if "gevent" in server.kind else 8
    rounds = 1200 // many if "gevent" in server.kind else 6
    before = len(server.facts)

    async def ask(client: int) -> None:
        for turn in range(rounds):
            number = f"{client}.{turn}"
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(head("GET", f"/mine/{number}"))
            answer = await reader.readexactly(17)
            assert answer.startswith(b"HTTP/1.1 200 OK")
            body = (await reader.readuntil(number.encode() * 2))[-2 * len(number) :]
            assert body.decode() == number * 2
            writer.close()
            await writer.wait_closed()

    async def main() -> None:
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            for client in range(many):
                tasks.create_task(ask(client))

    asyncio.run(main())
    wait_until(lambda: len(server.facts) - before >= many * rounds, "all are told of")

    facts = server.facts[before:]
    assert not [fact for fact in facts if "crossed" in fact]
    stages = collections.Counter(tuple(fact["stages"]) for fact in facts)
    assert stages == {(f"s{client}.{turn}",): 1 for client in range(many) for turn in range(rounds)}
    assert {fact["outcome"] for fact in facts} == {"met"}


def test_a_preloaded_application_is_served_by_many_and_stops_gracefully(tmp_path: Path) -> None:
    """Four forked workers, one of them killed: all answer, what runs is finished, none hangs."""
    options = ("--preload", "--workers=4", "--worker-class=sync", "--graceful-timeout=60")
    with gunicorn(tmp_path, APP, *options) as server, ThreadPoolExecutor(8) as pool:
        ask = [pool.submit(request, server.port, "GET", f"/mine/{n}") for n in range(200)]
        assert {one.result()[0] for one in ask} == {200}
        wait_until(lambda: len(server.facts) == 200, "all are told of")
        workers = {fact["pid"] for fact in server.facts}
        assert 2 <= len(workers) <= 4
        assert server.process.pid not in workers
        os.kill(min(workers), signal.SIGKILL)
        server.wait(1)
        running = pool.submit(request, server.port, "GET", "/slow")
        wait_until(running.running, "the slow request is under way")
        time.sleep(0.3)
        server.stop()
        assert running.result() == (200, b"ok")
        assert server.process.returncode == 0
        assert server.facts[-1]["route"] == "slow"
        assert "Traceback" not in server.errors


STEERED = f"""
import sys

sys.path.insert(0, {str(Path(__file__).parents[2])!r})
import os
from tests.integration import wsgi_shapes
from budgetware.wsgi import BudgetMiddleware


def app(env, start_response):
    path = env["PATH_INFO"]
    if path.startswith("/bare/"):
        env["PATH_INFO"] = path.removeprefix("/bare")
        return wsgi_shapes.app(env, start_response)
    if path not in ("/ready", "/state"):
        return door(env, start_response)
    engine = door._engine
    engine.tally.absorb()
    outcomes = engine.tally.requests["steered", None].outcomes
    facts = (
        os.getpid(),
        engine._traffic.now,
        len(wsgi_shapes.made) - len(wsgi_shapes.closed),
        outcomes["degraded"],
        sum(engine.tally.faults.values()),
    )
    text = " ".join(map(str, facts))
    start_response("200 OK", [("Content-Length", str(len(text)))])
    return [text.encode()]


door = BudgetMiddleware(wsgi_shapes.steered_app, policy=wsgi_shapes.STEERED)
"""


@pytest.fixture(scope="module", params=["sync", "gthread"])
def steered(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gunicorn]:
    """Run one worker around an application that is decided on."""
    folder = tmp_path_factory.mktemp(f"steered-{request.param}")
    with gunicorn(folder, STEERED, *WORKERS[request.param]) as server:
        yield server


def _state(server: Gunicorn) -> tuple[int, ...]:
    """Return the worker, the requests and bodies under way, the smaller answers and the faults."""
    return tuple(int(word) for word in request(server.port, "GET", "/state")[1].split())


def test_bytes_are_the_same_where_everything_is_decided_on(steered: Gunicorn) -> None:
    """Files, sized bodies, streams, ``write``: what is in time is left alone."""
    for sent, bare in zip(_sent(""), _sent("/bare"), strict=True):
        assert _stable(exchange(steered.port, sent)) == _stable(exchange(steered.port, bare)), sent
    wait_until(lambda: _state(steered)[1:3] == (0, 0), "nothing is under way")
    assert _state(steered)[4] == 0


def test_a_smaller_answer_ends_no_worker_wherever_it_is_asked_for(steered: Gunicorn) -> None:
    """In the call and in the first step of the body it is sent; later it is an error like any."""
    worker, _, _, answered, _ = _state(steered)
    for _ in range(3):
        for path in ("/steered/call", "/steered/first"):
            answer = exchange(steered.port, f"GET {path} HTTP/1.1\r\n{CLOSE}\r\n".encode())
            assert answer.startswith(b"HTTP/1.1 200 OK")
            assert answer.lower().count(b"content-length") == 1
            assert answer.endswith(b"\r\n\r\nsmaller")
            answer = exchange(steered.port, f"HEAD {path} HTTP/1.1\r\n{CLOSE}\r\n".encode())
            assert b"\r\ncontent-length: 7\r\n" in answer.lower()
            assert answer.endswith(b"\r\n\r\n")
        answer = exchange(steered.port, f"GET /steered/later HTTP/1.1\r\n{CLOSE}\r\n".encode())
        assert answer.endswith(b"so far")
        status, body = request(steered.port, "GET", "/steered/stream")
        assert (status, len(body)) == (200, 64 * 65536)

    wait_until(lambda: _state(steered)[1:3] == (0, 0), "nothing is under way")
    assert _state(steered) == (worker, 0, 0, answered + 12, 0)
    assert "TurnedTooLate" in steered.errors


def test_clients_that_reset_while_something_smaller_is_sent_leave_nothing_open(
    steered: Gunicorn,
) -> None:
    """Before, within and after: every body is closed, every course ended, the worker lives."""
    worker = _state(steered)[0]

    def leave(number: int) -> None:
        connection = connect(steered.port)
        path = ("/steered/first", "/steered/stream", "/steered/later", "/big")[number % 4]
        connection.sendall(head("GET", path))
        if number % 3:
            connection.recv(100)
        reset(connection)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(leave, range(60)))

    wait_until(lambda: _state(steered)[1:3] == (0, 0), "nothing is under way")
    assert _state(steered)[0] == worker
    assert _state(steered)[4] == 0
    assert request(steered.port, "GET", "/steered/first") == (200, b"smaller")
