"""Two hundred clients that only hold connections open, against eight slots, on real servers."""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from tests.integration.serving import gunicorn, head, request, uvicorn_server
from tests.servers import wait_until

from budgetware._core.policy import Match, Mode, Policy, TierPolicy
from budgetware._core.policy import Route as Listed
from budgetware.asgi import BudgetMiddleware

pytestmark = pytest.mark.server

MANY = 200
SLOTS = 8
POLICY = Policy(
    mode=Mode.ENFORCE,
    concurrency=SLOTS,
    tiers={"all": TierPolicy()},
    routes={"all": Listed(name="all", match=(Match("*", "/**"),))},
)
PART = b"x" * 65536

APP = f"""
import sys

sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from budgetware.wsgi import BudgetMiddleware
from tests.integration.test_servers_idle import PART, POLICY

held = [0]


def parts():
    held[0] += 1
    for _ in range(1 << 12):
        yield PART


def inner(env, start_response):
    if env["PATH_INFO"] == "/upload":
        held[0] += 1
        env["wsgi.input"].read()
    start_response("200 OK", [])
    if env["PATH_INFO"] == "/stream":
        return parts()
    return [str(held[0]).encode()]


app = BudgetMiddleware(inner, policy=POLICY)
"""


@contextlib.contextmanager
def asgi(_: Path) -> Iterator[int]:
    """Run uvicorn, and give its port."""
    held = 0

    async def upload(request: Request) -> Response:
        nonlocal held
        held += 1
        await request.body()
        return PlainTextResponse("done")

    async def stream(_: Request) -> Response:
        async def parts() -> Any:
            nonlocal held
            held += 1
            for _ in range(1 << 12):
                yield PART

        return StreamingResponse(parts())

    async def count(_: Request) -> Response:
        return PlainTextResponse(str(held))

    routes = [Route("/upload", upload, methods=["POST"]), Route("/stream", stream)]
    app = Starlette(routes=[*routes, Route("/{any:path}", count)])
    with uvicorn_server(BudgetMiddleware(app, policy=POLICY)) as port:
        yield port


@contextlib.contextmanager
def wsgi(folder: Path) -> Iterator[int]:
    """Run gunicorn, and give its port."""
    options = ("--worker-class=gevent", "--worker-connections=1000")
    with gunicorn(folder, APP, *options) as server:
        yield server.port


def _held(port: int) -> int:
    return int(request(port, "GET", "/healthz")[1])  # a health check is never refused


def _is_let_in(port: int, connection: socket.socket, before: int) -> bool:
    """Tell whether the server has begun with what was sent, or has refused it."""
    while _held(port) == before:
        if select.select([connection], [], [], 0)[0]:
            return b" 200 " in connection.recv(64, socket.MSG_PEEK)
    return True


def _hold(port: int, sent: bytes) -> socket.socket:
    """Return a connection of a client that is let in, sends *sent* and reads nothing."""
    while True:
        before = _held(port)
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", port))
        connection.sendall(sent)
        if _is_let_in(port, connection, before):
            return connection
        connection.close()


@pytest.mark.parametrize("server", [asgi, wsgi])
@pytest.mark.parametrize(
    "sent", [head("POST", "/upload", 10), head("GET", "/stream")], ids=["uploads", "readers"]
)
def test_idle_clients_keep_nobody_out(server: Any, sent: bytes, tmp_path: Path) -> None:
    """They come in as slots fall idle, all of them; and then everybody else is served."""
    with server(tmp_path) as port, contextlib.ExitStack() as connections:
        for _ in range(MANY):
            connections.enter_context(_hold(port, sent))
        assert _held(port) == MANY
        wait_until(lambda: request(port, "GET", "/other")[0] == 200, "a slot has fallen idle")

        others = [request(port, "GET", "/other")[0] for _ in range(100)]

    assert others == [200] * 100
