"""One process of a service that shares rates and answers: ``python -m benchmarks.redis_shared``.

Three of them run for ``redis_down.py``, all under the same policy: ``full`` serves every request in
full and so puts its answers into Redis; ``smaller`` answers every request with the smaller answer
at once, after it has asked Redis for the caller's rate and for the answer; ``without`` does the
same and has no Redis. It prints its port first.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import uvicorn
from benchmarks.serving import serve
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from budgetware import BudgetMiddleware, budget
from budgetware.answers.redis_store import AsyncRedisStore
from budgetware.limits.tasks import AsyncSharedRates
from budgetware.testing import deciding

if TYPE_CHECKING:
    from budgetware.asgi import ASGIApp, Receive, Scope, Send

FULL: Final = b"full"
"""The body of an answer that the process of this name has made; another's came out of Redis."""

SHARING: Final = 2
"""Processes with Redis; each goes on with this part of the rates when it is gone."""


def caller(scope: Scope) -> str | None:
    """Return who calls. A service takes that from its authentication, never from a bare header."""
    for name, value in scope["headers"]:
        if name == b"x-caller":
            found: bytes = value
            return found.decode("ascii")
    return None


def application(kind: str, url: str | None) -> ASGIApp:
    """Return the service, with the Redis at *url* or without any; ``/state`` tells how it is."""

    async def work(_: Request) -> Response:
        with budget.stage("backend"):
            return PlainTextResponse(kind)

    app = Starlette(routes=[Route("/work", work)])
    store = None if url is None else AsyncRedisStore(url)
    rates = None if url is None else AsyncSharedRates(url, workers=SHARING)
    door = BudgetMiddleware(
        app,
        policy=Path(__file__).with_suffix(".yaml"),
        identity=caller,
        store=store,
        rates=rates,
        histograms="off",
    )

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/state" or store is None or rates is None:
            await door(scope, receive, send)
            return
        state = {
            "shares": not (store.circuit.is_open or rates.circuit.is_open),
            "alone": rates.alone,
        }
        await JSONResponse(state)(dict(scope), receive, send)

    return serve


def main(kind: str, url: str | None = None) -> None:
    """Serve until a signal comes."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(4096)  # from here on nobody is refused
    config = uvicorn.Config(
        application(kind, url),
        loop="uvloop",
        http="httptools",
        lifespan="off",
        log_level="error",
        access_log=False,
        timeout_keep_alive=600,  # no request meets a connection that is being closed
    )
    with contextlib.ExitStack() as stack:
        if kind != "full":
            stack.enter_context(deciding("answer"))
        serve(config, listening, silent=True)  # nobody reads what is logged


if __name__ == "__main__":
    main(*sys.argv[1:])
