"""Whose cancellation is it? The server's reaches it; a task group's is no concern of the server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any

import anyio
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from tests.doors.steered_play import SIGNALS, Play

from budgetware import budget

Child = Callable[[], Coroutine[Any, Any, None]]

CANCELLED = replace(SIGNALS, cancel_safe=True)


class BackendDownError(Exception):
    """What a task of the application fails with."""


async def fails() -> None:
    """Fail while whoever has the task group waits for it."""
    await asyncio.sleep(0.01)
    raise BackendDownError


async def survives_a_failed_task(_: Request) -> Response:
    """Answer, late, although a task has failed: before Python 3.13 the group leaves a mark."""
    with contextlib.suppress(BaseExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(fails())
    await asyncio.sleep(0.5)
    return PlainTextResponse("full")


async def falls_with_a_failed_task(_: Request) -> Response:
    """Fail after the clock's turn, by a task that fails while it is waited for."""
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(0.2)).add_done_callback(lambda _: None)
        group.create_task(fails())
    raise AssertionError


@pytest.mark.parametrize("route", [SIGNALS, CANCELLED], ids=["goes_on", "cancel_safe"])
def test_a_task_that_failed_is_not_taken_for_the_servers_cancel(route: object) -> None:
    """The client has its answer in time, and the server's call ends as one that was served."""
    play = Play(survives_a_failed_task, route)  # type: ignore[arg-type]

    answered = play.ask()

    assert (answered.kind, answered.complete) == ("static", True)
    assert answered.at_s[-1] < 0.1
    assert play.outcomes == {"degraded": 1}
    play.check()


def test_a_task_that_asks_to_degrade_while_its_group_waits_is_answered() -> None:
    """The mark the group leaves behind is not the server's either."""

    async def child() -> None:
        await asyncio.sleep(0.01)
        budget.degrade("no_model")

    async def endpoint(_: Request) -> Response:
        async with asyncio.TaskGroup() as group:
            group.create_task(child())
        raise AssertionError

    for route in (SIGNALS, CANCELLED):
        play = Play(endpoint, route)
        assert play.ask().kind == "static"
        assert play.outcomes == {"degraded": 1}
        play.check()


def test_the_error_of_a_task_is_the_applications() -> None:
    """It reaches the server as it was raised."""
    play = Play(falls_with_a_failed_task, CANCELLED)

    with pytest.raises(BaseExceptionGroup) as raised:
        play.ask()

    assert raised.value.subgroup(BackendDownError) is not None
    play.check()


async def in_a_task_group(child: Child) -> None:
    """Run *child* in asyncio's."""
    async with asyncio.TaskGroup() as group:
        group.create_task(child())


async def in_anyios(child: Child) -> None:
    """Run *child* in anyio's."""
    async with anyio.create_task_group() as group:
        group.start_soon(child)


async def gathered(child: Child) -> None:
    """Run *child* beside another."""
    await asyncio.gather(child(), asyncio.sleep(1))


async def in_its_own_task(child: Child) -> None:
    """Run *child* where the request runs."""
    await child()


async def turns_of(count: int) -> None:
    """Let the loop run whoever is ready, so many times."""
    for _ in range(count):
        await asyncio.sleep(0)


AT_S = 0.02


@pytest.mark.parametrize("cancel_safe", [False, True])
@pytest.mark.parametrize("within", [in_a_task_group, in_anyios, gathered, in_its_own_task])
def test_the_servers_cancel_is_heard_in_the_turn_in_which_a_child_asks_to_degrade(
    within: Callable[[Child], Awaitable[None]], *, cancel_safe: bool
) -> None:
    """Whichever of the two comes first, and however many turns lie between them."""

    async def child() -> None:
        await asyncio.sleep(AT_S)
        await turns_of(later[0])
        budget.degrade("no_model")

    async def endpoint(_: Request) -> Response:
        await within(child)
        raise AssertionError

    async def cancelled_at_once(turns: int, *, first: bool) -> bool:
        async def cancels() -> None:
            await asyncio.sleep(AT_S)
            await turns_of(turns)
            heard.append(task.cancel())

        heard: list[bool] = []
        if first:
            other = asyncio.create_task(cancels())
            await asyncio.sleep(0)
            task = asyncio.create_task(play.asking())
        else:
            task = asyncio.create_task(play.asking())
            await asyncio.sleep(0)
            other = asyncio.create_task(cancels())
        (one,) = await asyncio.gather(task, return_exceptions=True)
        other.cancel()
        await asyncio.gather(other, return_exceptions=True)
        assert isinstance(one, asyncio.CancelledError) is (heard == [True])
        return heard == [True]

    heard = []
    later = [0]
    for later[0] in range(4):
        for turns in range(8):
            for first in (False, True):
                play = Play(endpoint, replace(SIGNALS, cancel_safe=cancel_safe))
                heard.append(play.time.run(cancelled_at_once(turns, first=first)))
                assert sum(play.outcomes.values()) == 1
                play.check()

    assert set(heard) == {False, True}


async def in_nested_groups(child: Child) -> None:
    """Run *child* two groups down, with work in both."""

    async def inner() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(child())
            await asyncio.sleep(9)

    async with asyncio.TaskGroup() as group:
        group.create_task(inner())
        await asyncio.sleep(9)


async def beside_work_in_anyios(child: Child) -> None:
    """Run *child* in anyio's group, which works on meanwhile."""
    async with anyio.create_task_group() as group:
        group.start_soon(child)
        await anyio.sleep(9)


async def while_it_cleans_up(child: Child) -> None:
    """Run *child* when the cancellation has been heard."""
    try:
        await asyncio.sleep(9)
    finally:
        await child()


@pytest.mark.parametrize("cancel_safe", [False, True])
@pytest.mark.parametrize(
    "within",
    [in_a_task_group, in_anyios, in_nested_groups, beside_work_in_anyios, while_it_cleans_up],
)
def test_the_servers_cancel_is_heard_though_a_child_asks_to_degrade_behind_it(
    within: Callable[[Child], Awaitable[None]], *, cancel_safe: bool
) -> None:
    """The application is on its way out already; its client may be answered all the same."""

    async def child() -> None:
        await asyncio.shield(asked.wait())
        budget.degrade("no_model")

    async def endpoint(_: Request) -> Response:
        await within(child)
        raise AssertionError

    async def cancelled() -> None:
        task = asyncio.create_task(play.asking())
        await asyncio.sleep(AT_S)
        task.cancel()
        asked.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asked = asyncio.Event()
    play = Play(endpoint, replace(SIGNALS, cancel_safe=cancel_safe))
    play.time.run(cancelled())

    assert sum(play.outcomes.values()) == 1
    play.check()


def test_a_failed_group_and_a_request_for_less_are_no_cancel_of_the_servers() -> None:
    """Not even where both groups have cancelled the request's task in their way."""

    async def asks() -> None:
        await asyncio.sleep(0.01)
        budget.degrade("no_model")

    async def endpoint(_: Request) -> Response:
        with contextlib.suppress(BaseExceptionGroup):
            await in_a_task_group(fails)
        with contextlib.suppress(BaseExceptionGroup):
            await in_a_task_group(fails)
        await in_a_task_group(asks)
        raise AssertionError

    answered = (play := Play(endpoint)).ask()

    assert answered.complete
    assert play.outcomes == {"degraded": 1}
    play.check()


def test_work_that_was_cancelled_by_others_in_the_clocks_turn_is_cancelled_soon_after() -> None:
    """A timeout of the application's falls into it; the clock looks again."""

    async def endpoint(_: Request) -> Response:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.08):
                try:
                    await asyncio.sleep(9)
                finally:
                    await asyncio.sleep(0.04)  # it takes a while to end
        await asyncio.sleep(9)
        raise AssertionError

    play = Play(endpoint, CANCELLED)
    answered = play.ask()

    assert (answered.kind, answered.complete) == ("static", True)
    assert play.ended_at_s < 0.3
    play.check()
