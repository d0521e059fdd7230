"""A request leaves nothing behind that only the garbage collector finds."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from tests.doors.steered_play import POLICY, SIGNALS, Play
from tests.doors.wsgi_steered_play import Stand

from budgetware import budget
from budgetware._core.policy import Mode, StagePolicy, TierPolicy
from budgetware.wsgi import StartResponse

GATED = replace(SIGNALS, stages={"ml": StagePolicy(answers=True)}, cancel_safe=True)
LIMITED = replace(
    POLICY, concurrency=2, tiers={"pro": TierPolicy(budget=0.1, rate=1000.0, queue=0.05)}
)


@contextmanager
def collected() -> Iterator[list[Any]]:
    """Give the objects that only the collector has found when the block is over."""
    garbage: list[Any] = []
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield garbage
        gc.collect()
        garbage += gc.garbage
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


async def at_once(_: Request) -> Response:
    """Answer in time."""
    with budget.stage("ml"):
        return PlainTextResponse("full")


async def late(_: Request) -> Response:
    """Work for too long."""
    with budget.stage("ml"):
        await asyncio.sleep(0.5)
    return PlainTextResponse("full")


async def degrades(_: Request) -> Response:
    """Ask for something smaller."""
    budget.degrade("no_model")
    return PlainTextResponse("full")


async def uploads(request: Request) -> Response:
    """Read what is sent."""
    return PlainTextResponse(await request.body())


async def streams(_: Request) -> Response:
    """Answer in parts, and go on in the background."""

    async def parts() -> AsyncIterator[bytes]:
        yield b"fu"
        await asyncio.sleep(0.01)
        yield b"ll"

    return StreamingResponse(parts(), background=BackgroundTask(asyncio.sleep, 0.01))


async def fails(_: Request) -> Response:
    """Fail."""
    raise ValueError


async def cancelled(_: Request) -> Response:
    """Be cancelled by the server."""
    await asyncio.sleep(0.01)
    asyncio.current_task().cancel()  # type: ignore[union-attr] # no variable: the task keeps it
    await asyncio.sleep(0.01)
    raise AssertionError


ENDPOINTS = [at_once, late, degrades, uploads, streams, fails, cancelled]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("limited", [False, True])
def test_an_asgi_request_leaves_no_cycle(method: str, mode: Mode, *, limited: bool) -> None:
    """However it ends: what it held is free when it has left."""
    policy = replace(LIMITED if limited else POLICY, mode=mode, routes={"signals": GATED})
    plays = [Play(endpoint, policy=policy) for endpoint in ENDPOINTS]

    async def ask(play: Play) -> None:
        for _ in range(3):
            # A task of its own keeps what it has ended with, as a server's does.
            (task,), _ = await asyncio.wait({asyncio.create_task(play.asking(method))})
            assert task.cancelled() or type(task.exception()) in {ValueError, type(None)}
            del task
            play.time.now += 1.0
        await asyncio.sleep(60)  # no timer holds on to it either

    for play in plays:
        play.time.run(ask(play))
    with collected() as garbage:
        for play in plays:
            play.time.run(ask(play))

    assert garbage == []
    for play in plays:
        play.check()


def works(_: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """Answer in time."""
    with budget.stage("ml"):
        start_response("200 OK", [])
        return [b"full"]


def reads(env: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """Read what is sent."""
    env["wsgi.input"].read()
    start_response("200 OK", [])
    yield b"full"


def gives_way(env: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """Ask for something smaller."""
    budget.degrade("no_model")
    return works(env, start_response)


@pytest.mark.parametrize("app", [works, reads, gives_way])
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("limited", [False, True])
def test_a_wsgi_request_leaves_no_cycle(
    app: Any, method: str, mode: Mode, *, limited: bool
) -> None:
    """Over WSGI the same."""
    route = replace(GATED, cancel_safe=False)
    policy = replace(LIMITED if limited else POLICY, mode=mode, routes={"signals": route})
    stand = Stand(app, policy=policy)
    for _ in range(3):
        stand.ask(method=method)
    with collected() as garbage:
        for _ in range(3):
            stand.ask(method=method)

    assert garbage == []
    stand.check()
