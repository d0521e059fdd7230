"""Answering with something smaller, over WSGI: at once, or on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from tests.doors.steered_play import LIMIT_S, POLICY, SIGNALS
from tests.doors.virtual_time import Time

from budgetware import budget
from budgetware._core.policy import Mode, Policy, Route
from budgetware.wsgi import BudgetMiddleware

Start = Callable[..., Any]


class Play:
    """An application behind the door, on a time of its own."""

    def __init__(
        self,
        seconds: float,
        route: Route = SIGNALS,
        mode: Mode = Mode.ENFORCE,
        *,
        lazy: bool = False,
        **options: Any,
    ) -> None:
        self.time = Time()
        self.seconds = seconds
        self.calls = 0
        self.lazy = lazy
        policy: Policy = replace(POLICY, mode=mode, routes={"signals": route})
        self.door = BudgetMiddleware(self.app, policy=policy, clock=self.time, **options)

    def app(self, _: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        """Answer in full after a while."""
        self.calls += 1
        self.work()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return self.parts() if self.lazy else [b"full"]

    def parts(self) -> Iterator[bytes]:
        """Give the body step by step."""
        yield b"fu"
        yield b"ll"

    def work(self) -> None:
        """Take the time it takes."""
        self.time.now += self.seconds

    def ask(self, method: str = "GET", **more: str) -> tuple[str, dict[str, str], bytes]:
        """Send one request; return the status, the headers and the body."""
        began: list[tuple[str, dict[str, str]]] = []

        def start_response(status: str, headers: list[tuple[str, str]], *_: object) -> Any:
            began.append((status, dict(headers)))
            return lambda _: None

        environ = {"REQUEST_METHOD": method, "PATH_INFO": "/signals", "wsgi.input": None, **more}
        body = self.door(environ, start_response)
        try:
            content = b"".join(body)
        finally:
            close = getattr(body, "close", None)
            if close is not None:
                close()
        assert len(began) == 1
        return *began[0], content

    @property
    def outcomes(self) -> dict[str, int]:
        """How many requests ended how."""
        engine = self.door._engine
        engine.tally.absorb()
        counts = engine.tally.requests["signals", "pro"].outcomes
        return {outcome: count for outcome, count in counts.items() if count}

    def check(self) -> None:
        """Make sure that nothing failed and nobody is left in flight."""
        assert self.door._engine.tally.faults == {}
        assert self.door._engine._traffic.now == 0


@pytest.mark.parametrize("lazy", [False, True])
def test_a_full_answer_in_time_is_left_alone(*, lazy: bool) -> None:
    """Nothing is added to it, and it counts as met."""
    play = Play(0.01, lazy=lazy)

    assert play.ask() == ("200 OK", {"Content-Type": "text/plain"}, b"full")
    assert play.outcomes == {"met": 1}
    play.check()


@pytest.mark.parametrize("lazy", [False, True])
def test_a_hopeless_route_is_answered_at_once(*, lazy: bool) -> None:
    """With the full answer of before, marked; the application is hardly called any more."""
    play = Play(5 * LIMIT_S, lazy=lazy)
    for _ in range(5):
        play.ask()
    called = play.calls

    answers = [play.ask() for _ in range(50)]

    status, headers, body = answers[-1]
    assert (status, body) == ("200 OK", b"full")
    assert headers["budgetware-answer"] == "cached"
    assert "age" in headers
    assert play.calls - called < 10
    assert play.outcomes["degraded"] > 40
    play.check()


def test_a_route_that_has_healed_is_answered_in_full_again() -> None:
    """A user pays for each probe, so these are rare, but they are made."""
    play = Play(5 * LIMIT_S)
    for _ in range(30):
        play.ask()
    play.seconds = 0.01
    answers = []
    for _ in range(200):
        play.time.now += 0.5
        answers.append(play.ask())

    assert ["budgetware-answer" in headers for _, headers, _ in answers[-10:]] == [False] * 10
    play.check()


def test_shadow_changes_nothing() -> None:
    """What would have been done is counted."""
    play = Play(5 * LIMIT_S, mode=Mode.SHADOW)

    answers = {play.ask()[2] for _ in range(10)}

    assert answers == {b"full"}
    assert play.outcomes == {"breached": 10}
    assert sum(play.door._engine.tally.decisions.values()) > 3
    play.check()


def test_degrade_leaves_the_application_for_a_smaller_answer() -> None:
    """Nothing of the application's was begun."""

    class Degrading(Play):
        def work(self) -> None:
            try:
                budget.degrade("no_model")
            except Exception:  # noqa: BLE001 - it is none
                pytest.fail("caught")

    play = Degrading(0.0)

    status, headers, body = play.ask()

    assert (status, body) == ("200 OK", b"static")
    assert headers["budgetware-answer"] == "static"
    assert play.outcomes == {"degraded": 1}
    play.check()


def test_without_an_answer_degrade_says_no() -> None:
    """503, when to come back, and why."""

    class Degrading(Play):
        def work(self) -> None:
            budget.degrade("no_model")

    play = Degrading(0.0, replace(SIGNALS, answers=(), static=None, cache=None))

    status, headers, _ = play.ask()

    assert status == "503 Service Unavailable"
    assert int(headers["retry-after"]) >= 1
    assert play.outcomes == {"rejected": 1}


def test_the_applications_own_fallback_is_given_the_environ() -> None:
    """What it returns is sent; when it fails, the next answer is."""

    def cheap(environ: dict[str, Any]) -> str:
        return str(environ["PATH_INFO"])

    def broken(_: dict[str, Any]) -> str:
        raise KeyError

    route = replace(SIGNALS, answers=("fallback", "static"))
    for fallback, expected in ((cheap, b"/signals"), (broken, b"static")):
        play = Play(5 * LIMIT_S, route, fallbacks={"signals": fallback})
        bodies = [play.ask()[2] for _ in range(20)]
        assert bodies.count(expected) > 10


def test_callers_with_credentials_have_no_cached_answer_without_an_identity() -> None:
    """With one, each has its own."""
    play = Play(5 * LIMIT_S, replace(SIGNALS, answers=("cached",)))
    for _ in range(20):
        assert "budgetware-answer" not in play.ask(HTTP_COOKIE="session=1")[1]

    def who(environ: dict[str, Any]) -> str:
        return str(environ["HTTP_COOKIE"])

    play = Play(5 * LIMIT_S, replace(SIGNALS, answers=("cached",)), identity=who)
    for _ in range(10):
        play.ask(HTTP_COOKIE="session=1")
    assert play.ask(HTTP_COOKIE="session=1")[1].get("budgetware-answer") == "cached"
    assert "budgetware-answer" not in play.ask(HTTP_COOKIE="session=2")[1]
    play.check()
