"""The service under soak: ``python -m soak.served POLICY REDIS_URL``. It prints its port first.

Whatever it makes for a request says for whom and for which address, line by line. Beside the
door, at ``/state``, it tells what it has under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import socket
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import structlog
import uvicorn
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from budgetware import BudgetMiddleware, budget
from budgetware.answers.redis_store import AsyncRedisStore
from budgetware.limits.tasks import AsyncSharedRates
from budgetware.telemetry.readers import AggregatedHistograms

if TYPE_CHECKING:
    from budgetware.asgi import ASGIApp, Receive, Scope, Send

SECOND: Final = 1.0
LINES: Final = 8
STREAMED_PARTS: Final = 40
STREAMED_LINES: Final = 400


def header(scope: Scope, name: bytes) -> str | None:
    """Return a field of a request; a real service takes who calls from its authentication."""
    for found, value in scope["headers"]:
        if found == name:
            text: bytes = value
            return text.decode("ascii")
    return None


def made_for(who: str, path: str, lines: int = LINES) -> str:
    """Return the body made for *who* at *path*: the same line, again and again."""
    return f"{who}|{path}|\n" * lines


def body_for(request: Request) -> str:
    """Return what is made for *request*; what is public is made for nobody in particular."""
    path = request.url.path
    who = "anybody" if path.startswith("/public/") else header(request.scope, b"x-caller")
    return made_for(who or "nobody", path)


def seconds_of(request: Request) -> float:
    """Return how long the work for *request* takes, as it says."""
    return min(SECOND, float(request.query_params.get("s", "0")))


async def work(request: Request) -> Response:
    """Work in one stage, and respond."""
    with budget.stage("db", "select"):
        await asyncio.sleep(seconds_of(request))
    return PlainTextResponse(body_for(request))


async def group(request: Request) -> Response:
    """Work in tasks, one of which gives up or fails."""

    async def child(name: str) -> None:
        with budget.stage(name):
            await asyncio.sleep(seconds_of(request))
        if name == "hub" and request.query_params.get("gives") == "up":
            budget.degrade("no_hub")

    async with asyncio.TaskGroup() as tasks:
        for name in ("db", "hub"):
            tasks.create_task(child(name))
    return PlainTextResponse(body_for(request))


async def optional(request: Request) -> Response:
    """Work with a stage that may be left out, under a shield at the end."""

    async def instead() -> float:
        return 0.0

    @budget.stage("ml", fallback=instead)
    async def score() -> float:
        await asyncio.sleep(seconds_of(request))
        return 1.0

    with budget.stage("db"):
        await asyncio.sleep(0.005)
    await score()
    with budget.shield():
        await asyncio.sleep(0.001)
    budget.tier = "vip"
    return PlainTextResponse(body_for(request))


def thread(request: Request) -> Response:
    """Work in a thread of the server's, and in another that may outlive the request."""
    slept = threading.Event()

    def carried() -> None:
        with budget.stage("carried"):
            slept.wait(seconds_of(request))

    worker = threading.Thread(target=budget.carry(carried))
    worker.start()
    with budget.stage("hub"):
        slept.wait(seconds_of(request) / 2)
    return PlainTextResponse(body_for(request))


async def upload(request: Request) -> Response:
    """Take what is sent, and work on it."""
    try:
        async for _ in request.stream():
            pass
    except ClientDisconnect:
        return Response(status_code=499)  # nobody is left to read it
    with budget.stage("db", "insert"):
        await asyncio.sleep(seconds_of(request))
    return PlainTextResponse(body_for(request))


async def stream(request: Request) -> Response:
    """Send much, in parts."""
    who = header(request.scope, b"x-caller") or "nobody"

    async def parts() -> AsyncIterator[str]:
        for _ in range(STREAMED_PARTS):
            yield made_for(who, request.url.path, STREAMED_LINES)
            await asyncio.sleep(0)

    return StreamingResponse(parts(), media_type="text/plain")


async def cheap(scope: Scope) -> str:
    """Be the cheap answer of the application."""
    return made_for(header(scope, b"x-caller") or "nobody", scope["path"], 1)


class _Reader(AggregatedHistograms, InMemoryMetricReader):
    """Collects what is measured, as an exporter would."""


class Service:
    """The application, and all that can be told of it.

    Args:
        policy: The policy file, which is watched.
        redis_url: What processes share.

    """

    def __init__(self, policy: Path, redis_url: str) -> None:
        app = Starlette(
            routes=[
                *(
                    Route(f"/{name}/{{item}}", work)
                    for name in ("full", "public", "slow", "behind")
                ),
                Route("/group/{item}", group),
                Route("/optional/{item}", optional),
                Route("/thread/{item}", thread),
                Route("/upload/{item}", upload, methods=["POST"]),
                Route("/stream/{item}", stream),
            ]
        )
        self._reader = _Reader()
        self._redis_port = urlsplit(redis_url).port
        self._rates = AsyncSharedRates(redis_url, workers=1)
        self._store = AsyncRedisStore(redis_url)
        self._door = BudgetMiddleware(
            app,
            policy=policy,
            reload="file",
            identity=lambda scope: header(scope, b"x-caller"),
            tier=lambda scope: header(scope, b"x-plan"),
            fallbacks={"slow": cheap, "group": cheap},
            store=self._store,
            rates=self._rates,
            server_timing=lambda scope: header(scope, b"x-timing") is not None,
            meter_provider=MeterProvider([self._reader], shutdown_on_exit=False),
            tracer_provider=TracerProvider(shutdown_on_exit=False),
            traces="stages",
            logger=structlog.wrap_logger(
                structlog.PrintLogger(Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
            ),
        )
        self._tracer = TracerProvider(shutdown_on_exit=False).get_tracer("soak")
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and scope["path"] == "/state":
            if scope["query_string"] == b"settled":
                gc.collect()
            await JSONResponse(self.state())(dict(scope), receive, send)
            return
        self._under_way += 1
        try:
            with self._tracer.start_as_current_span("request"):
                await self._door(scope, receive, send)
        finally:
            self._under_way -= 1

    def state(self) -> dict[str, Any]:
        """Return what is under way, and what was counted."""
        self._reader.get_metrics_data()
        engine = self._door._engine
        tally = engine.tally
        tally.absorb()
        outcomes: Counter[str] = Counter()
        for series in tally.requests.values():
            outcomes.update(series.outcomes)
        answers: Counter[str] = Counter()
        for (_, _, answer, _), count in tally.degraded.items():
            answers[answer] += count
        admissions = [one for one in (engine.entrance.enforced, engine.entrance.shadow) if one]
        memory = self._door._helm()._cache.memory
        files = _open_files(self._redis_port)
        return {
            "requests": self._under_way,
            "slots": sum(one.in_flight for one in admissions),
            "waiting": sum(waits for one in admissions for _, waits in one.load().values()),
            "steered": engine._traffic.now,
            "tasks": len(asyncio.all_tasks()),
            "threads": Counter(_kind(one.name) for one in threading.enumerate()),
            "files": files["other"],
            "redis_connections": files["redis"],
            "cache_bytes": memory.size_bytes,
            "faults": tally.faults,
            "outcomes": outcomes,
            "answers": answers,
            "policy": engine.policy.digest,
            "shares": not (self._store.circuit.is_open or self._rates.circuit.is_open),
            "alone": self._rates.alone,
        }


def _kind(name: str) -> str:
    """Return a thread's name without its number."""
    return name.rstrip("0123456789").rstrip("-_( )") or "Thread"


def _open_files(redis_port: int | None) -> Counter[str]:
    """Return how many descriptors are open: connections to the Redis, and others.

    One that a killed Redis has reset is in no table of the system's any more; it stays with whoever
    keeps it for the next use.
    """
    ports = {
        fields[9]: int(fields[2].rpartition(":")[2], 16)
        for line in Path("/proc/self/net/tcp").read_text("ascii").splitlines()[1:]
        if (fields := line.split())
    }
    local = Path("/proc/self/net/unix").read_text("ascii").split()  # an event loop has some
    found: Counter[str] = Counter()
    for number in list(Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(OSError):  # that of the listing itself
            kind, _, inode = number.readlink().name.rstrip("]").partition(":[")
            is_theirs = inode not in local and ports.get(inode, redis_port) == redis_port
            found["redis" if kind == "socket" and is_theirs else "other"] += 1
    return found


def main(policy: str, redis_url: str) -> None:
    """Serve until a signal comes."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(1024)
    service: ASGIApp = Service(Path(policy), redis_url)
    # A client that is held up for long does not find its connection closed. No longer, for so long
    # uvicorn keeps what belonged to a connection that its client has closed.
    config = uvicorn.Config(
        service, lifespan="off", log_level="warning", access_log=False, timeout_keep_alive=60
    )
    print(json.dumps({"port": listening.getsockname()[1]}), flush=True)
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again
        uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main(*sys.argv[1:])
