"""An answer says what is true of the work behind it, and leaves before the reserve is touched."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from tests.doors.both_doors import DOORS, Asgi, Asked, Door, Made, decisions
from tests.doors.steered_play import LIMIT_S, POLICY, SIGNALS, Play

from budgetware import budget
from budgetware._core.interrupt import AnswerNow
from budgetware._core.policy import (
    Amount,
    Match,
    Mode,
    Objectives,
    Policy,
    StagePolicy,
    StaticAnswer,
)
from budgetware.testing import deciding

ACCEPTED = StaticAnswer(status=202, body="it will be done")
REFUSES = replace(SIGNALS, answers=("reject",), static=None, cache=None)
UNSAFE = ("POST", "PUT", "PATCH", "DELETE")


def policy_of(mode: Mode = Mode.ENFORCE, **changes: Any) -> Policy:
    """Return a policy whose only route refuses, unless *changes* say otherwise."""
    return replace(POLICY, mode=mode, routes={"signals": replace(REFUSES, **changes)})


def half_a_second(_: Asked) -> Made:
    """Work for longer than is promised."""
    return Made(0.5)


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"answers": ("static", "reject"), "static": StaticAnswer(body="cheap")},
        {"answers": ("static", "reject"), "static": ACCEPTED},
        {"times_unsafe": True},
        {"times_unsafe": True, "answers": ("static",), "static": StaticAnswer(body="cheap")},
    ],
)
def test_a_running_write_is_left_alone_by_the_clock(method: str, changes: dict[str, Any]) -> None:
    """Whoever is told to come back while the transaction commits pays twice."""
    client = Asgi(half_a_second, policy_of(**changes))

    reply = client.ask(method)

    assert (reply.status, reply.body, reply.kind) == (200, b"full", None)
    assert client.outcomes == {"breached": 1}
    client.check()


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_running_write_may_be_answered_with_what_is_true(method: str) -> None:
    """That it was accepted: nobody is told to come back, and the work is done once."""
    changes: dict[str, Any] = {
        "times_unsafe": True,
        "answers": ("reject", "static"),
        "static": ACCEPTED,
    }
    client = Asgi(half_a_second, policy_of(**changes))

    reply = client.ask(method)

    assert (reply.status, reply.body, reply.kind) == (202, b"it will be done", "static")
    assert "retry-after" not in reply.headers
    assert reply.after_s <= LIMIT_S
    assert client.done == 1
    client.check()


@DOORS
@pytest.mark.parametrize("method", ["GET", *UNSAFE[:2]])
def test_what_was_not_begun_is_not_said_to_be_accepted(door: Door, method: str) -> None:
    """An honest no, and the client may come back."""
    changes: dict[str, Any] = {
        "times_unsafe": True,
        "answers": ("static", "reject"),
        "static": ACCEPTED,
    }
    client = door(half_a_second, policy_of(**changes))

    with deciding("answer"):
        reply = client.ask(method)

    assert (reply.status, reply.kind) == (503, "reject")
    assert "retry-after" in reply.headers
    assert client.done == 0
    client.check()


@pytest.mark.parametrize(("method", "again"), [("GET", True), ("POST", False)])
def test_work_that_was_given_up_may_be_asked_for_again_if_it_changed_nothing(
    method: str, *, again: bool
) -> None:
    """What an unsafe request had done by then nobody knows."""

    async def endpoint(_: Request) -> Response:
        budget.degrade("no_model")
        return PlainTextResponse("full")

    play = Play(endpoint, policy=policy_of())
    answered = play.ask(method)
    start = answered.messages[0]

    assert start["status"] == 503
    assert (b"retry-after" in dict(start["headers"])) is again
    play.check()


@pytest.mark.parametrize("blocked_s", [0.0, 0.0965, 0.097, 0.0975, 0.1, 0.1005, 0.4])
def test_a_refusal_by_the_clock_is_always_the_same(blocked_s: float) -> None:
    """504, as the work goes on, whether the loop wakes early or late; on time if that does."""

    async def endpoint(_: Request) -> Response:
        play.time.now += blocked_s
        await asyncio.sleep(0.5)
        return PlainTextResponse("full")

    play = Play(endpoint, policy=policy_of())
    answered = play.ask()

    assert answered.messages[0]["status"] == 504
    assert answered.at_s[-1] <= max(LIMIT_S, blocked_s + 1e-9)
    play.check()


@pytest.mark.parametrize("answers", [("reject",), ("static",), ("fallback",)])
def test_the_clock_answers_before_the_reserve_is_touched(answers: tuple[str, ...]) -> None:
    """It was held back for what comes behind the answer."""

    async def fallback(_: Any) -> str:
        await asyncio.sleep(0.005)
        return "cheap"

    static = SIGNALS.static if "static" in answers else None
    policy = policy_of(reserve=Amount(0.05), answers=answers, static=static)
    fallbacks = {"signals": fallback} if "fallback" in answers else {}
    client = Asgi(half_a_second, policy, fallbacks=fallbacks)

    reply = client.ask()

    assert reply.kind == answers[0]
    assert 0.02 < reply.after_s <= LIMIT_S - 0.05
    client.check()


@DOORS
@pytest.mark.parametrize(("reserve_s", "kind"), [(0.0, None), (0.05, "reject")])
def test_a_decision_leaves_the_reserve_out(door: Door, reserve_s: float, kind: str | None) -> None:
    """Work that takes seven tenths of the limit fits, unless half of it is held back."""
    observing = policy_of(Mode.SHADOW, reserve=Amount(reserve_s))
    client = door(lambda _: Made(0.07), observing)
    for _ in range(100):
        client.ask()
        client.time.now += 0.01
    client.door._engine.adopt(policy_of(reserve=Amount(reserve_s)))

    assert client.ask().kind == kind
    client.check()


@DOORS
@pytest.mark.parametrize("path", ["/healthz", "/metrics/", "/signals"])
def test_nothing_is_decided_on_what_is_exempt(door: Door, path: str) -> None:
    """A browser does not send the request whose preflight was refused."""
    method = "OPTIONS" if path == "/signals" else "GET"
    match = (Match("*", "/**"),)
    client = door(half_a_second, policy_of(match=match))

    with deciding("answer"):
        reply = client.ask(method, path)

    assert (reply.status, reply.kind) == (200, None)
    assert client.outcomes == {"breached": 1}
    assert decisions(client) == {}
    client.check()


@DOORS
@pytest.mark.parametrize("status", [302, 304, 307, 401, 403, 404, 429])
def test_quick_refusals_do_not_teach_what_full_work_takes(door: Door, status: int) -> None:
    """With half the traffic turned away at once, no more of the rest is late than without."""
    late = {}
    for share in (0.0, 0.5):
        draw = Random(7)

        def app(asked: Asked) -> Made:
            return Made(0.001, status) if "x-bad" in asked.headers else Made(0.3)

        client = door(app, policy_of())
        late[share] = 0
        for _ in range(600):
            while draw.random() < share:
                client.time.now += 0.05
                client.ask(x_bad="1")
            client.time.now += 0.05
            reply = client.ask()
            late[share] += reply.kind is None or reply.after_s > LIMIT_S
        client.check()

    assert late[0.5] <= late[0.0] + 2
    assert late[0.0] <= 15


@DOORS
def test_shadow_counts_a_request_once(door: Door) -> None:
    """At the beginning, by a stage or by the clock: by then it would have been answered."""

    def app(_: Asked) -> Made:
        with budget.stage("db"), contextlib.suppress(AnswerNow):
            pass
        return Made(0.5)

    client = door(app, policy_of(Mode.SHADOW, stages={"db": StagePolicy(answers=True)}))
    for _ in range(200):
        client.time.now += 0.05
        assert client.ask().kind is None

    smaller = sum(count for (action, _), count in decisions(client).items() if action != "run")
    assert 190 <= smaller <= 200
    assert client.outcomes == {"breached": 200}
    client.check()


def test_shadow_counts_the_clock_as_enforcing_would() -> None:
    """Whatever would have been late is counted, and nothing else; the response says when."""
    seconds = [0.05, 0.09, 0.5]  # soon the forecast would be asked
    found = {}
    for mode in (Mode.SHADOW, Mode.ENFORCE):
        work = iter(seconds)
        client = Asgi(lambda _, work=work: Made(next(work)), policy_of(mode))  # type: ignore[misc]
        for _ in seconds:
            client.time.now += 1.0
            client.ask()
        found[mode] = decisions(client)
        client.check()

    assert found[Mode.SHADOW] == found[Mode.ENFORCE] == {("answer", "deadline"): 1}


@DOORS
def test_shadow_obeys_the_degraded_limit(door: Door) -> None:
    """No more than would be allowed are counted."""
    objectives = Objectives(degraded=0.1)
    client = door(half_a_second, policy_of(Mode.SHADOW, objectives=objectives))
    for _ in range(1000):
        client.time.now += 0.05
        client.ask()

    counted = decisions(client)
    would = sum(count for (action, _), count in counted.items() if action == "answer")
    assert 0.05 * 1000 < would <= 0.1 * 1000 + 1
    client.check()
