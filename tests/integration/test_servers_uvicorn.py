"""The ASGI door on a real uvicorn, with clients that are slow, rude or many."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.websockets import WebSocket, WebSocketDisconnect
from tests.doors.asgi_play import LAST, START, Door
from tests.integration.serving import connect, exchange, head, request, reset, uvicorn_server
from tests.servers import wait_until
from websockets.asyncio.client import connect as connect_websocket

from budgetware import budget
from budgetware._core.policy import Clock, Match, Policy
from budgetware._core.policy import Route as Listed
from budgetware.asgi import ASGIApp, Message, Receive, Scope, Send

pytestmark = pytest.mark.server

POLICY = Policy(
    routes={
        "first": Listed(name="first", match=(Match("*", "/first"),), budget=1.0),
        "last": Listed(
            name="last",
            match=(Match("*", "/last"),),
            budget=1.0,
            clock=Clock.LAST_BYTE,
        ),
    },
)
MEGABYTES = 8
PART: Message = {"type": "http.response.body", "body": b"x" * 65536, "more_body": True}


class Alarmed(logging.Handler):
    """Keeps whatever is logged as a warning or worse."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.messages.append(record.getMessage())


@pytest.fixture
def alarms() -> Iterator[list[str]]:
    """Collect what uvicorn and asyncio complain about."""
    handler = Alarmed()
    loggers = [logging.getLogger(name) for name in ("uvicorn.error", "asyncio")]
    for logger in loggers:
        logger.addHandler(handler)
    yield handler.messages
    for logger in loggers:
        logger.removeHandler(handler)


def _door(app: ASGIApp) -> Door:
    return Door(app, policy=POLICY, clock=time.perf_counter)


def _read_slowly(port: int, path: str) -> int:
    """Read 1 KB/s for a while, then the rest; return the number of bytes."""
    with connect(port) as connection:
        connection.sendall(head("GET", path))
        count = 0
        for _ in range(2):
            count += len(connection.recv(1024))
            time.sleep(0.6)
        while part := connection.recv(1 << 20):
            count += len(part)
        return count


def _megabytes(shape: str) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({**START, "headers": [(b"connection", b"close")]})
        if shape == "parts":
            for _ in range(MEGABYTES * 16):
                await send(PART)
            await send({"type": "http.response.body"})
        else:
            await send({"type": "http.response.body", "body": bytes(MEGABYTES << 20)})

    return app


def test_a_client_that_reads_slowly_is_not_billed() -> None:
    """Eight megabytes to readers of 1 KB/s: all of them arrive, and nothing is exceeded."""
    doors = {shape: _door(_megabytes(shape)) for shape in ("parts", "whole")}
    with (
        uvicorn_server(doors["parts"]) as parts,
        uvicorn_server(doors["whole"]) as whole,
        ThreadPoolExecutor(4) as pool,
    ):
        readers = [
            pool.submit(_read_slowly, port, path)
            for port in (parts, whole)
            for path in ("/first", "/last")
        ]
        assert all(reader.result() > MEGABYTES << 20 for reader in readers)
        wait_until(lambda: all(len(door.records) == 2 for door in doors.values()), "all are told")

    for shape, door in doors.items():
        for record in door.records:
            assert record.elapsed_s < 1
            assert record.violations == ()
            assert record.outcome in {"met", "warning"}
            assert shape == "whole" or record.waited_s > 0.9


def test_a_client_that_sends_slowly_is_not_billed() -> None:
    """An upload that takes longer than the whole budget leaves the budget almost whole."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        size = 0
        message: Message = {"more_body": True}
        while message.get("more_body"):
            message = await receive()
            size += len(message.get("body", b""))
        left.append(budget.remaining())
        await send(START)
        await send({**LAST, "body": str(size).encode()})

    left: list[float] = []
    door = _door(app)
    with uvicorn_server(door) as port, connect(port) as connection:
        connection.sendall(head("POST", "/last", 5))
        for _ in range(5):
            time.sleep(0.25)
            connection.sendall(b"x")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        wait_until(lambda: bool(door.records), "the request is told of")

    assert left[0] > 0.5
    assert door.record.waited_s > 1.1
    assert door.record.elapsed_s < 0.5


def test_background_tasks_run_to_their_end_and_are_not_billed(alarms: list[str]) -> None:
    """Two hundred clients close once they have their body: two hundred tasks are completed."""
    completed: list[int] = []
    serving: list[asyncio.AbstractEventLoop] = []
    all_told = asyncio.Event()

    async def work(number: int) -> None:
        with budget.stage("background"):
            await all_told.wait()
        completed.append(number)

    async def endpoint(request: Request) -> Response:
        serving[:] = [asyncio.get_running_loop()]
        task = BackgroundTask(work, int(request.path_params["number"]))
        return PlainTextResponse("ok", background=task)

    door = _door(Starlette(routes=[Route("/tasks/{number}", endpoint)]))

    def ask(number: int) -> bytes:
        with connect(port) as connection:
            connection.sendall(head("GET", f"/tasks/{number}"))
            answer = b""
            while not answer.endswith(b"ok"):
                answer += connection.recv(4096)
            return answer

    with uvicorn_server(door) as port, ThreadPoolExecutor(16) as pool:
        try:
            assert all(pool.map(ask, range(200)))
            wait_until(lambda: len(door.records) == 200, "all requests are told of")
        finally:
            for loop in serving:
                loop.call_soon_threadsafe(all_told.set)
        wait_until(lambda: len(completed) == 200, "the tasks are done")

    assert sorted(completed) == list(range(200))
    assert len(door.records) == 200
    assert all(not record.openings for record in door.records)
    assert alarms == []


def test_a_storm_of_resets_is_no_event(alarms: list[str]) -> None:
    """Two thousand clients that reset, before and within requests: no traceback, all counted."""
    began: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        began.append(scope["method"])
        message = await receive()
        while message.get("more_body"):
            message = await receive()
        if message["type"] == "http.disconnect":
            return
        await asyncio.sleep(0.002)
        await send(START)
        # Five writes in one turn of the loop: asyncio complains of the sixth to a lost connection.
        for _ in range(2):
            await send(PART)
        await send(LAST)

    door = _door(app)
    sent = [head("GET", "/first"), head("POST", "/first", 100) + b"part", b"GET /fir", b""]

    def storm(share: int) -> None:
        for number in range(250):
            connection = connect(port)
            connection.sendall(sent[(number + share) % 4])
            reset(connection)

    with uvicorn_server(door) as port:
        clients = [threading.Thread(target=storm, args=(share,)) for share in range(8)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        assert request(port, "GET", "/last")[0] == 200

    outcomes = door.outcomes
    assert alarms == []
    assert door.faults == {}
    assert sum(outcomes.values()) == len(began) == len(door.records) > 100
    assert outcomes["client_gone"] > 0
    assert door.errors == 0


def test_a_client_that_leaves_a_stream_is_no_event(alarms: list[str]) -> None:
    """Starlette streams to clients that reset half-way: cancelled or not, each is counted once."""

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(100):
            with budget.stage("part"):
                yield b"x" * 65536
            await asyncio.sleep(0)

    async def endpoint(request: Request) -> Response:
        return StreamingResponse(parts())

    door = _door(Starlette(routes=[Route("/first", endpoint)]))

    def leave(_: int) -> None:
        connection = connect(port)
        connection.sendall(head("GET", "/first"))
        connection.recv(1000)
        reset(connection)

    with uvicorn_server(door) as port, ThreadPoolExecutor(8) as pool:
        list(pool.map(leave, range(100)))

    assert sum(door.outcomes.values()) == len(door.records) == 100
    assert {record.status for record in door.records} == {200}
    assert door.faults == {}
    assert alarms == []


async def _echo(scope: Scope, receive: Receive, send: Send) -> None:
    socket = WebSocket(scope, receive, send)
    await socket.accept()
    try:
        while True:
            await socket.send_text(f"{await socket.receive_text()} {budget.route}")
    except WebSocketDisconnect:
        pass


def test_websockets_pass_untouched(alarms: list[str]) -> None:
    """Three hundred connections at once echo what they are sent; no budget is opened."""
    door = _door(_echo)

    async def talk(port: int, number: int) -> list[object]:
        uri = f"ws://127.0.0.1:{port}/socket"
        async with connect_websocket(uri, open_timeout=30, proxy=None) as socket:
            answers: list[object] = []
            for turn in range(3):
                await socket.send(f"{number}.{turn}")
                answers.append(await socket.recv())
            return answers

    async def main(port: int) -> list[list[object]]:
        return await asyncio.gather(*(talk(port, number) for number in range(300)))

    with uvicorn_server(door, ws="websockets-sansio") as port:
        answers = asyncio.run(main(port))

    expected = [[f"{number}.{turn} None" for turn in range(3)] for number in range(300)]
    assert answers == expected
    assert door.outcomes == {}
    assert alarms == []


def test_the_bytes_on_the_wire_are_the_same() -> None:
    """What uvicorn writes for requests of many kinds, with the door and without, byte for byte."""

    async def plain(request: Request) -> Response:
        return PlainTextResponse(await request.body() + b"!", headers={"x-a": "b"})

    async def fails(request: Request) -> Response:
        raise ValueError

    async def parts(request: Request) -> Response:
        return StreamingResponse(iter(["a", "", "b"]))

    app = Starlette(
        routes=[
            Route("/plain", plain, methods=["GET", "POST"]),
            Route("/fails", fails),
            Route("/parts", parts),
        ],
    )
    close = b"Connection: close\r\n\r\n"
    requests = [
        b"GET /plain HTTP/1.1\r\nHost: t\r\n" + close,
        b"HEAD /plain HTTP/1.1\r\nHost: t\r\n" + close,
        b"GET /parts HTTP/1.1\r\nHost: t\r\n" + close,
        b"GET /parts HTTP/1.0\r\n\r\n",
        b"GET /fails HTTP/1.1\r\nHost: t\r\n" + close,
        b"GET /plain/ HTTP/1.1\r\nHost: t\r\n" + close,
        b"BREW /plain HTTP/1.1\r\nHost: t\r\n" + close,
        b"POST /plain HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n" + close + b"abc",
        b"POST /plain HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n"
        + close
        + b"3\r\nabc\r\n0\r\n\r\n",
        b"POST /plain HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 1\r\n"
        + close
        + b"a",
        b"GET /plain HTTP/1.1\r\nHost: t\r\n\r\nGET /parts HTTP/1.1\r\nHost: t\r\n" + close,
        b"nonsense\r\n\r\n",
        b"GET //%2f;@evil HTTP/1.1\r\nHost: x/admin?\r\n" + close,
    ]
    options = {"date_header": False, "server_header": False, "log_level": "critical"}
    with uvicorn_server(app, **options) as bare, uvicorn_server(_door(app), **options) as port:
        for sent in requests:
            assert exchange(port, sent) == exchange(bare, sent)
