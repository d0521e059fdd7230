"""Starlette and FastAPI applications behind the ASGI door answer as they do without it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Any

import anyio
import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.testclient import TestClient
from starlette.websockets import WebSocket
from tests.doors.asgi_play import BODY, GONE, Door, Wire, http

from budgetware import BudgetMiddleware, budget
from budgetware._core.policy import Policy
from budgetware._core.record import RequestRecord
from budgetware.asgi import ASGIApp, Message, Receive, Scope, Send

done: list[str] = []


async def _plain(request: Request) -> Response:
    with budget.stage("db"):
        return PlainTextResponse(f"hello {request.path_params}")


def _in_thread(request: Request) -> Response:
    with budget.stage("thread"):
        return JSONResponse({"route": request.url.path})


async def _echo(request: Request) -> Response:
    return Response(await request.body(), background=BackgroundTask(done.append, "echoed"))


async def _stream(request: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        for part in (b"a", b"", b"c"):
            with budget.stage("part"):
                yield part

    return StreamingResponse(parts())


async def _file(request: Request) -> Response:
    return FileResponse(__file__)


async def _fails(request: Request) -> Response:
    raise ValueError("no")


async def _upload(request: Request) -> Response:
    sizes = [len(part) async for part in request.stream()]
    return PlainTextResponse(f"{sum(sizes)} of {request.headers['content-type'][:20]}")


async def _socket(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text((await socket.receive_text()) + f" {budget.route}")
    await socket.close()


@contextlib.asynccontextmanager
async def _lifespan(app: Any) -> AsyncIterator[dict[str, str]]:
    yield {"started": "yes"}


def _state(request: Request) -> Response:
    return PlainTextResponse(request.state.started)


def _application(*middleware: Middleware) -> Starlette:
    return Starlette(
        routes=[
            Route("/plain/{name}", _plain, methods=["GET", "DELETE"]),
            Route("/thread", _in_thread),
            Route("/echo", _echo, methods=["POST", "PUT"]),
            Route("/stream", _stream),
            Route("/file", _file),
            Route("/fails", _fails),
            Route("/upload", _upload, methods=["POST"]),
            Route("/state", _state),
            Mount("/static", StaticFiles(directory=Path(__file__).parent)),
            WebSocketRoute("/socket", _socket),
        ],
        middleware=middleware,
        lifespan=_lifespan,
    )


CALLS: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "/plain/x", {}),
    ("HEAD", "/plain/x", {}),
    ("DELETE", "/plain/x", {}),
    ("POST", "/plain/x", {"content": b"x"}),
    ("GET", "/plain/x/", {"follow_redirects": False}),
    ("GET", "/thread", {}),
    ("POST", "/echo", {"content": b"x" * 100_000}),
    ("PUT", "/echo", {"content": b""}),
    ("GET", "/stream", {}),
    ("GET", "/file", {}),
    ("GET", "/file", {"headers": {"range": "bytes=3-9"}}),
    ("HEAD", "/file", {}),
    ("GET", "/fails", {}),
    ("POST", "/upload", {"content": b"y" * 70_000, "headers": {"content-type": "a/b"}}),
    ("GET", "/state", {}),
    ("GET", "/static/asgi_play.py", {}),
    ("GET", "/nowhere", {}),
    (
        "OPTIONS",
        "/plain/x",
        {"headers": {"origin": "http://a", "access-control-request-method": "GET"}},
    ),
]

STACKS: dict[str, list[Middleware]] = {
    "none": [],
    "gzip and cors": [
        Middleware(GZipMiddleware, minimum_size=1),
        Middleware(CORSMiddleware, allow_origins=["*"]),
    ],
}


def _answers(app: ASGIApp) -> list[object]:
    with TestClient(app, raise_server_exceptions=False) as client:
        answers: list[object] = []
        for method, path, more in CALLS:
            answer = client.request(method, path, **more)
            stable = [
                (name, value)
                for name, value in answer.headers.multi_items()
                if "boundary" not in value
            ]
            answers.append((answer.status_code, stable, answer.content))
        with client.websocket_connect("/socket") as socket:
            socket.send_text("hi")
            answers.append(socket.receive_text())
    return answers


@pytest.mark.parametrize("stack", STACKS)
def test_a_starlette_application_answers_the_same(stack: str) -> None:
    """Files, ranges, redirects, uploads, streams, errors, static files, lifespan, websockets."""
    done.clear()
    expected = _answers(_application(*STACKS[stack]))
    records: list[RequestRecord] = []
    door = Middleware(BudgetMiddleware, policy=Policy(), observers=[records.append])

    outermost = _answers(_application(door, *STACKS[stack]))
    innermost = _answers(_application(*STACKS[stack], door))

    assert outermost == expected
    assert innermost == expected
    # A preflight is answered by the CORS middleware, which one of the doors stands behind.
    missed = 1 if stack != "none" else 0
    assert len(records) == 2 * len(CALLS) - missed
    assert done == ["echoed"] * 6


class _Reads(BaseHTTPMiddleware):
    """What many services put around everything."""

    async def dispatch(self, request: Request, call_next: Callable[..., Any]) -> Response:
        """Call the next one inside a stage."""
        with budget.stage("around"):
            response: Response = await call_next(request)
        response.headers["x-left"] = str(budget.remaining())
        return response


@pytest.mark.parametrize("order", ["outside", "inside"])
def test_base_http_middleware_may_stand_on_either_side(order: str) -> None:
    """Inside the door it sees the budget, outside it does not; the endpoint always does."""
    records: list[RequestRecord] = []
    door = Middleware(BudgetMiddleware, policy=Policy(), observers=[records.append])
    stack = [door, Middleware(_Reads)] if order == "outside" else [Middleware(_Reads), door]
    with TestClient(_application(*stack)) as client:
        answer = client.get("/plain/x")
        assert client.get("/stream").content == b"ac"

    assert answer.text == "hello {'name': 'x'}"
    assert answer.headers["x-left"] == "inf"
    stages = [[opening.name for opening in record.openings] for record in records]
    if order == "outside":
        assert stages == [["around", "db"], ["around", "part", "part", "part"]]
    else:
        assert stages == [["db"], ["part", "part", "part"]]


def _sync_dependency() -> str:
    with budget.stage("sync-dependency"):
        return "t"


async def _yielding_dependency() -> AsyncIterator[str]:
    with budget.stage("yielding"):
        yield "y"


def _endpoint(
    number: int,
    one: Annotated[str, Depends(_sync_dependency)],
    two: Annotated[str, Depends(_yielding_dependency)],
) -> dict[str, str]:
    with budget.stage("endpoint"):
        return {"answer": f"{number}{one}{two}"}


def test_a_fastapi_application_has_its_stages_everywhere() -> None:
    """Sync and async endpoints and dependencies, and what is yielded, all belong to the request."""
    records: list[RequestRecord] = []
    app = FastAPI()
    app.add_middleware(BudgetMiddleware, policy=Policy(), observers=[records.append])
    app.get("/items/{number}")(_endpoint)
    with TestClient(app) as client:
        assert client.get("/items/7").json() == {"answer": "7ty"}
        assert client.get("/items/x").status_code == 422
        assert client.get("/openapi.json").status_code == 200

    names = [opening.name for opening in records[0].openings]
    assert sorted(names) == ["endpoint", "sync-dependency", "yielding"]
    assert [record.status for record in records] == [200, 422, 200]


@pytest.mark.anyio
async def test_polling_for_a_disconnect_sees_it() -> None:
    """``request.is_disconnected()`` after a body tells the truth, before and after."""
    seen: list[bool] = []
    gone = anyio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        await request.body()
        seen.append(await request.is_disconnected())
        gone.set()
        seen.append(await request.is_disconnected())
        await PlainTextResponse("late")(scope, receive, send)

    bodies = [BODY]

    async def receive() -> Message:
        if bodies:
            return bodies.pop()
        if not gone.is_set():
            await gone.wait()
        return GONE

    wire = Wire()
    await Door(app)(http("POST"), receive, wire.send)

    assert seen == [False, True]
    assert wire.body == b"late"
