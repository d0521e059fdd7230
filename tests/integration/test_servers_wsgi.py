"""The WSGI door on the standard library's server and on waitress."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from wsgiref.validate import validator

import pytest
from flask import Flask, Response, request, stream_with_context
from tests.doors.wsgi_play import Door
from tests.integration import wsgi_shapes
from tests.integration.serving import (
    connect,
    exchange,
    head,
    reset,
    waitress_server,
    wsgiref_server,
)
from tests.servers import wait_until

from budgetware import budget
from budgetware._core.policy import Clock, Match, Policy, Route
from budgetware.wsgi import Environ, StartResponse, WSGIApp

pytestmark = pytest.mark.server

POLICY = Policy(
    routes={
        "last": Route(
            name="last",
            match=(Match("*", "/last"),),
            budget=1.0,
            clock=Clock.LAST_BYTE,
        ),
    },
)
SERVERS: dict[str, Callable[[WSGIApp], AbstractContextManager[int]]] = {
    "wsgiref": wsgiref_server,
    "waitress": waitress_server,
}
CLOSE = "Host: t\r\nConnection: close\r\n"


def _door(app: WSGIApp) -> Door:
    return Door(app, policy=POLICY, clock=time.perf_counter)


def _sent() -> Iterator[bytes]:
    for path in wsgi_shapes.PATHS:
        for method in ("GET", "HEAD"):
            yield f"{method} {path} HTTP/1.1\r\n{CLOSE}\r\n".encode()
        yield f"GET {path} HTTP/1.0\r\n\r\n".encode()
    body = "one\ntwo\nthree"
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        length = f"Content-Length: {len(body)}\r\n"
        yield f"{method} /echo HTTP/1.1\r\n{CLOSE}{length}\r\n{body}".encode()


def _all_closed() -> bool:
    return sorted(wsgi_shapes.made) == sorted(wsgi_shapes.closed)


def _stable(answer: bytes) -> bytes:
    return re.sub(rb"(?i)\r\ndate: [^\r]*", b"", answer)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("server", SERVERS)
def test_the_bytes_on_the_wire_are_the_same(
    server: str,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Every shape of body by every method: the bare application's bytes, and as many closes."""
    wsgi_shapes.made.clear()
    wsgi_shapes.closed.clear()
    door = _door(wsgi_shapes.app)
    with SERVERS[server](wsgi_shapes.app) as bare, SERVERS[server](door) as port:
        for sent in _sent():
            assert _stable(exchange(port, sent)) == _stable(exchange(bare, sent)), sent
        wait_until(_all_closed, "all bodies are closed")

    assert len(wsgi_shapes.made) > 20
    assert len(door.records) == sum(door.outcomes.values()) == len(list(_sent()))
    assert door.faults == {}
    assert "ValueError" in capfd.readouterr().err + caplog.text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("server", SERVERS)
def test_a_smaller_answer_is_whole_wherever_it_is_asked_for(
    server: str,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In the call, in the first step of the body; once the response has begun it is an error."""
    wsgi_shapes.made.clear()
    wsgi_shapes.closed.clear()
    door = Door(wsgi_shapes.steered_app, policy=wsgi_shapes.STEERED, clock=time.perf_counter)
    with SERVERS[server](validator(door)) as port:
        for path in ("/steered/call", "/steered/first"):
            for method, body in (("GET", b"smaller"), ("HEAD", b"")):
                answer = exchange(port, f"{method} {path} HTTP/1.1\r\n{CLOSE}\r\n".encode())
                assert b" 200 OK\r\n" in answer
                assert answer.lower().count(b"content-length: 7\r\n") == 1
                assert answer.partition(b"\r\n\r\n")[2] == body
        answer = exchange(port, f"GET /steered/later HTTP/1.1\r\n{CLOSE}\r\n".encode())
        assert answer.endswith(b"so far")
        wait_until(_all_closed, "all bodies are closed")
        wait_until(lambda: len(door.records) == 5, "all are told of")

    assert [record.answer for record in door.records] == ["static"] * 4 + [None]
    assert door._engine._traffic.now == 0
    assert door.faults == {}
    assert "TurnedTooLate" in capfd.readouterr().err + caplog.text


@pytest.mark.parametrize("server", SERVERS)
def test_clients_that_reset_cost_nothing_but_their_answer(
    server: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Resets before, within and after answers: every body is closed once, every request counted."""
    wsgi_shapes.made.clear()
    wsgi_shapes.closed.clear()
    calls: list[str] = []

    def app(env: Environ, start_response: StartResponse) -> Iterable[bytes]:
        calls.append(env["PATH_INFO"])
        return wsgi_shapes.app(env, start_response)

    door = _door(app)
    with SERVERS[server](door) as port:

        def leave(number: int) -> None:
            path = ("/big", "/body", "/generator", "/lazy")[number % 4]
            connection = connect(port)
            connection.sendall(head("GET", path))
            if number % 3:
                connection.recv(100)
            reset(connection)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(leave, range(100)))
        wait_until(lambda: exchange(port, b"GET /list HTTP/1.0\r\n\r\n") != b"", "it still answers")
        wait_until(_all_closed, "all bodies are closed")
        wait_until(lambda: len(door.records) == len(calls), "all are told of")

    assert sum(door.outcomes.values()) == len(calls) > 40
    assert door.faults == {}
    assert "budgetware" not in capfd.readouterr().err.replace("/tests/", "")


def test_a_client_that_reads_slowly_is_not_billed() -> None:
    """Megabytes to a reader of 1 KB/s, the server held back in between: nothing is exceeded."""

    def app(env: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])
        for _ in range(64):
            yield bytes(1 << 17)

    door = _door(app)
    with wsgiref_server(door) as port, connect(port) as connection:
        connection.sendall(head("GET", "/last"))
        for _ in range(2):
            connection.recv(1024)
            time.sleep(0.6)
        while connection.recv(1 << 20):
            pass
        wait_until(lambda: bool(door.records), "the request is told of")

    assert door.record.waited_s > 0.9
    assert door.record.elapsed_s < 1
    assert door.record.violations == ()


def test_a_client_that_sends_slowly_is_not_billed() -> None:
    """An upload that takes longer than the budget, read by the application as it comes."""

    def app(env: Environ, start_response: StartResponse) -> Iterable[bytes]:
        data = env["wsgi.input"].read(2) + env["wsgi.input"].readline()
        start_response("200 OK", [])
        return [data]

    door = _door(app)
    with wsgiref_server(door) as port, connect(port) as connection:
        connection.sendall(head("POST", "/last", 5))
        for part in (b"a", b"b", b"c", b"d", b"\n"):
            time.sleep(0.25)
            connection.sendall(part)
        answer = b""
        while more := connection.recv(4096):
            answer += more
        wait_until(lambda: bool(door.records), "the request is told of")

    assert answer.endswith(b"abcd\n")
    assert door.record.waited_s > 1
    assert door.record.elapsed_s < 0.5


def test_a_flask_application_is_the_same_on_a_real_server() -> None:
    """Streams, teardowns, uploads, errors: the same bytes; stages of requests never mix."""
    app = Flask(__name__, root_path=str(Path(__file__).parent))
    torn_down: list[str] = []
    app.teardown_request(lambda error: torn_down.append(str(budget.route)))

    @app.get("/stream/<int:number>")
    def stream(number: int) -> Response:
        def rows() -> Iterator[str]:
            for row in range(number):
                with budget.stage(f"s{number}"):
                    yield f"{row} of {request.path}\n"

        return Response(stream_with_context(rows()))

    @app.post("/upload")
    def upload() -> str:
        return f"{len(request.files['f'].read())} {sorted(request.form)}"

    @app.get("/fails")
    def fails() -> str:
        app.config["PROPAGATE_EXCEPTIONS"] = False
        raise ValueError

    multipart = (
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n'
        b'--x\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n'
        + b"y" * 70_000
        + b"\r\n--x--\r\n"
    )
    sent = [
        *(f"GET /stream/{number} HTTP/1.0\r\n\r\n".encode() for number in range(8)),
        b"POST /upload HTTP/1.0\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        + f"Content-Length: {len(multipart)}\r\n\r\n".encode()
        + multipart,
        b"GET /nowhere HTTP/1.0\r\n\r\n",
        b"HEAD /stream/3 HTTP/1.0\r\n\r\n",
        b"GET /fails HTTP/1.0\r\n\r\n",
    ]
    bare = app.wsgi_app
    door = _door(validator(bare))
    with waitress_server(bare) as port:
        expected = [_stable(exchange(port, one)) for one in sent]
    torn_down.clear()
    with waitress_server(door) as port, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda one: _stable(exchange(port, one)), sent * 10))
        wait_until(lambda: len(door.records) == len(found), "all are told of")

    assert found == expected * 10
    assert set(torn_down) == {"_unmatched"}
    names = sorted(tuple({one.name for one in record.openings}) for record in door.records)
    assert all(len(stages) <= 1 for stages in names)
    assert sum(len(record.openings) for record in door.records) >= 280
    assert door.faults == {}
