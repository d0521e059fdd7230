"""Which seconds of an ASGI exchange belong to the budget: first byte, last byte, waits, stages."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from tests.doors.asgi_play import BODY, LAST, START, Door, Wire, http

from budgetware import budget
from budgetware.asgi import Message, Receive, Scope, Send

PART: Message = {"type": "http.response.body", "body": b"part", "more_body": True}
NOTHING: Message = {**PART, "body": b""}
FILE: Message = {"type": "http.response.pathsend", "path": "/x"}
ZERO: Message = {"type": "http.response.zerocopysend", "file": 7}
WITH_TRAILERS: Message = {**START, "trailers": True}
TRAILERS: Message = {"type": "http.response.trailers", "headers": []}


@pytest.mark.parametrize(
    ("sends", "first_byte_s"),
    [
        ([START, LAST], 2),
        ([START, PART, LAST], 2),
        ([START, NOTHING, PART, LAST], 3),
        ([START, NOTHING, LAST], 3),
        ([START, PART, PART, PART, LAST], 2),
        ([START, FILE], 2),
        ([START, {**ZERO, "more_body": True}, ZERO], 2),
        ([WITH_TRAILERS, LAST, TRAILERS], 2),
        ([WITH_TRAILERS, FILE, TRAILERS], 2),
        ([WITH_TRAILERS, PART, LAST, {**TRAILERS, "more_trailers": True}, TRAILERS], 2),
    ],
)
def test_the_first_byte_of_the_body_ends_the_budget(
    sends: list[Message],
    first_byte_s: float,
) -> None:
    """One second before each message: the first with a byte of the body counts, or the last."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in sends:
            door.clock.now += 1
            await send(message)
        door.clock.now += 100  # a background task

    door = Door(app)
    Wire().run(door, http())

    assert door.record.first_byte_s == door.record.elapsed_s == first_byte_s
    assert door.record.duration_s == len(sends)


def test_the_last_byte_ends_the_budget_where_the_route_says_so() -> None:
    """With ``clock: last_byte`` a quick first byte does not make a slow report fast."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in (START, PART, PART, LAST):
            await send(message)
            door.clock.now += 0.4

    door = Door(app)
    Wire().run(door, http(path="/reports/2026/q3"))

    assert door.record.route == "report"
    assert door.record.elapsed_s == pytest.approx(1.2)
    assert door.record.first_byte_s == pytest.approx(0.4)
    assert door.outcomes == {"exceeded": 1}


@pytest.mark.parametrize("sends", [[START, PART, PART, LAST], [START, LAST]])
@pytest.mark.parametrize("path", ["/signals/x", "/reports/x"])
def test_a_client_that_reads_slowly_is_not_billed(sends: list[Message], path: str) -> None:
    """The server holding back each part for ten seconds is nobody's violation."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        door.clock.now += 0.02
        for message in sends:
            await send(message)

    def slow(message: Message) -> None:
        if message["type"] == "http.response.body":
            door.clock.now += 10

    door = Door(app)
    Wire(on_send=slow).run(door, http(path=path, state={"budgetware.tier": "pro"}))

    assert door.record.elapsed_s == pytest.approx(0.02)
    assert door.record.level is None
    assert door.record.waited_s == pytest.approx(10 * (len(sends) - 2))


def test_a_client_that_sends_slowly_is_not_billed() -> None:
    """Waiting for the parts of a body moves the budget; what is done between them counts."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with budget.stage("upload"):
            while (await receive()).get("more_body"):
                door.clock.now += 0.01
        assert budget.remaining() == pytest.approx(1 - 0.02)
        await receive()  # the disconnect, when it comes
        await send(START)
        await send(LAST)

    def slow() -> None:
        door.clock.now += 5

    parts = [{"type": "http.request", "body": b"x", "more_body": True}] * 2
    door = Door(app)
    Wire([*parts, BODY, BODY], on_receive=slow).run(door, http("POST"))

    assert door.record.waited_s == pytest.approx(15)
    assert door.record.elapsed_s == pytest.approx(5.02)
    assert door.record.openings[0].duration_s == pytest.approx(0.02)


def test_background_work_is_not_billed() -> None:
    """Stages after the last byte belong to nothing; what is left stands still."""
    left: list[float] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        door.clock.now += 0.25
        await send(LAST)
        left.append(budget.remaining())
        with budget.stage("after"):
            door.clock.now += 100
        left.append(budget.remaining())

    door = Door(app)
    Wire().run(door, http())

    assert left == [0.75, 0.75]
    assert door.record.elapsed_s == 0.25
    assert door.record.openings == ()


@pytest.mark.anyio
async def test_waits_that_overlap_are_left_out_once() -> None:
    """Sending to a slow reader while reading from a slow sender: no negative time."""
    finished: dict[str, Any] = {}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def upload() -> None:
            while (await receive()).get("more_body"):
                pass
            finished["upload"] = budget.elapsed()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(upload)
            await send(START)
            await send(PART)
            await send(PART)
        await send(LAST)

    async def receive() -> Message:
        await anyio.sleep(0.03)
        return next(parts)

    async def send(message: Message) -> None:
        if message is PART:
            await anyio.sleep(0.05)

    parts = iter([{"type": "http.request", "more_body": True}] * 2 + [BODY])
    door = Door(app, clock=anyio.current_time)
    began = anyio.current_time()
    await door(http("POST"), receive, send)
    took = anyio.current_time() - began

    assert finished["upload"] >= 0
    assert 0 <= door.record.elapsed_s <= door.record.duration_s
    assert door.record.duration_s + door.record.waited_s <= took
    assert door.record.waited_s >= 0.09


@pytest.mark.anyio
async def test_a_stage_opened_during_a_wait_keeps_its_length() -> None:
    """Work that goes on while a part is being sent is neither negative nor beyond the request."""
    opened, sent = anyio.Event(), anyio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def prefetch() -> None:
            door.clock.now += 0.03
            with budget.stage("prefetch"):
                opened.set()
                await sent.wait()
                door.clock.now += 0.02

        await send(START)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(prefetch)
            await send(PART)
            sent.set()
        await send(LAST)

    async def send(message: Message) -> None:
        if message is PART:
            await opened.wait()
            door.clock.now += 0.02

    door = Door(app)
    await door(http(), Wire().receive, send)

    (opening,) = door.record.openings
    assert opening.start_s == pytest.approx(0)
    assert opening.duration_s == pytest.approx(0.02)
    assert door.record.duration_s == pytest.approx(0.02)
    assert door.record.waited_s == pytest.approx(0.05)
    assert door.record.unattributed_s == pytest.approx(0)
