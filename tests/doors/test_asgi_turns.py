"""Turns that not every application lets through, answers that are being made when things change."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import anyio
import pytest
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from tests.doors.steered_play import SIGNALS, Answered, Play

from budgetware import budget
from budgetware._core.policy import StagePolicy, TierPolicy
from budgetware.asgi import ASGIApp, Message
from budgetware.asgi.behind import HOLD_S
from budgetware.testing import deciding

GATED = replace(SIGNALS, stages={"ml": StagePolicy(answers=True)}, cache=None)


def through(dispatch: Any) -> Any:
    """Return what puts Starlette's own kind of middleware around an application."""

    def wrapped(app: ASGIApp) -> ASGIApp:
        return BaseHTTPMiddleware(app, dispatch)

    return wrapped


async def passing(request: Request, follow: Any) -> Response:
    """Do nothing."""
    response: Response = await follow(request)
    return response


async def catching(request: Request, follow: Any) -> Response:
    """Make an answer of every error."""
    try:
        response: Response = await follow(request)
    except Exception as error:  # noqa: BLE001 - as many do
        return JSONResponse({"error": repr(error)}, 500)
    return response


async def given_up(_: Request) -> Response:
    """Give up."""
    budget.degrade("no_model")
    return PlainTextResponse("full")


def test_a_turn_that_a_middleware_has_made_an_error_of_is_taken() -> None:
    """The client has the smaller answer, not the middleware's."""
    play = Play(given_up, wrapped=through(catching))

    answered = play.ask()

    assert (answered.kind, answered.complete) == ("static", True)
    assert play.outcomes == {"degraded": 1}
    play.check()


def test_a_turn_that_was_gathered_is_taken() -> None:
    """What the application makes of it reaches nobody."""

    async def part() -> int:
        with budget.stage("ml"):
            return 1

    async def endpoint(_: Request) -> Response:
        parts = await asyncio.gather(part(), part(), return_exceptions=True)
        return PlainTextResponse(repr(parts))

    play = Play(endpoint, GATED)
    with deciding("answer"):
        answered = play.ask()

    assert (answered.kind, answered.complete) == ("static", True)
    play.check()


def test_a_turn_in_a_task_that_dies_of_it_is_answered_at_once() -> None:
    """Whoever waits for that task may wait long; the client does not."""

    async def endpoint(_: Request) -> Response:
        async def work() -> None:
            budget.degrade("no_model")

        task = asyncio.create_task(work())
        await asyncio.wait({task})
        assert task.exception() is not None
        await asyncio.sleep(1.0)
        return PlainTextResponse("full")

    play = Play(endpoint)

    answered = play.ask()

    assert (answered.kind, answered.complete) == ("static", True)
    assert answered.at_s[-1] == 0.0
    assert play.ended_at_s == pytest.approx(1.0)
    play.check()


def test_no_stage_ends_a_request_within_a_shield() -> None:
    """What has to be finished is."""
    log: list[str] = []

    async def endpoint(_: Request) -> Response:
        with budget.shield():
            log.append("charge")
            with budget.stage("ml"):
                log.append("charged")
        return PlainTextResponse("full")

    play = Play(endpoint, replace(GATED, answers=("fallback",), static=None))
    with deciding("answer"):  # at the beginning there is nothing to answer with
        answered = play.ask()

    assert (answered.kind, log) == (None, ["charge", "charged"])
    play.check()


def test_shields_are_left_by_who_has_entered_them() -> None:
    """One that is left twice, or never was entered, ends nobody else's."""
    ended: list[float] = []

    async def endpoint(_: Request) -> Response:
        other = budget.shield()
        with budget.shield():
            with other:
                pass
            other.__exit__(None, None, None)
            await asyncio.sleep(0.2)
            ended.append(play.time.now)
        await asyncio.sleep(0.3)
        return PlainTextResponse("full")

    play = Play(endpoint)

    assert play.ask().at_s[-1] == pytest.approx(0.2)
    play.check()


async def _cancelled(_: Any) -> str:
    await asyncio.sleep(0.005)
    shared = asyncio.get_running_loop().create_future()
    shared.cancel()
    await shared
    return "never"


@pytest.mark.parametrize("seconds", [0.05, 0.089, 0.3])
def test_a_fallback_whose_own_work_was_cancelled_has_failed_and_no_more(seconds: float) -> None:
    """The next answer is sent, or the application's; the request is not cancelled."""

    async def endpoint(_: Request) -> Response:
        await asyncio.sleep(seconds)
        return PlainTextResponse("full")

    route = replace(SIGNALS, answers=("fallback", "static"), cache=None)
    play = Play(endpoint, route, fallbacks={"signals": _cancelled})

    answered = play.ask()

    assert answered.complete
    assert answered.body == (b"static" if seconds > 0.1 else b"full")


async def _slow(_: Any) -> str:
    await asyncio.sleep(0.005)
    return "cheap"


FALLBACK = replace(SIGNALS, answers=("fallback",), static=None, cache=None)


def test_an_error_while_the_clock_makes_its_answer_is_one_behind_it() -> None:
    """The server does not hear of it, or it would close the connection."""

    def wrapped(_: ASGIApp) -> ASGIApp:
        async def failing(*_: Any) -> None:
            await asyncio.sleep(0.089)
            raise ValueError

        return failing

    play = Play(given_up, FALLBACK, wrapped=wrapped, fallbacks={"signals": _slow})

    answered = play.ask()

    assert (answered.body, answered.complete) == (b"cheap", True)
    assert play.outcomes == {"degraded": 1}
    play.check()


def test_a_server_that_gives_up_while_the_clock_makes_its_answer_is_sent_nothing() -> None:
    """The request has left, once."""

    async def endpoint(_: Request) -> Response:
        await asyncio.sleep(1.0)
        return PlainTextResponse("full")

    play = Play(endpoint, FALLBACK, fallbacks={"signals": _slow})
    answered = Answered()

    async def ask() -> None:
        with anyio.move_on_after(0.089):
            await play.asking(into=answered)
        await asyncio.sleep(0.1)

    play.time.run(ask())
    assert answered.messages == []
    assert play.outcomes == {"client_gone": 1}
    play.check()


def test_a_tier_that_changes_while_the_clock_makes_its_answer_has_its_own() -> None:
    """What was promised to the tier before is not sent to this one."""
    tiers = {"pro": TierPolicy(budget=0.1), "free": TierPolicy(budget=10.0)}

    async def endpoint(_: Request) -> Response:
        await asyncio.sleep(0.089)
        budget.tier = "free"
        await asyncio.sleep(0.1)
        return PlainTextResponse("full")

    play = Play(endpoint, FALLBACK, tiers=tiers, fallbacks={"signals": _slow})

    assert play.ask().body == b"full"


def test_a_request_of_before_a_reload_is_still_decided_on_under_another_tier() -> None:
    """It keeps its policy, whole."""
    tiers = {"free": TierPolicy(budget=5.0), "pro": TierPolicy(budget=0.1)}

    async def endpoint(_: Request) -> Response:
        play.door._engine.adopt(play.door._engine.policy)
        budget.tier = "pro"
        await asyncio.sleep(5.0)
        return PlainTextResponse("full")

    play = Play(endpoint, tiers=tiers)

    assert play.ask().at_s[-1] <= 0.1


def torso() -> Any:
    """Return a body that is not whole when its first part has gone."""

    async def parts() -> Any:
        yield b"[1, "
        await asyncio.sleep(0.05)
        yield b"2]"

    return parts()


def test_what_a_client_has_not_waited_for_is_not_kept() -> None:
    """Starlette's middleware ends a stream that was cut as if that had been all."""
    seconds = [0.0]

    async def endpoint(_: Request) -> Response:
        await asyncio.sleep(seconds[0])
        return StreamingResponse(torso(), headers={"cache-control": "max-age=60"})

    play = Play(endpoint, wrapped=through(passing))

    async def leave() -> None:
        received: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]

        async def receive() -> Message:
            if received:
                return received.pop()
            await asyncio.sleep(0.02)
            return {"type": "http.disconnect"}

        await play.asking(receive=receive)

    play.time.run(leave())
    seconds[0] = 0.3

    assert play.ask().body == b"static"


def test_what_has_failed_half_way_is_not_kept() -> None:
    """Nor is it, when a middleware has ended it in order."""
    seconds = [0.0]

    async def endpoint(_: Request) -> Response:
        await asyncio.sleep(seconds[0])

        async def parts() -> Any:
            yield b"[1, "
            raise ValueError

        return StreamingResponse(parts(), headers={"cache-control": "max-age=60"})

    play = Play(endpoint, wrapped=through(passing))
    with pytest.raises(ValueError):  # noqa: PT011 - the application's
        play.ask()
    seconds[0] = 0.3

    assert play.ask().body == b"static"


def test_a_whole_stream_is_kept() -> None:
    """Although its length was not known before."""
    seconds = [0.0]

    async def endpoint(_: Request) -> Response:
        await asyncio.sleep(seconds[0])
        return StreamingResponse(torso(), headers={"cache-control": "max-age=60"})

    play = Play(endpoint, wrapped=through(passing))
    play.ask()
    seconds[0] = 0.3

    assert (play.ask().kind, play.ask().body) == ("cached", b"[1, 2]")
    play.check()


def test_an_endless_stream_behind_an_answer_ends() -> None:
    """From version 2.4 of ASGI on, sending tells an application that its client has left."""

    async def endpoint(_: Request) -> Response:
        async def parts() -> Any:
            while True:
                await asyncio.sleep(0.5)
                yield b"."

        await asyncio.sleep(0.3)
        return StreamingResponse(parts())

    play = Play(endpoint)

    play.ask(asgi={"version": "3.0", "spec_version": "2.4"})

    assert HOLD_S < play.ended_at_s < HOLD_S + 2.0
    play.check()


def test_only_what_would_be_kept_is_made_anew() -> None:
    """The response to HEAD is not, so a stale one starts no work."""
    began: list[str] = []

    async def endpoint(request: Request) -> Response:
        began.append(request.method)
        await asyncio.sleep(0.3)
        return PlainTextResponse("full", headers={"cache-control": "max-age=1"})

    play = Play(endpoint)
    play.ask()
    play.time.now += 5.0
    began.clear()
    with deciding("answer"):
        assert play.ask("HEAD").kind == "cached"
        assert began == []
        assert play.ask("GET").kind == "cached"
        assert began == ["GET"]
    play.check()
