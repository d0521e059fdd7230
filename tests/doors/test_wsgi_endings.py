"""How a decided request ends over WSGI: who is told when, and what is left open. Nothing is."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from tests.doors.test_asgi_admission import STEERED
from tests.doors.wsgi_play import Body, Wire, environ
from tests.doors.wsgi_steered_play import HEADERS, Stand, degrades, lazy_degrade

from budgetware._core.outlook import RouteForecast
from budgetware.testing import deciding
from budgetware.wsgi import StartResponse

Env = dict[str, Any]


def test_observers_are_told_when_the_body_has_left() -> None:
    """Of a smaller answer at once, on the way and lazily, and of being turned away."""
    for app, action in ((degrades, "run"), (lazy_degrade, "run"), (degrades, "answer")):
        stand = Stand(app)
        wire = Wire(on_part=lambda _, told=stand.records: told.append("part"))  # type: ignore[misc]
        with deciding(action):
            stand.ask(wire=wire)
        assert [getattr(one, "answer", one) for one in stand.records] == ["part", "static"]
        stand.check()


def _steps(_: Env, start_response: StartResponse) -> Iterator[bytes]:
    start_response("200 OK", HEADERS)
    yield b"full"


@pytest.mark.parametrize("app", [degrades, lazy_degrade, _steps])
def test_a_body_that_is_read_to_its_end_and_never_closed_leaves_nothing_open(app: Any) -> None:
    """A server may forget, and test clients do."""
    stand = Stand(app)

    body = b"".join(stand.door(environ(path="/signals"), Wire().start_response))

    assert body == (b"full" if app is _steps else b"static")
    assert [record.answer for record in stand.records] == ([] if app is _steps else ["static"])
    assert sum(stand.outcomes.values()) == 1
    stand.check()


@pytest.mark.parametrize("where", ["step", "close"])
def test_an_error_of_the_application_in_its_body_is_its_own(where: str) -> None:
    """It passes as it is, counted once, and nothing is answered in its place."""
    error = ValueError("mine")

    def fail() -> None:
        raise error

    class Failing(Body):
        def close(self) -> None:
            super().close()
            if where == "close":
                fail()

    def app(_: Env, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", HEADERS)
        return Failing(each=fail if where == "step" else None)

    stand = Stand(app)

    with pytest.raises(ValueError, match="mine") as caught:
        Wire().run(stand.door, environ(path="/signals"))

    assert caught.value is error
    assert error.__context__ is error.__cause__ is None
    assert stand.errors == 1
    stand.check()


def test_a_request_that_had_to_wait_goes_the_way_of_one_that_begins_then() -> None:
    """The wait is the queue's time and not the service's: the forecast does not learn it."""
    entered, over = threading.Event(), threading.Event()
    paths: list[Any] = []

    def app(_: Env, start_response: StartResponse) -> Iterable[bytes]:
        entered.set()
        assert over.wait(30)
        start_response("200 OK", HEADERS)
        return [b"full"]

    policy = replace(STEERED, tiers={"pro": replace(STEERED.tiers["pro"], budget=60.0, queue=30.0)})
    stand = Stand(app, policy=policy)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RouteForecast, "learn", lambda _, path, **__: paths.append(path))
        threads = [threading.Thread(target=stand.ask) for _ in range(2)]
        threads[0].start()
        assert entered.wait(30)
        threads[1].start()
        admission = stand.door._engine.entrance.enforced
        assert admission is not None
        while not sum(waiting for _, waiting in admission.load().values()):
            threading.Event().wait(0.001)
        stand.time.now += 5.0
        over.set()
        for thread in threads:
            thread.join(30)

    assert [path.duration_s for path in paths] == [5.0, 0.0]
    stand.check()
