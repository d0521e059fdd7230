"""The Starlette application that is measured, plain and behind what is compared."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from time import thread_time
from typing import Any

from benchmarks.floor import FloorPerUse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from budgetware import budget

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[Any]]
Endpoint = Callable[[Request], Awaitable[Response]]

STAGES = ("gateway", "auth", "bridge", "db", "ml", "trading", "hub", "response")
HELLO = "/hello"
SIGNAL = "/signals/BTC"


async def hello(_: Request) -> Response:
    """Answer at once."""
    return PlainTextResponse("hello")


async def hello_in_floors(_: Request) -> Response:
    """Answer after eight of the cheapest timers that are safe to use concurrently."""
    kept: list[int] = []
    with FloorPerUse(kept):
        pass
    with FloorPerUse(kept):
        pass
    with FloorPerUse(kept):
        pass
    with FloorPerUse(kept):
        pass
    with FloorPerUse(kept):
        pass
    with FloorPerUse(kept):
        pass
    with FloorPerUse(kept):
        pass
    with FloorPerUse(kept):
        pass
    return PlainTextResponse("hello")


async def hello_in_stages(_: Request) -> Response:
    """Answer after the eight stages of the trading policy."""
    with budget.stage("gateway"):
        pass
    with budget.stage("auth"):
        pass
    with budget.stage("bridge"):
        pass
    with budget.stage("db"):
        pass
    with budget.stage("ml"):
        pass
    with budget.stage("trading"):
        pass
    with budget.stage("hub"):
        pass
    with budget.stage("response"):
        pass
    return PlainTextResponse("hello")


def application(endpoint: Endpoint) -> App:
    """Return a Starlette application that has *endpoint* under a fixed path and a template."""
    return Starlette(routes=[Route(HELLO, endpoint), Route("/signals/{symbol}", endpoint)])


def scope_of(path: str) -> Scope:
    """Return the scope of a new request, as uvicorn makes it."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"127.0.0.1:8000"), (b"accept", b"*/*")],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
        "state": {},
    }


async def receive() -> Message:
    """Return the empty body of a GET request."""
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(_: Message) -> None:
    """Take a message."""


class Client:
    """Sends requests to applications in this process, on one event loop.

    Attributes:
        sent: How many requests each application was sent, by name.

    """

    def __init__(self) -> None:
        self.sent: dict[str, int] = {}
        self._loop = asyncio.new_event_loop()

    def timing(self, name: str, app: App, path: str = HELLO) -> Callable[[int], float]:
        """Return what sends *app* so many requests and returns its processor seconds."""

        async def run(scopes: list[Scope]) -> float:
            before = thread_time()
            for scope in scopes:
                await app(scope, receive, send)
            return thread_time() - before

        def timed(times: int) -> float:
            self.sent[name] = self.sent.get(name, 0) + times
            scopes = [scope_of(path) for _ in range(times)]
            return self._loop.run_until_complete(run(scopes))

        return timed

    def answer(self, app: App, path: str = HELLO) -> list[Message]:
        """Return the messages *app* answers a request for *path* with."""
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        async def ask() -> None:
            await app(scope_of(path), receive, keep)

        self._loop.run_until_complete(ask())
        return messages
