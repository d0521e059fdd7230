"""A service with a backend of fixed capacity, for ``live.py``: ``python -m benchmarks.overloaded``.

The backend does eight things at once and takes 20 ms for each, so there are 400 requests per second
in it; what comes on top waits for its turn, which is what overload looks like from inside.
"""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import structlog
import uvicorn
from benchmarks.serving import serve
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from budgetware import BudgetMiddleware, budget

AT_ONCE = 8
TAKES_S = 0.02
CAPACITY = AT_ONCE / TAKES_S
BUDGET_S = 0.15


def application() -> BudgetMiddleware:
    """Return the service; ``BUDGETWARE_MODE=observe`` keeps it from answering in time.

    ``BUDGETWARE_ENV=limited`` has it run no more at once than its backend can make in time.
    """
    backend = asyncio.Semaphore(AT_ONCE)

    async def work(_: Request) -> Response:
        with budget.stage("backend"):
            async with backend:
                await asyncio.sleep(TAKES_S)
        return PlainTextResponse("full")

    async def health(_: Request) -> Response:
        return PlainTextResponse("ok")

    app = Starlette(routes=[Route("/work", work), Route("/healthz", health)])
    # Whoever starts this reads the port and nothing more: a full pipe would stop the server.
    nowhere = structlog.PrintLogger(Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
    return BudgetMiddleware(
        app,
        policy=Path(__file__).with_suffix(".yaml"),
        histograms="off",
        logger=structlog.wrap_logger(nowhere),
    )


def main() -> None:
    """Serve until a signal comes; print the port first."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        application(),
        loop="uvloop",
        http="httptools",
        lifespan="off",
        log_level="error",
        access_log=False,
        backlog=4096,
    )
    listening.listen()  # whoever reads the port may connect at once
    serve(config, listening)


if __name__ == "__main__":
    main()
