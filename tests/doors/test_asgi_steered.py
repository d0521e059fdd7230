"""Answering with something smaller, over ASGI: at once, on the way, by the clock; never twice."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from tests.doors.steered_play import LIMIT_S, SIGNALS, Play, taking

from budgetware import budget
from budgetware._core.decide import Action
from budgetware._core.policy import Mode, Objectives


def test_a_full_answer_in_time_is_left_alone() -> None:
    """Nothing is added to it, and it counts as met."""
    play = Play(taking(0.01))

    answered = play.ask()

    assert (answered.body, answered.kind) == (b"full", None)
    assert answered.complete
    assert play.outcomes == {"met": 1}
    play.check()


def test_the_clock_answers_before_the_promise_is_broken() -> None:
    """The client has the static answer in time, and the application runs on to its end."""
    play = Play(taking(0.5))

    answered = play.ask()

    assert (answered.body, answered.kind) == (b"static", "static")
    assert answered.complete
    assert answered.at_s[-1] <= LIMIT_S
    assert play.ended_at_s == pytest.approx(0.5)
    assert play.outcomes == {"degraded": 1}
    play.check()


def test_what_the_application_still_finds_out_refreshes_the_cache() -> None:
    """The late full answer is the next client's cached one."""
    play = Play(taking(0.5, **{"cache-control": "max-age=1"}))

    bodies = [(answered.kind, answered.body) for answered in (play.ask(), play.ask())]

    assert bodies == [("static", b"static"), ("cached", b"full")]
    play.check()


def test_a_hopeless_route_is_answered_at_once_and_probed() -> None:
    """Once the forecast knows, nobody waits for the clock; a few requests still run behind."""
    play = Play(taking(0.5))
    for _ in range(5):
        play.ask()

    answers = [play.ask() for _ in range(50)]

    assert all(answered.kind == "cached" and answered.complete for answered in answers)
    at_once = [answered for answered in answers if answered.at_s[-1] == 0]
    assert len(at_once) > 40
    assert play.actions["answer"] > 30
    play.check()


def test_a_route_that_has_healed_is_answered_in_full_again() -> None:
    """Probes find out; nothing else could."""
    seconds = [0.5]

    async def endpoint(_: Request) -> Response:
        await asyncio.sleep(seconds[0])
        return PlainTextResponse("full")

    play = Play(endpoint)
    for _ in range(30):
        play.ask()
    seconds[0] = 0.01
    answers = []
    for _ in range(75):
        play.time.now += 0.1
        answers.append(play.ask())

    assert [answered.kind for answered in answers[-10:]] == [None] * 10
    play.check()


def test_shadow_changes_nothing_and_counts_what_it_would_have_done() -> None:
    """The clients wait for their full answers; the decisions are there to be read."""
    play = Play(taking(0.5), mode=Mode.SHADOW)

    answers = [play.ask() for _ in range(10)]

    assert all(answered.kind is None and answered.body == b"full" for answered in answers)
    assert play.actions[Action.ANSWER.value] > 3
    assert play.outcomes == {"breached": 10}
    play.check()


def test_a_tier_that_only_observes_is_not_decided_on() -> None:
    """The mode of a tier stands in place of the policy's."""
    play = Play(taking(0.5), mode=Mode.OBSERVE)

    assert play.ask().kind is None
    assert play.actions == {}
    play.check()


def test_a_begun_response_is_never_taken_over() -> None:
    """The first byte was the application's, so is the last, however late."""

    async def endpoint(_: Request) -> Response:
        async def parts() -> Any:
            yield b"one "
            await asyncio.sleep(0.5)
            yield b"two"

        return StreamingResponse(parts())

    play = Play(endpoint)

    answered = play.ask()

    assert (answered.body, answered.kind) == (b"one two", None)
    assert answered.complete
    play.check()


def test_a_stream_behind_an_answer_runs_to_its_end() -> None:
    """It is not told that its client has gone, for the client has been served."""
    ended = []

    async def endpoint(_: Request) -> Response:
        async def parts() -> Any:
            await asyncio.sleep(0.3)
            yield b"one "
            await asyncio.sleep(0.3)
            yield b"two"
            ended.append(True)

        await asyncio.sleep(0.2)
        return StreamingResponse(parts())

    play = Play(endpoint)

    answered = play.ask()

    assert answered.kind == "static"
    assert ended == [True]
    play.check()


def test_a_route_without_answers_runs_on() -> None:
    """There is nothing to send, so the full answer comes late."""
    play = Play(taking(0.5), replace(SIGNALS, answers=(), cache=None, static=None))

    assert [play.ask().kind for _ in range(8)] == [None] * 8
    assert play.outcomes == {"breached": 8}
    play.check()


def test_the_applications_own_fallback_has_the_scope_and_a_budget() -> None:
    """A cheap one is sent; one that takes too long is passed over."""

    async def cheap(scope: Any) -> dict[str, str]:
        return {"path": scope["path"]}

    async def dear(_: Any) -> str:
        await asyncio.sleep(0.2)
        return "dear"

    route = replace(SIGNALS, answers=("fallback", "static"))
    cases: tuple[tuple[Any, bytes, dict[str, int]], ...]
    cases = ((cheap, b'{"path":"/signals"}', {}), (dear, b"static", {"fallback": 1}))
    for fallback, expected, faults in cases:
        play = Play(taking(0.5), route, fallbacks={"signals": fallback})
        answered = play.ask()
        assert answered.body.replace(b" ", b"") == expected
        assert answered.at_s[-1] <= LIMIT_S
        assert play.door._engine.tally.faults == faults


def test_a_fallback_that_fails_is_counted_and_the_next_answer_is_sent() -> None:
    """Its error reaches nobody."""

    async def broken(_: Any) -> str:
        raise KeyError

    play = Play(
        taking(0.5), replace(SIGNALS, answers=("fallback", "reject")), fallbacks={"signals": broken}
    )

    answered = play.ask()

    assert answered.messages[0]["status"] in {503, 504}
    assert play.outcomes == {"rejected": 1}
    assert play.door._engine.tally.faults == {"fallback": 1}


def test_degrade_leaves_the_application_for_a_smaller_answer() -> None:
    """Through code that catches exceptions, and through task groups."""

    async def endpoint(_: Request) -> Response:
        async def inner() -> None:
            try:
                budget.degrade("no_model")
            except Exception:  # noqa: BLE001 - it is none
                pytest.fail("caught")

        async with asyncio.TaskGroup() as group:
            group.create_task(inner())
        return PlainTextResponse("full")

    play = Play(endpoint)

    assert play.ask().kind == "static"
    assert play.outcomes == {"degraded": 1}
    play.check()


def test_degrade_changes_nothing_where_nothing_acts() -> None:
    """In shadow, outside a request, and once the response has begun."""

    async def endpoint(_: Request) -> Response:
        budget.degrade("no_model")
        return PlainTextResponse("full")

    budget.degrade("outside")
    play = Play(endpoint, mode=Mode.SHADOW)

    assert play.ask().kind is None
    play.check()


def test_a_stage_with_a_fallback_is_left_out_when_it_will_not_fit() -> None:
    """The forecast has seen what it does to the rest; the function is not called."""
    calls: list[str] = []

    def last_score() -> str:
        calls.append("fallback")
        return "last"

    @budget.stage("ml", fallback=last_score)
    async def score() -> str:
        calls.append("ml")
        await asyncio.sleep(0.3)
        return "new"

    async def endpoint(_: Request) -> Response:
        await asyncio.sleep(0.005)
        return PlainTextResponse(await score())

    play = Play(endpoint, replace(SIGNALS, answers=(), cache=None, static=None))
    answers = [play.ask() for _ in range(20)]

    assert calls[:3] == ["ml", "ml", "ml"]
    assert calls.count("fallback") > 10
    assert answers[-1].body in {b"last", b"new"}
    play.check()


def test_affords_takes_the_same_decision() -> None:
    """Outside a request everything is afforded."""
    asked: list[bool] = []

    async def endpoint(_: Request) -> Response:
        asked.append(budget.affords("ml"))
        if asked[-1]:
            await asyncio.sleep(0.3)
        return PlainTextResponse("full")

    play = Play(endpoint, replace(SIGNALS, answers=(), cache=None, static=None))
    for _ in range(20):
        play.ask()

    assert budget.affords("ml")
    assert asked[:3] == [True] * 3
    assert asked.count(False) > 10
    play.check()


def test_the_share_of_smaller_answers_is_held() -> None:
    """When it is used up, requests run, in time or not."""
    route = replace(SIGNALS, objectives=Objectives(degraded=0.1))
    play = Play(taking(0.5), route)
    for _ in range(60):
        play.ask()

    outcomes = play.outcomes
    assert outcomes["degraded"] <= 7
    assert outcomes["breached"] >= 53
    play.check()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([0.01, 0.0965, 0.097, 0.0975, 0.1, 0.2]), st.booleans()),
        min_size=1,
        max_size=12,
    )
)
def test_nothing_is_ever_sent_twice(requests: list[tuple[float, bool]]) -> None:
    """Whatever the application's and the clock's turns are, the client has one whole response."""
    seconds = [0.0]

    async def endpoint(request: Request) -> Response:
        await asyncio.sleep(seconds[0])
        if request.method == "POST":

            async def parts() -> Any:
                yield b"fu"
                await asyncio.sleep(0.001)
                yield b"ll"

            return StreamingResponse(parts())
        return PlainTextResponse("full")

    play = Play(endpoint)
    for took_s, streams in requests:
        seconds[0] = took_s
        answered = play.ask("POST" if streams else "GET")
        assert answered.complete
        assert answered.body in {b"full", b"static"}
    assert sum(play.outcomes.values()) == len(requests)
    play.check()
