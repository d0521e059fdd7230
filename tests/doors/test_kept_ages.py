"""How old is what was kept? As old as its request, whatever happened after that."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response
from tests.doors.steered_play import SIGNALS, Answered, Play
from tests.doors.wsgi_play import Wire
from tests.doors.wsgi_steered_play import Stand

from budgetware._core.policy import CachePolicy, Match, Mode, TierPolicy
from budgetware.asgi import Message
from budgetware.testing import deciding

ROUTE = replace(
    SIGNALS,
    match=(Match("*", "/signals"),),
    answers=("cached", "static"),
    cache=CachePolicy(fresh=10.0, stale=20.0),
)
TIERS = {"pro": TierPolicy(budget=5.0)}


def age_of(answered: Answered) -> int:
    """Return the age the cached answer tells of."""
    headers = dict(answered.messages[0]["headers"])
    assert headers[b"budgetware-answer"] == b"cached"
    return int(headers[b"age"])


def asked_again(play: Play) -> Answered:
    """Ask once more, where nothing but a kept response will fit."""
    with deciding("answer"):
        return play.ask()


def test_work_after_the_response_makes_it_no_younger() -> None:
    """A background task runs in the application's call, and the response is kept when that ends."""

    async def endpoint(_: Request) -> Response:
        response = Response("full", background=BackgroundTask(asyncio.sleep, 8))
        del response.headers["content-length"]  # whole only when the call has ended
        return response

    play = Play(endpoint, ROUTE, tiers=TIERS)
    play.ask()
    play.time.now += 1

    assert age_of(asked_again(play)) == 9
    play.check()


def test_a_client_that_reads_slowly_makes_a_response_no_younger() -> None:
    """His time is no part of the budget, and passes all the same."""

    async def endpoint(_: Request) -> Response:
        return Response("full")

    async def send(message: Message) -> None:
        await asyncio.sleep(3)  # before it takes anything more

    async def app_with_parts(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b"b", "more_body": False})

    play = Play(endpoint, ROUTE, tiers=TIERS, wrapped=lambda _: app_with_parts)
    play.time.run(play.asking(send=send))
    play.time.now += 1

    # Three for the start, three for each of the two parts, and one.
    assert age_of(asked_again(play)) == 10
    play.check()


def test_a_slow_reader_behind_wsgi_makes_a_response_no_younger() -> None:
    """Nor does one whose server takes the parts as they are made."""

    def app(_: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"a"
        yield b"b"

    def reads(_: bytes) -> None:
        stand.time.now += 3

    stand = Stand(app, ROUTE, mode=Mode.ENFORCE)
    stand.ask(wire=Wire(on_part=reads))
    stand.time.now += 1
    with deciding("answer"):
        got = stand.ask()

    assert got.kind == "cached"
    assert got.headers["age"] == "7"
    stand.check()
