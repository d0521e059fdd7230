"""What the simulation has found at the ASGI door: things that fall into the same moment."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response
from tests.doors.asgi_play import LAST, START, Door, http
from tests.doors.steered_play import SIGNALS, Answered, Play, taking
from tests.doors.virtual_time import Time

from budgetware import budget
from budgetware.asgi import Message, Receive, Scope, Send


class GoneError(OSError):
    """What a server raises when its client is gone."""


def test_who_asks_for_something_smaller_leaves_no_appointment_behind() -> None:
    """The one that was made for the deadline is called off, and keeps nothing alive till then."""

    async def degrades() -> None:
        budget.degrade("no_model")

    async def endpoint(_: Request) -> Response:
        # By the time this hears of it, the clock's side has answered.
        await asyncio.create_task(degrades())
        raise AssertionError

    async def pending() -> list[asyncio.TimerHandle]:
        await play.asking()
        scheduled = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
        return [one for one in scheduled if not one.cancelled()]

    play = Play(endpoint)
    assert play.time.run(pending()) == []
    play.check()


@pytest.mark.parametrize("sends", [0, 1])
def test_a_client_that_is_gone_when_the_clock_answers_is_no_fault_of_ours(sends: int) -> None:
    """What the server raises then is the server's; the application goes on behind it."""
    answered = Answered()

    async def send(message: Message) -> None:
        if len(answered.messages) == sends:
            raise GoneError
        answered.messages.append(message)

    play = Play(taking(0.5))
    play.time.run(play.asking(send=send))

    assert len(answered.messages) == sends
    assert play.outcomes == {"degraded": 1}
    assert play.ended_at_s == 0.5
    play.check()


async def child() -> None:
    """Ask for something smaller, in a while."""
    await asyncio.sleep(0.02)
    for _ in range(2):
        await asyncio.sleep(0)
    budget.degrade("no_model")


async def in_a_group() -> None:
    """Wait for the child in a group."""
    async with asyncio.TaskGroup() as group:
        group.create_task(child())


async def gathered() -> None:
    """Wait for a task whose group it is."""
    await asyncio.gather(in_a_group(), asyncio.sleep(1))


async def awaited() -> None:
    """Wait for one such task alone."""
    await asyncio.create_task(in_a_group())


async def twice_awaited() -> None:
    """Wait for a task that waits for one."""
    await asyncio.create_task(awaited())


@pytest.mark.parametrize("within", [gathered, awaited, twice_awaited])
@pytest.mark.parametrize("turns", range(2, 9))
def test_a_cancel_is_heard_whose_task_group_has_it_in_another_task(
    within: Callable[[], Awaitable[None]], turns: int
) -> None:
    """What a group of another task does to that one is no concern of the request's."""

    async def endpoint(_: Request) -> Response:
        await within()
        raise AssertionError

    async def cancelled() -> tuple[bool, object]:
        task = asyncio.create_task(play.asking())
        await asyncio.sleep(0.02)
        for _ in range(turns):
            await asyncio.sleep(0)
        requested = task.cancel()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        return requested, outcome

    play = Play(endpoint, replace(SIGNALS, cancel_safe=False))
    requested, outcome = play.time.run(cancelled())

    assert isinstance(outcome, asyncio.CancelledError) is requested
    play.check()


def test_a_last_part_that_outlasts_its_request_is_told_of_once() -> None:
    """A task is still sending it when the request is cancelled."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        # The task keeps sending: nobody cancels it with the request.
        sending.append(asyncio.ensure_future(asyncio.shield(one(send))))
        await asyncio.sleep(1)

    async def one(send: Send) -> None:
        await send(LAST)

    async def server_send(message: Message) -> None:
        if message is LAST:
            await asyncio.sleep(0.5)

    async def receive() -> Any:
        await asyncio.sleep(9)

    async def cancelled() -> None:
        task = asyncio.ensure_future(door(http(), receive, server_send))
        await asyncio.sleep(0.1)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await sending[0]

    sending: list[asyncio.Future[None]] = []
    time = Time()
    door = Door(app, clock=time)
    time.run(cancelled())

    assert len(door.records) == 1
    assert door.faults == {}
