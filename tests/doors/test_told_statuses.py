"""The status of a record is what the client got, whoever has answered it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from tests.doors.both_doors import DOORS, Asgi, Asked, Door, Made
from tests.doors.steered_play import POLICY, SIGNALS, Play
from tests.doors.wsgi_play import Wire, environ
from tests.doors.wsgi_steered_play import Stand

from budgetware import budget
from budgetware._core.policy import Mode, Policy, Route, StagePolicy, StaticAnswer, TierPolicy
from budgetware._core.record import RequestRecord
from budgetware.testing import deciding
from budgetware.wsgi import BudgetMiddleware, Environ, StartResponse

Records = list[RequestRecord]

NON_AUTHORITATIVE = 203
"""What the static answer of these tests says, which nothing else does."""


def _policy(*answers: str, **route: Any) -> Policy:
    static = StaticAnswer(status=NON_AUTHORITATIVE, body="static")
    signals = replace(SIGNALS, answers=answers, static=static, cache=None, **route)
    return replace(POLICY, routes={"signals": signals})


def _told(door: Door, policy: Policy, app: Callable[[Asked], Made]) -> tuple[int, RequestRecord]:
    """Return the status one client got, and the record of its request."""
    records: Records = []
    client = door(app, policy, observers=[records.append])
    reply = client.ask()
    (record,) = records
    return reply.status, record


@pytest.mark.parametrize(
    ("answers", "status"), [(["static"], NON_AUTHORITATIVE), (["reject"], 503)]
)
@DOORS
def test_an_answer_before_the_work(door: Door, answers: list[str], status: int) -> None:
    """What was sent in place of it; its first byte is its last."""
    with deciding("answer"):
        told, record = _told(door, _policy(*answers), lambda _: Made())

    assert record.status == told == status
    assert record.first_byte_s == record.elapsed_s == record.duration_s


@pytest.mark.parametrize(("answers", "status"), [(["static"], NON_AUTHORITATIVE), ([], 503)])
@DOORS
def test_an_answer_on_the_way(door: Door, answers: list[str], status: int) -> None:
    """Where the application has given up, or was left at a stage."""

    def gives_up(_: Asked) -> Made:
        budget.degrade("no_model")
        raise AssertionError

    def is_left(_: Asked) -> Made:
        with deciding("answer"), budget.stage("ml"):
            raise AssertionError

    for app in (gives_up, is_left):
        policy = _policy(*answers, stages={"ml": StagePolicy(answers=True)})
        told, record = _told(door, policy, app)
        assert record.status == told == status


@DOORS
def test_a_caller_that_is_turned_away(door: Door) -> None:
    """Over its rate it is told so."""
    records: Records = []
    policy = replace(_policy("static"), tiers={"pro": TierPolicy(budget=1.0, rate=1.0)})
    client = door(lambda _: Made(), policy, observers=[records.append])
    replies = [client.ask().status for _ in range(2)]

    assert [record.status for record in records] == replies == [200, 429]


@pytest.mark.parametrize(
    ("method", "route", "status"),
    [
        ("GET", {"answers": ("static",)}, NON_AUTHORITATIVE),
        ("GET", {"answers": ("reject",)}, 504),
        (
            "POST",
            {
                "answers": ("static",),
                "times_unsafe": True,
                "static": StaticAnswer(status=202, body="later"),
            },
            202,
        ),
    ],
)
@pytest.mark.parametrize("made", [Made(0.3), Made(0.3, 500)])
def test_an_answer_by_the_clock(method: str, route: Any, status: int, made: Made) -> None:
    """Whatever the application says to it behind its client's back."""
    records: Records = []
    signals = replace(_policy("static").routes["signals"], **route)
    client = Asgi(
        lambda _: made, replace(POLICY, routes={"signals": signals}), observers=[records.append]
    )

    assert client.ask(method).status == status
    assert [record.status for record in records] == [status]


@DOORS
def test_the_full_response(door: Door) -> None:
    """And one in which a stage was left out, which is the application's own all the same."""

    @budget.stage("ml", fallback=lambda: 201)
    def score() -> int:
        return 200

    for action in ("run", "skip"):

        def scored(_: Asked, action: str = action) -> Made:
            with deciding(action):
                return Made(status=score())

        told, record = _told(door, _policy("static"), scored)
        assert record.status == told == {"run": 200, "skip": 201}[action]


@pytest.mark.parametrize("mode", Mode)
def test_an_application_that_raises_over_asgi(mode: Mode) -> None:
    """Before its response has begun, whoever is further out answers; after it, it has begun."""
    records: Records = []

    async def early(_: Request) -> Response:
        raise ValueError("mine")

    async def late(_: Request) -> Response:
        async def parts() -> Any:
            yield b"part"
            await asyncio.sleep(0)
            raise ValueError("mine")

        return StreamingResponse(parts(), NON_AUTHORITATIVE)

    async def handled(_: Request) -> Response:
        return PlainTextResponse("oh", 500)

    raised: list[str] = []
    for endpoint in (early, late, handled):
        play = Play(endpoint, mode=mode, wrapped=lambda app: app.router, observers=[records.append])  # type: ignore[attr-defined]
        try:
            play.ask()
        except (ValueError, ExceptionGroup) as error:  # an old Starlette streams from a task group
            raised.append(type(error).__name__)

    assert len(raised) == 2
    assert [(record.status, record.error) for record in records] == [
        (None, raised[0]),
        (NON_AUTHORITATIVE, raised[1]),
        (500, None),
    ]


STARTS, WRITES = "starts", "writes"


def _failing(*says: str | bytes) -> Any:
    """Return a WSGI application that raises when it has said so much, its parts as they are."""

    def app(_: Environ, start_response: StartResponse) -> Iterator[bytes]:
        for one in says:
            if one == STARTS:
                write = start_response("203 x", [])
            elif one == WRITES:
                write(b"w")
            elif isinstance(one, bytes):
                yield one
        raise ValueError("mine")

    return app


def _fails_in_call(_: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("203 x", [])
    raise ValueError("mine")


def _writes_in_call(_: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("203 x", [])(b"w")
    raise ValueError("mine")


def _fails_in_close(_: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("203 x", [])

    class Closing:
        def __iter__(self) -> Iterator[bytes]:
            return iter([b"a"])

        def close(self) -> None:
            raise ValueError("mine")

    return Closing()


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize(
    ("app", "status"),
    [
        (_failing(), None),
        (_failing(STARTS), None),
        (_failing(STARTS, b""), None),
        (_failing(STARTS, b"a"), NON_AUTHORITATIVE),
        (_failing(STARTS, b"", b"a", b""), NON_AUTHORITATIVE),
        (_failing(STARTS, WRITES), NON_AUTHORITATIVE),
        (_fails_in_call, None),
        (_writes_in_call, NON_AUTHORITATIVE),
        (_fails_in_close, NON_AUTHORITATIVE),
    ],
)
def test_an_application_that_raises_over_wsgi(mode: Mode, app: Any, status: int | None) -> None:
    """What it has started goes no further than the server until there is a byte of the body."""
    stand = Stand(app, mode=mode)
    with pytest.raises(ValueError, match="mine"):
        stand.ask()

    (record,) = stand.records
    assert (record.status, record.error) == (status, "ValueError")
    assert (record.first_byte_s is None) == (status is None)
    stand.check()


@pytest.mark.parametrize("mode", Mode)
def test_a_second_start_that_the_server_refuses(mode: Mode) -> None:
    """After bytes have left, it is too late for another status."""

    def app(_: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("203 x", [])
        yield b"a"
        try:
            int("mine")
        except ValueError:
            start_response("500 Oh no", [], sys.exc_info())

    records: Records = []
    policy = Policy(mode=mode, tiers={"pro": TierPolicy(budget=1.0)}, routes={"x": Route(name="x")})
    door = BudgetMiddleware(app, policy=policy, observers=[records.append])
    with pytest.raises(ValueError, match="mine"):
        Wire().run(door, environ())

    assert [record.status for record in records] == [NON_AUTHORITATIVE]
