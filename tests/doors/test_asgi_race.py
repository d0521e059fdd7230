"""When the clock answers over ASGI: not within a shield or an upload; and what it cancels."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import Any

import pytest
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from tests.doors.steered_play import LIMIT_S, SIGNALS, Play

from budgetware import budget
from budgetware._core.policy import Mode, StagePolicy, StaticAnswer
from budgetware.asgi import ASGIApp, Message

CANCELLED = replace(SIGNALS, cancel_safe=True)

WRITES = replace(
    CANCELLED,
    times_unsafe=True,
    answers=("static", "reject"),
    static=StaticAnswer(status=202, body="it will be done"),
)


class Work:
    """An endpoint that takes so many seconds, and knows how it ended."""

    def __init__(self, seconds: float, shielded_s: float = 0.0) -> None:
        self.seconds = seconds
        self.shielded_s = shielded_s
        self.ended: list[str] = []

    async def serve(self, _: Request) -> Response:
        """Do the work."""
        try:
            with budget.shield():
                await asyncio.sleep(self.shielded_s)
            await asyncio.sleep(self.seconds - self.shielded_s)
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        self.ended.append("done")
        return PlainTextResponse("full")


def test_a_shield_holds_the_clock_off_until_it_is_left() -> None:
    """The answer is then late, and sent at once."""
    work = Work(0.5, shielded_s=0.2)
    play = Play(work.serve)

    answered = play.ask()

    assert answered.kind == "static"
    assert answered.at_s[-1] == pytest.approx(0.2)
    assert work.ended == ["done"]
    play.check()


def test_a_response_that_begins_right_after_the_shield_is_the_applications() -> None:
    """Who begins first has the client."""
    play = Play(Work(0.2, shielded_s=0.2).serve)

    assert play.ask().body in {b"full", b"static"}
    play.check()


def test_shields_nest_and_may_be_left_in_a_thread() -> None:
    """The last one that is left counts, wherever."""
    reached = threading.Event()

    def held() -> None:
        with budget.shield(), budget.shield():
            reached.set()

    async def endpoint(_: Request) -> Response:
        with budget.shield():
            await asyncio.to_thread(held)
            await asyncio.sleep(0.2)
        await asyncio.sleep(0.3)
        return PlainTextResponse("full")

    play = Play(endpoint)

    answered = play.ask()

    assert reached.is_set()
    assert answered.at_s[-1] == pytest.approx(0.2, abs=0.001)
    play.check()


def test_a_shield_where_nothing_is_decided_is_nothing() -> None:
    """The application's answer is the client's, however late; outside a request there is none."""

    async def endpoint(_: Request) -> Response:
        with budget.shield():
            await asyncio.sleep(0.5)
        return PlainTextResponse("full")

    play = Play(endpoint, mode=Mode.OBSERVE)
    with budget.shield():
        answered = play.ask()

    assert (answered.body, answered.kind) == (b"full", None)
    play.check()


@pytest.mark.parametrize(
    ("method", "ended"), [("GET", "cancelled"), ("HEAD", "cancelled"), ("POST", "done")]
)
def test_work_that_may_be_cancelled_is_once_its_client_was_answered(
    method: str, ended: str
) -> None:
    """Never the work of an unsafe method, whatever the policy says."""
    work = Work(0.5)
    play = Play(work.serve, WRITES if method == "POST" else CANCELLED)

    answered = play.ask(method)

    assert answered.kind == "static"
    assert answered.complete
    assert answered.at_s[-1] <= LIMIT_S
    assert work.ended == [ended]
    assert play.ended_at_s == pytest.approx(0.5 if ended == "done" else answered.at_s[-1])
    assert play.outcomes == {"degraded": 1}
    play.check()


def test_a_shield_holds_the_cancellation_off_too() -> None:
    """What has to be finished is."""
    work = Work(0.5, shielded_s=0.05)
    shielded = Work(0.5, shielded_s=0.3)
    Play(work.serve, CANCELLED).ask()
    play = Play(shielded.serve, CANCELLED)

    play.ask()

    assert (work.ended, shielded.ended) == (["cancelled"], ["cancelled"])
    assert play.ended_at_s == pytest.approx(0.3)


def test_a_shield_entered_behind_the_answer_holds_the_cancellation_off() -> None:
    """Between the answer and the cancellation there is time for one."""
    ended: list[float] = []

    async def fallback(_: Any) -> str:
        await asyncio.sleep(0.005)
        return "cheap"

    async def endpoint(_: Request) -> Response:
        await asyncio.sleep(0.088)  # the clock's turn has come, its answer is being made
        with budget.shield():
            await asyncio.sleep(0.2)
            ended.append(play.time.now)
        await asyncio.sleep(1.0)
        return PlainTextResponse("full")

    route = replace(CANCELLED, answers=("fallback",), static=None)
    play = Play(endpoint, route, fallbacks={"signals": fallback})

    answered = play.ask()

    assert answered.body == b"cheap"
    assert len(ended) == 1
    assert play.ended_at_s == pytest.approx(0.288)
    play.check()


def test_a_swallowed_cancellation_leaves_no_trace() -> None:
    """The server's task is not taken for cancelled afterwards."""
    counts: list[int] = []

    async def endpoint(_: Request) -> Response:
        try:
            await asyncio.sleep(0.3)
        except asyncio.CancelledError:
            await asyncio.sleep(0.3)
        return PlainTextResponse("full")

    play = Play(endpoint, CANCELLED)

    async def ask() -> None:
        await play.asking()
        task = asyncio.current_task()
        assert task is not None
        counts.append(task.cancelling())

    play.time.run(ask())
    assert counts == [0]
    play.check()


def test_cancellation_works_through_middleware_with_task_groups() -> None:
    """Starlette's own middleware runs the endpoint in a task of its own."""
    work = Work(0.5)

    async def passing(request: Request, follow: Any) -> Response:
        response: Response = await follow(request)
        return response

    def wrapped(app: ASGIApp) -> ASGIApp:
        return BaseHTTPMiddleware(app, passing)

    play = Play(work.serve, CANCELLED, wrapped=wrapped)

    assert play.ask().kind == "static"
    assert work.ended == ["cancelled"]
    play.check()


def test_a_thread_at_work_is_not_cancelled() -> None:
    """The request holds on until the thread is done: nothing of it can be stopped half way."""
    done: list[bool] = []
    go = threading.Event()

    def plain(_: Request) -> Response:
        go.wait()
        done.append(True)
        return PlainTextResponse("full")

    play = Play(plain, CANCELLED)  # type: ignore[arg-type] # Starlette takes either kind

    async def ask() -> None:
        task = asyncio.create_task(play.asking())
        await asyncio.sleep(0.5)
        assert not task.done()
        go.set()
        assert (await task).kind == "static"

    play.time.run(ask())
    assert done == [True]
    play.check()


def test_an_upload_is_not_answered_by_the_clock() -> None:
    """The client's own slowness is not the service's; afterwards the clock runs again."""
    bodies: list[bytes] = []

    async def endpoint(request: Request) -> Response:
        bodies.append(await request.body())
        await asyncio.sleep(0.05)
        return PlainTextResponse("full")

    play = Play(endpoint)

    async def slow() -> tuple[Any, int]:
        parts = [b"a", b"b", b"c"]

        async def receive() -> Message:
            await asyncio.sleep(1.0)
            return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

        answered = await play.asking("PUT", receive=receive)
        return answered.kind, len(parts)

    assert play.time.run(slow()) == (None, 0)
    assert bodies == [b"abc"]
    assert play.outcomes == {"met": 1}
    play.check()


def test_after_an_upload_the_clock_answers_in_time() -> None:
    """What remains is what remained before it."""

    async def endpoint(request: Request) -> Response:
        await request.body()
        await asyncio.sleep(0.5)
        return PlainTextResponse("full")

    play = Play(endpoint, WRITES)

    async def slow() -> float:
        async def receive() -> Message:
            await asyncio.sleep(1.0)
            return {"type": "http.request", "body": b"", "more_body": False}

        answered = await play.asking("PUT", receive=receive)
        assert answered.kind == "static"
        return answered.at_s[-1]

    assert 1.0 + LIMIT_S - 0.01 < play.time.run(slow()) <= 1.0 + LIMIT_S
    assert play.outcomes == {"degraded": 1}
    play.check()


def test_a_client_that_left_during_its_upload_counts_once() -> None:
    """As gone; nobody is answered any more."""

    async def endpoint(request: Request) -> Response:
        await request.body()
        return PlainTextResponse("full")

    play = Play(endpoint)

    async def leave() -> None:
        async def receive() -> Message:
            await asyncio.sleep(0.01)
            return {"type": "http.disconnect"}

        with pytest.raises(ClientDisconnect):
            await play.asking("PUT", receive=receive)

    play.time.run(leave())
    assert sum(play.outcomes.values()) == 1
    assert play.outcomes == {"client_gone": 1}
    play.check()


def test_a_stage_that_will_not_fit_ends_the_request_when_the_policy_says_so() -> None:
    """The function is not called and the client is answered at once."""
    calls: list[float] = []

    async def endpoint(_: Request) -> Response:
        await asyncio.sleep(0.005)
        with budget.stage("ml"):
            calls.append(play.time.now)
            await asyncio.sleep(0.3)
        return PlainTextResponse("full")

    route = replace(SIGNALS, stages={"ml": StagePolicy(answers=True)}, cache=None)
    play = Play(endpoint, route)
    kinds = [play.ask().kind for _ in range(30)]

    assert set(kinds) == {"static"}
    assert len(calls) < 12
    assert play.outcomes == {"degraded": 30}
    play.check()


def test_a_stage_without_such_a_word_never_ends_a_request() -> None:
    """What is not asked for does not happen."""
    calls: list[None] = []

    async def endpoint(_: Request) -> Response:
        with budget.stage("ml"):
            calls.append(None)
            await asyncio.sleep(0.3)
        return PlainTextResponse("full")

    route = replace(SIGNALS, answers=(), static=None, cache=None)
    play = Play(endpoint, replace(route, stages={"ml": StagePolicy()}))

    assert {play.ask().kind for _ in range(10)} == {None}
    assert len(calls) == 10


AROUND_ITS_TURN_S = (0.0965, 0.097, 0.0975)
"""Just before, when the clock takes it, and just after."""


@pytest.mark.parametrize("cancel_safe", [False, True])
@pytest.mark.parametrize("outer_s", [None, 0.02, *AROUND_ITS_TURN_S, 0.15])
def test_whatever_ends_a_request_ends_it_once(outer_s: float | None, *, cancel_safe: bool) -> None:
    """One response at most, every cancellation of the server arrives, nothing stays in flight."""
    for took_s in (0.05, 0.096, *AROUND_ITS_TURN_S, 0.098, 0.1, 0.3):
        for shielded_s in (0.0, 0.04, 0.0965, 0.097, 0.2):
            work = Work(max(took_s, shielded_s), shielded_s)
            play = Play(work.serve, replace(SIGNALS, cancel_safe=cancel_safe))
            play.time.run(_cancelled_at(play, outer_s))
            assert sum(play.outcomes.values()) == 1
            play.check()


async def _cancelled_at(play: Play, outer_s: float | None) -> None:
    """Send a request that its server cancels after so many seconds."""
    task = asyncio.create_task(play.asking())
    if outer_s is None:
        assert (await task).complete
        return
    await asyncio.sleep(outer_s)
    asked = task.cancel()
    (one,) = await asyncio.gather(task, return_exceptions=True)
    if asked:
        assert isinstance(one, asyncio.CancelledError)
    else:
        assert one.complete  # type: ignore[union-attr]


def test_large_requests_are_told_from_small_ones() -> None:
    """What takes long only for its size does not make everything look slow."""

    async def endpoint(request: Request) -> Response:
        size = int(request.headers["content-length"])
        await asyncio.sleep(0.3 if size > 100_000 else 0.01)
        return PlainTextResponse("full")

    play = Play(endpoint, WRITES)

    def ask(size: int) -> str | None:
        headers = [(b"content-length", b"%d" % size)]
        play.time.now += 1.0  # now and then a probe is due
        return play.ask("PUT", headers=headers).kind

    for _ in range(150):
        ask(1_000_000)
        ask(1_000)
    kinds = [(ask(1_000_000), ask(1_000)) for _ in range(10)]

    assert [small for _, small in kinds] == [None] * 10
    assert {large for large, _ in kinds} <= {"reject", "static"}
    play.check()
