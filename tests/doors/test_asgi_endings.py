"""How an exchange may end at the ASGI door, and what is counted then."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.doors.asgi_play import BODY, GONE, LAST, START, Door, Wire, answer, http, run, suspend

from budgetware import budget
from budgetware.asgi import Message, Receive, Scope, Send


class Odd(BaseException):
    """An error that is not an ``Exception``."""


ERRORS: list[BaseException] = [
    ValueError("v"),
    TimeoutError(),
    ExceptionGroup("g", [ValueError(1), TypeError(2)]),
    BaseExceptionGroup("g", [Odd(), ValueError(3)]),
    Odd("o"),
    KeyboardInterrupt(),
    SystemExit(3),
    asyncio.CancelledError(),
    StopAsyncIteration(),
    GeneratorExit(),
]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize("sends", range(3))
def test_errors_of_the_application_leave_as_they_are(error: BaseException, sends: int) -> None:
    """The same object with its cause, context and traceback, whenever it is raised."""
    cause = LookupError("why")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in (START, LAST)[:sends]:
            await send(message)
        raise error from cause

    door = Door(app)
    wire = Wire()
    with pytest.raises(type(error)) as raised:
        wire.run(door, http())

    assert raised.value is error
    assert error.__cause__ is cause
    assert error.__context__ is None
    assert traceback.extract_tb(error.__traceback__)[-1].name == "app"
    assert wire.sent == [START, LAST][:sends]
    assert len(door.records) == 1
    assert sum(door.outcomes.values()) == 1
    assert door.faults == {}
    assert budget.route is None
    error.__traceback__ = None


@pytest.mark.parametrize(
    ("error", "sends", "outcome", "errors"),
    [
        (ValueError(), 0, "met", 1),
        (ValueError(), 1, "met", 1),
        (ValueError(), 2, "met", 1),
        (ExceptionGroup("g", [ValueError()]), 0, "met", 1),
        (asyncio.CancelledError(), 0, "client_gone", 0),
        (asyncio.CancelledError(), 1, "met", 0),
        (asyncio.CancelledError(), 2, "met", 0),
        (GeneratorExit(), 0, "client_gone", 0),
        (None, 0, "client_gone", 0),
        (None, 1, "met", 0),
    ],
)
def test_what_an_ending_counts_as(
    error: BaseException | None,
    sends: int,
    outcome: str,
    errors: int,
) -> None:
    """An application's error is a failed request; nobody left to answer is no violation."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in (START, LAST)[:sends]:
            await send(message)
        if error is not None:
            raise error

    door = Door(app)
    try:
        Wire().run(door, http())
    except BaseException as raised:  # noqa: BLE001 - some of them are
        assert raised is error  # noqa: PT017 - it may be None

    assert door.outcomes == {outcome: 1}
    assert door.errors == errors
    assert door.record.outcome == outcome


def test_an_overdrawn_request_nobody_waits_for_is_no_violation() -> None:
    """A client that leaves after ten budgets: outcome ``client_gone``, no level, no violation."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with budget.stage("db"):
            door.clock.now += 10
        raise asyncio.CancelledError

    door = Door(app)
    with pytest.raises(asyncio.CancelledError):
        Wire().run(door, http())

    assert door.outcomes == {"client_gone": 1}
    assert door.record.level is None
    assert door.record.violations == ()
    assert not any(
        series.violations[level]
        for series in door._engine.tally.requests.values()
        for level in series.violations
    )


def test_a_client_that_leaves_during_its_upload_is_gone() -> None:
    """The disconnect is the end: what the application makes of it is neither late nor failed."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] == "http.request":
            pass
        door.clock.now += 10
        await send({"type": "http.response.start", "status": 500})
        await send(LAST)
        raise ConnectionError

    door = Door(app)
    wire = Wire([{"type": "http.request", "body": b"a", "more_body": True}, GONE])
    with pytest.raises(ConnectionError):
        wire.run(door, http("POST"))

    assert door.outcomes == {"client_gone": 1}
    assert door.record.outcome == "client_gone"
    assert door.errors == 0
    assert [message["type"] for message in wire.sent] == [START["type"], LAST["type"]]
    assert [message["type"] for message in wire.received] == ["http.request", "http.disconnect"]


def test_a_disconnect_after_the_answer_began_changes_nothing() -> None:
    """A client that leaves while its upload is answered was answered."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await receive()
        await send(LAST)

    door = Door(app)
    Wire([GONE]).run(door, http("POST"))

    assert door.outcomes == {"met": 1}


@pytest.mark.parametrize("started", [False, True])
def test_a_coroutine_closed_by_the_server_ends_its_request(started: bool) -> None:  # noqa: FBT001
    """``close()`` on the suspended coroutine, even from another context, finishes it quietly."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if started:
            await send(START)
        await suspend()

    door = Door(app)
    wire = Wire()
    coroutine = door(http(), wire.receive, wire.send)
    mine = contextvars.copy_context()
    mine.run(coroutine.send, None)
    contextvars.Context().run(coroutine.close)

    assert sum(door.outcomes.values()) == 1
    assert door.outcomes == {("met" if started else "client_gone"): 1}
    assert door.faults == {}


def test_an_error_of_the_server_passes_through_the_application() -> None:
    """What the server's ``send`` and ``receive`` raise reaches the application unchanged."""
    errors = [OSError("send"), OSError("receive")]
    seen: list[BaseException] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for use in (send(START), send(LAST), receive()):
            try:
                await use
            except OSError as error:
                seen.append(error)
        raise seen[-1]

    def fail_send(message: Message) -> None:
        raise errors[0]

    def fail_receive() -> None:
        raise errors[1]

    door = Door(app)
    with pytest.raises(OSError, match="receive") as raised:
        Wire(on_send=fail_send, on_receive=fail_receive).run(door, http("POST"))

    assert raised.value is errors[1]
    assert seen == [errors[0], errors[0], errors[1]]
    assert sum(door.outcomes.values()) == len(door.records) == 1
    assert door.faults == {}


def _full(sends: list[Message]) -> Callable[[Scope, Receive, Send], Any]:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in sends:
            await send(message)

    return app


PART: Message = {"type": "http.response.body", "body": b"p", "more_body": True}
WITH_TRAILERS: Message = {"type": "http.response.start", "status": 200, "trailers": True}
TRAILERS: Message = {"type": "http.response.trailers", "headers": []}


@pytest.mark.parametrize(
    "sends",
    [
        [START, LAST],
        [START, LAST, LAST],
        [START, PART, LAST],
        [START, PART],
        [START],
        [],
        [WITH_TRAILERS, LAST, TRAILERS],
        [WITH_TRAILERS, PART, LAST, {**TRAILERS, "more_trailers": True}, TRAILERS],
        [WITH_TRAILERS, LAST],
        [START, {"type": "http.response.pathsend", "path": "/x"}],
        [WITH_TRAILERS, {"type": "http.response.pathsend", "path": "/x"}, TRAILERS],
        [START, {"type": "http.response.zerocopysend", "file": 1}],
        [START, START, LAST],
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_every_request_is_finished_once(sends: list[Message], method: str) -> None:
    """Whatever the application sends, there is one record and one count."""
    door = Door(_full(sends))
    wire = Wire()
    wire.run(door, http(method))

    assert sum(door.outcomes.values()) == len(door.records) == 1
    assert wire.sent == sends


TIMES = st.lists(
    st.tuples(
        st.sampled_from(["receive", "start", "part", "last", "stage", "wait", "raise"]),
        st.sampled_from([0.0, 0.05, 0.11, 2.0]),
    ),
    max_size=8,
)


@settings(max_examples=400, deadline=None)
@given(TIMES, st.sampled_from(["GET", "POST"]), st.sampled_from(["free", "pro"]))
def test_whenever_the_deadline_passes_nothing_is_sent_but_the_applications_messages(
    script: list[tuple[str, float]],
    method: str,
    tier: str,
) -> None:
    """Deadlines pass between any two messages: no second start, one count, figures add up."""
    mine = {"start": START, "part": PART, "last": LAST}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for step, seconds in script:
            door.clock.now += seconds
            if step in mine:
                await send(mine[step])
            elif step == "receive":
                await receive()
            elif step == "stage":
                with budget.stage("db"):
                    door.clock.now += seconds
            elif step == "raise":
                raise ValueError

    door = Door(app)
    wire = Wire()
    try:
        wire.run(door, http(method, state={"budgetware.tier": tier}))
        ended = len(script)
    except ValueError:
        ended = [step for step, _ in script].index("raise")

    assert wire.sent == [mine[step] for step, _ in script[:ended] if step in mine]
    assert len(door.records) == sum(door.outcomes.values()) == 1
    record = door.record
    assert 0 <= record.elapsed_s <= record.duration_s
    exclusive = sum(total.exclusive_s for total in record.stages)
    assert exclusive + record.unattributed_s == pytest.approx(record.duration_s)
    assert record.duration_s + record.waited_s <= door.clock.now - 1000 + 1e-6


def test_the_stack_of_an_error_is_as_deep_as_one_more_call() -> None:
    """The application's error carries one frame of ours, and no context of ours."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert sys.exc_info() == (None, None, None)
        raise ValueError

    wire = Wire([BODY])
    try:
        run(Door(app)(http(), wire.receive, wire.send))
    except ValueError as error:
        frames = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
        assert sum("budgetware/asgi" in name for name in frames) == 1
    assert run(answer(http(), wire.receive, wire.send)) is None


def test_a_last_send_that_is_cancelled_before_it_began_is_told_all_the_same() -> None:
    """The task of the last ``send`` never got its turn: the violation is known, and said once."""

    class Cancelled(BaseException):
        """What a cancelled task is left with."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        door.clock.now += 5
        sending = send(LAST)
        sending.close()  # type: ignore[attr-defined]
        raise Cancelled

    door = Door(app)
    with pytest.raises(Cancelled):
        Wire().run(door, http())

    assert door.record.level is not None
    assert sum(door.outcomes.values()) == 1
