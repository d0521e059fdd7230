"""Turning to something smaller over WSGI when the application is already at work on its body."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from tests.doors.fault_points import Broken
from tests.doors.steered_play import SIGNALS
from tests.doors.test_asgi_admission import STEERED
from tests.doors.wsgi_play import Body, SizedBody, Wire, environ
from tests.doors.wsgi_steered_play import HEADERS, Stand, degrades, lazy_degrade

from budgetware import budget
from budgetware._core.interrupt import AnswerNow
from budgetware._core.policy import StagePolicy
from budgetware.answers.menu import ThreadMenu
from budgetware.testing import deciding
from budgetware.wsgi import StartResponse
from budgetware.wsgi.steered import TurnedTooLate

Env = dict[str, Any]
GATED = replace(SIGNALS, stages={"ml": StagePolicy(answers=True)})


def lazy_gate(_: Env, start_response: StartResponse) -> Iterator[bytes]:
    """Open a stage in the first step of the body at which the request may be answered."""
    with budget.stage("ml"):
        start_response("200 OK", HEADERS)
    yield b"full"


def lazy_tier(_: Env, start_response: StartResponse) -> Iterator[bytes]:
    """Learn the tier in the first step of the body."""
    budget.tier = "pro"
    start_response("200 OK", HEADERS)
    yield b"full"


@pytest.mark.parametrize("app", [lazy_degrade, lazy_gate, lazy_tier])
def test_a_body_that_has_not_begun_its_response_turns(
    monkeypatch: pytest.MonkeyPatch, app: Any
) -> None:
    """The client has the smaller answer, whole, and the worker goes on."""
    stand = Stand(app, GATED)
    # Nothing is decided before anything has run: only at the stage, or at the tier.
    monkeypatch.setattr("budgetware.wsgi.steered.SteeredExchange.at_once", lambda _: None)

    with deciding("run" if app is lazy_degrade else "answer"):
        got = stand.ask()

    assert (got.status, got.body, got.kind) == ("200 OK", b"static", "static")
    assert stand.outcomes == {"degraded": 1}
    assert [record.answer for record in stand.records] == ["static"]
    stand.check()


@pytest.mark.parametrize("kind", [Body, SizedBody])
def test_a_body_that_turns_is_closed_once(kind: type[Body]) -> None:
    """It is the application's own ``close()``, after its answer was taken over."""
    bodies: list[Body] = []

    def app(_: Env, __: StartResponse) -> Iterable[bytes]:
        bodies.append(kind(each=lambda: budget.degrade("no_model")))
        return bodies[0]

    stand = Stand(app)

    assert stand.ask().body == b"static"
    assert bodies[0].closed == 1
    stand.check()


def test_head_gets_the_lines_of_the_smaller_answer_and_no_body() -> None:
    """As it does when the application had not returned yet."""
    got = Stand(lazy_degrade).ask(method="HEAD")

    assert (got.status, got.body) == ("200 OK", b"")
    assert got.headers["content-length"] == "6"


def _keeps_it(seen: list[BaseException]) -> Callable[..., Iterator[bytes]]:
    def app(_: Env, start_response: StartResponse) -> Iterator[bytes]:
        try:
            budget.degrade("no_model")
        except AnswerNow as turn:
            seen.append(turn)
        start_response("200 OK", HEADERS)
        yield b"fu"
        raise seen[0]

    return app


def test_what_was_begun_ends_as_an_error_of_the_application_would() -> None:
    """Nothing is sent twice, and what is raised ends no worker."""
    stand = Stand(_keeps_it([]))
    wire = Wire()

    with pytest.raises(TurnedTooLate) as caught:
        wire.run(stand.door, environ(path="/signals"))

    assert isinstance(caught.value, Exception)
    assert (len(wire.starts), wire.parts) == (1, [b"fu"])
    assert stand.errors == 1
    stand.check()


def test_an_application_that_had_begun_and_returns_nothing_fails_as_an_application_does() -> None:
    """The same in its call: an exception, and one account."""

    def app(_: Env, start_response: StartResponse) -> Iterable[bytes]:
        try:
            budget.degrade("no_model")
        finally:
            start_response("500 Oh", HEADERS)
        raise AssertionError

    stand = Stand(app)

    with pytest.raises(TurnedTooLate):
        stand.ask()
    assert stand.errors == 1
    assert len(stand.records) == 1
    stand.check()


def test_a_turn_in_close_is_an_error_of_the_application() -> None:
    """The response has left by then."""
    seen: list[BaseException] = []

    class Late(Body):
        def close(self) -> None:
            super().close()
            raise seen[0]

    def app(_: Env, start_response: StartResponse) -> Iterable[bytes]:
        try:
            budget.degrade("no_model")
        except AnswerNow as turn:
            seen.append(turn)
        start_response("200 OK", HEADERS)
        return Late()

    stand = Stand(app)

    with pytest.raises(TurnedTooLate):
        stand.ask()
    stand.check()


@pytest.mark.parametrize("lazy", [False, True])
def test_another_requests_turn_ends_no_worker(*, lazy: bool) -> None:
    """A result that several requests wait for may carry it; a group of errors, too."""
    turn = AnswerNow(object(), "theirs")

    def fails() -> bytes:
        raise BaseExceptionGroup("both", [turn, ValueError()])

    def steps() -> Iterator[bytes]:
        yield fails()

    def app(_: Env, __: StartResponse) -> Iterable[bytes]:
        if not lazy:
            raise turn
        return steps()

    stand = Stand(app)

    with pytest.raises(TurnedTooLate):
        stand.ask()
    assert stand.errors == 1
    stand.check()


def test_a_door_around_this_one_has_its_turn() -> None:
    """What the application asks of the outer budget reaches the outer door."""
    turns: list[BaseException] = []

    def app(_: Env, __: StartResponse) -> Iterable[bytes]:
        raise turns[0]

    inner = Stand(app)

    def outer_app(env: Env, start_response: StartResponse) -> Iterable[bytes]:
        try:
            budget.degrade("outer")
        except AnswerNow as turn:
            turns.append(turn)
        return inner.door(env, start_response)

    outer = Stand(outer_app)

    assert outer.ask().body == b"static"
    outer.check()
    inner.check()


def test_close_starts_no_second_response() -> None:
    """Whatever the application calls once its client was answered goes nowhere."""
    written: list[object] = []

    class Talkative(Body):
        def __init__(self, start_response: StartResponse) -> None:
            super().__init__(each=lambda: budget.degrade("no_model"))
            self.start_response = start_response

        def close(self) -> None:
            written.append(self.start_response("200 OK", HEADERS)(b"more"))

    stand = Stand(lambda _, start_response: Talkative(start_response))

    assert stand.ask().body == b"static"
    assert written == [None]
    stand.check()


class _Refusing(Wire):
    """A server that takes no start of a response."""

    def start_response(self, status: str, headers: Any, exc_info: Any = None) -> Any:
        raise OSError("bad header")


@pytest.mark.parametrize("app", [degrades, lazy_degrade])
def test_a_server_that_refuses_the_smaller_answer_is_heard_and_the_request_counted(
    app: Any,
) -> None:
    """The server's error is its own; the request is in the totals and leaves nothing open."""
    stand = Stand(app)

    with pytest.raises(OSError, match="bad header"):
        _Refusing().run(stand.door, environ(path="/signals"))

    assert stand.outcomes == {"degraded": 1}
    assert stand.errors == 1
    assert len(stand.records) == 1
    stand.check()


def test_a_server_that_refuses_an_answer_at_once_does_not_have_the_application_run() -> None:
    """It would be told of an error that is not its own."""
    calls: list[Env] = []

    def app(env: Env, _: StartResponse) -> Iterable[bytes]:
        calls.append(env)
        return [b""]

    stand = Stand(app)
    with deciding("answer"), pytest.raises(OSError, match="bad header"):
        _Refusing().run(stand.door, environ(path="/signals"))

    assert calls == []
    assert stand.outcomes == {"degraded": 1}
    stand.check()


def test_a_server_that_refuses_a_turned_away_request_loses_no_slot() -> None:
    """The slot of the one that runs is free once that is done."""
    entered, over = threading.Event(), threading.Event()

    def app(_: Env, start_response: StartResponse) -> Iterable[bytes]:
        entered.set()
        assert over.wait(30)
        start_response("200 OK", HEADERS)
        return [b"full"]

    stand = Stand(app, policy=replace(STEERED, tiers={}))
    first = threading.Thread(target=stand.ask)
    first.start()
    assert entered.wait(30)
    with pytest.raises(OSError, match="bad header"):
        _Refusing().run(stand.door, environ(path="/signals"))
    over.set()
    first.join(30)

    assert stand.ask().body == b"full"
    admission = stand.door._engine.entrance.enforced
    assert admission is not None
    assert admission.in_flight == 0
    stand.check()


def _broken(*_: Any, **__: Any) -> Any:
    raise Broken


@pytest.mark.parametrize("app", [degrades, lazy_degrade])
def test_a_fault_in_choosing_an_answer_says_no(monkeypatch: pytest.MonkeyPatch, app: Any) -> None:
    """The application has left, so it cannot answer; a fault in that, too, is a no."""
    monkeypatch.setattr(ThreadMenu, "choose", _broken)
    stand = Stand(app)

    assert stand.ask().status == "503 Service Unavailable"
    assert stand.outcomes == {"rejected": 1}

    monkeypatch.setattr("budgetware.wsgi.steered.refusal", _broken)
    assert stand.ask().status == "503 Service Unavailable"
    assert stand.outcomes == {"rejected": 2}
    assert stand.door._engine.tally.faults == {"answer": 3}
    assert stand.errors == 0
    assert stand.door._engine._traffic.now == 0


@pytest.mark.parametrize(
    "step",
    [
        "wsgi.steered.SteeredExchange._take_menu",
        "wsgi.steered.SteeredExchange._decision",
        "answers.menu.ThreadMenu.choose",
    ],
)
def test_a_fault_before_anything_has_run_lets_the_application_answer(
    monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Once, in full; nothing is left in flight."""
    monkeypatch.setattr(f"budgetware.{step}", _broken)
    calls: list[Env] = []

    def app(env: Env, start_response: StartResponse) -> Iterable[bytes]:
        calls.append(env)
        start_response("200 OK", HEADERS)
        return [b"full"]

    stand = Stand(app)
    with deciding("answer"):
        got = stand.ask()

    assert (got.body, got.kind, len(calls)) == (b"full", None, 1)
    assert sum(stand.door._engine.tally.faults.values()) == 1
    assert stand.door._engine._traffic.now == 0
