"""What becomes of the application once its client was answered by us: nothing it could notice."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Any

import pytest
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from tests.doors.steered_play import SIGNALS, Answered, Play, taking

from budgetware import budget
from budgetware._core.policy import TierPolicy
from budgetware._core.record import Outcome, RequestRecord
from budgetware.asgi import ASGIApp, Message
from budgetware.asgi.behind import HOLD_S


def errors(play: Play) -> int:
    """Return how many requests have failed."""
    return play.door._engine.tally.requests["signals", "pro"].errors


def test_an_error_behind_an_answer_goes_no_further(caplog: pytest.LogCaptureFixture) -> None:
    """It is counted and logged once; the server would close the client's connection for it."""

    async def endpoint(_: Request) -> Response:
        await asyncio.sleep(0.3)
        raise ValueError("too deep")

    play = Play(endpoint)
    with caplog.at_level(logging.ERROR, "budgetware"):
        answered = play.ask()

    assert answered.complete
    assert play.outcomes == {"degraded": 1}
    assert errors(play) == 1
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["too deep"]
    play.check()


def test_a_failed_status_behind_an_answer_counts_and_is_not_kept() -> None:
    """The next client has the static answer, not the failure."""

    async def endpoint(_: Request) -> Response:
        await asyncio.sleep(0.3)
        raise HTTPException(503, headers={"cache-control": "max-age=60"})

    play = Play(endpoint)

    assert [play.ask().kind, play.ask().kind] == ["static", "static"]
    assert errors(play) == 2
    play.check()


def test_the_servers_own_cancellation_goes_through() -> None:
    """A server that ends its requests is not kept from it."""

    async def endpoint(_: Request) -> Response:
        await asyncio.sleep(0.3)
        return PlainTextResponse("full")

    play = Play(endpoint)

    async def ask() -> None:
        task = asyncio.create_task(play.asking())
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    play.time.run(ask())
    assert play.outcomes == {"degraded": 1}
    play.check()


def test_who_waits_for_the_client_to_leave_is_told_after_a_while() -> None:
    """An application that works until its client has gone neither stops early nor hangs."""
    heard: list[str] = []

    async def endpoint(request: Request) -> Response:
        await request.body()
        while True:
            heard.append((await request.receive())["type"])
            if heard[-1] == "http.disconnect":
                return PlainTextResponse("late")

    play = Play(endpoint)

    answered = play.ask()

    assert (answered.kind, heard) == ("static", ["http.disconnect"])
    assert HOLD_S < play.ended_at_s < HOLD_S + 0.2
    play.check()


def test_a_look_whether_the_client_has_left_says_no() -> None:
    """The client has been served; the work behind it is to go on."""
    seen: list[bool] = []

    async def endpoint(request: Request) -> Response:
        await asyncio.sleep(0.3)
        seen.append(await request.is_disconnected())
        return PlainTextResponse("full")

    play = Play(endpoint)

    assert play.ask().kind == "static"
    assert seen == [False]
    play.check()


def test_a_body_that_was_not_read_in_time_is_not_waited_for() -> None:
    """The server has nothing more to give once the response is whole."""
    raised: list[bool] = []

    async def endpoint(request: Request) -> Response:
        await asyncio.sleep(0.3)
        try:
            await request.body()
        except ClientDisconnect:
            raised.append(True)
        return PlainTextResponse("full")

    play = Play(endpoint)

    async def ask() -> float:
        async def receive() -> Message:
            return {"type": "http.disconnect"}

        began_s = play.time.now
        await play.asking("PUT", receive=receive)
        return play.time.now - began_s

    assert play.time.run(ask()) == pytest.approx(0.3)
    assert raised == [True]
    play.check()


def test_background_tasks_of_a_response_behind_an_answer_run() -> None:
    """They are part of the work."""
    ran: list[bool] = []

    async def endpoint(_: Request) -> Response:
        await asyncio.sleep(0.3)
        return PlainTextResponse("full", background=BackgroundTask(lambda: ran.append(True)))

    play = Play(endpoint)

    assert play.ask().kind == "static"
    assert ran == [True]
    play.check()


def test_nothing_is_left_out_behind_an_answer() -> None:
    """Its work is whole, or it could neither refresh the cache nor teach the forecast."""
    made: list[str] = []

    @budget.stage("ml", fallback=lambda: made.append("fallback"))
    async def score() -> None:
        made.append("ml")

    async def endpoint(_: Request) -> Response:
        await asyncio.sleep(0.3)
        await score()
        budget.degrade("too_late_for_that")
        return PlainTextResponse("full", headers={"cache-control": "max-age=1"})

    play = Play(endpoint)

    kinds = [play.ask().kind for _ in range(12)]

    assert set(made) == {"ml"}
    assert kinds[0] == "static"
    assert set(kinds[1:]) == {"cached"}
    play.check()


def test_what_was_made_with_a_stage_left_out_is_not_kept() -> None:
    """It counts as degraded, and the cache has only what is whole."""
    records: list[RequestRecord] = []

    @budget.stage("ml", fallback=lambda: "part")
    async def score() -> str:
        await asyncio.sleep(0.3)
        return "whole"

    async def endpoint(_: Request) -> Response:
        await asyncio.sleep(0.005)
        made = await score()
        kept = "no-store" if made == "whole" else "max-age=600"
        return PlainTextResponse(made, headers={"cache-control": kept})

    route = replace(SIGNALS, answers=("cached",), static=None)
    play = Play(endpoint, route, observers=[records.append])
    bodies = [play.ask().body for _ in range(30)]

    partial = [record for record in records if record.answer == "partial"]
    assert len(partial) == bodies.count(b"part") > 5
    assert {record.outcome for record in partial} == {Outcome.DEGRADED}
    assert play.outcomes == {"degraded": len(partial), "breached": 30 - len(partial)}
    assert len(play.door._steers._cache.memory) == 0  # type: ignore[union-attr]
    play.check()


def test_a_client_that_is_gone_while_it_is_answered_is_counted() -> None:
    """Whatever the server's send does, a request has an outcome."""
    play = Play(taking(0.3))

    async def ask() -> Answered:
        async def send(_: Message) -> None:
            raise OSError

        return await play.asking(send=send)

    play.time.run(ask())

    assert play.outcomes == {"degraded": 1}
    assert play.door._engine._traffic.now == 0


def test_observers_hear_of_an_answer_after_it_has_left() -> None:
    """A slow one costs the client nothing."""
    sent: list[int] = []
    answered = Answered()

    def observe(_: RequestRecord) -> None:
        sent.append(len(answered.messages))

    play = Play(taking(0.3), observers=[observe])

    play.time.run(play.asking(into=answered))

    assert sent == [2]
    play.check()


def test_an_informational_message_does_not_begin_the_response() -> None:
    """Only the start of the response does."""

    def wrapped(inner: ASGIApp) -> ASGIApp:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.push", "path": "/style.css", "headers": []})
            await inner(scope, receive, send)

        return app

    answered = Play(taking(0.3), wrapped=wrapped).ask()

    assert answered.messages[0]["type"] == "http.response.push"
    assert dict(answered.messages[1]["headers"])[b"budgetware-answer"] == b"static"


def test_a_response_with_trailers_is_not_kept() -> None:
    """They would be lost."""

    async def endpoint(_: Request) -> Response:
        await asyncio.sleep(0.3)
        return PlainTextResponse("full", headers={"cache-control": "max-age=9"})

    def wrapped(inner: ASGIApp) -> ASGIApp:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            async def trailing(message: Message) -> None:
                begins = message["type"] == "http.response.start"
                await send({**message, "trailers": True} if begins else message)
                if message["type"] == "http.response.body":
                    await send({"type": "http.response.trailers", "headers": []})

            await inner(scope, receive, trailing)

        return app

    play = Play(endpoint, wrapped=wrapped)

    assert [play.ask().kind, play.ask().kind] == ["static", "static"]
    play.check()


def test_a_stale_response_is_made_anew_by_one_request_at_a_time() -> None:
    """The others get it stale; a leader that was cancelled leaves its place to the next."""
    at_work: list[int] = []
    most_at_work = [0]

    async def endpoint(_: Request) -> Response:
        at_work.append(1)
        most_at_work[0] = max(most_at_work[0], len(at_work))
        try:
            await asyncio.sleep(0.5)
        finally:
            at_work.pop()
        return PlainTextResponse("full", headers={"cache-control": "max-age=1"})

    play = Play(endpoint)
    for _ in range(8):
        play.ask()
    most_at_work[0] = 0
    for _ in range(3):  # as earned by so many earlier requests
        play.door._engine._traffic.allowance.refund()

    async def storm() -> list[Answered]:
        await asyncio.sleep(2.0)
        asked = [asyncio.create_task(play.asking()) for _ in range(20)]
        await asyncio.sleep(0.1)
        refreshed = play.door._steers._cache._refreshed  # type: ignore[union-attr]
        assert len(refreshed) == 1
        for task in asked:
            task.cancel()
        done = await asyncio.gather(*asked, return_exceptions=True)
        assert not refreshed
        return [one for one in done if isinstance(one, Answered)]

    answers = play.time.run(storm())

    assert {answered.kind for answered in answers} == {"cached"}
    assert most_at_work[0] <= 2  # the refresh, and the route's probe
    play.check()


def test_an_unsafe_request_on_a_tier_that_is_not_decided_on_ends_what_is_stored() -> None:
    """What another tier has stored is not served after a write."""

    async def endpoint(request: Request) -> Response:
        await asyncio.sleep(0.3 if request.method == "GET" else 0.0)
        return PlainTextResponse("full", headers={"cache-control": "max-age=600"})

    tiers = {"pro": TierPolicy(budget=0.1), "free": TierPolicy(budget=None)}
    play = Play(endpoint, tiers=tiers)
    first, second = play.ask(), play.ask()
    play.ask("POST", state={"budgetware.tier": "free"})
    third = play.ask()

    assert [first.kind, second.kind, third.kind] == ["static", "cached", "static"]
    play.check()


def test_a_stream_sees_no_disconnect_behind_an_answer() -> None:
    """Starlette listens for one while it streams, and would stop."""
    parts: list[int] = []

    async def endpoint(_: Request) -> Response:
        async def stream() -> Any:
            for part in range(5):
                await asyncio.sleep(0.1)
                parts.append(part)
                yield b"."

        return StreamingResponse(stream())

    play = Play(endpoint)
    play.time.run(play.asking())

    assert parts == [0, 1, 2, 3, 4]
    play.check()
