"""What a WSGI application does with ``start_response``, ``write`` and its input."""

from __future__ import annotations

import contextvars
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from greenlet import getcurrent, greenlet  # type: ignore[import-untyped]
from tests.doors.wsgi_play import Body, Door, Wire, answer, environ

from budgetware import budget
from budgetware._core.current import current_budget
from budgetware.wsgi import Environ, StartResponse

HEADERS = [("Content-Type", "text/plain")]


@pytest.mark.parametrize("how", ["two", "three", "keyword", "keywords"])
def test_start_response_is_called_as_the_application_calls_it(how: str) -> None:
    """Two arguments, three or by keyword: the server's own is called with the same values."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def app(env: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if how == "two":
            start_response("200 OK", HEADERS)
        elif how == "three":
            start_response("200 OK", HEADERS, None)
        elif how == "keyword":
            start_response("200 OK", HEADERS, exc_info=None)
        else:
            start_response(status="200 OK", headers=HEADERS)
        return [b""]

    def server(*args: Any, **kwargs: Any) -> Any:
        calls.append((args, kwargs))
        return [].append

    list(Door(app)(environ(), server))

    ((args, kwargs),) = calls
    assert len(args) + len(kwargs) == {"two": 2, "three": 3, "keyword": 3, "keywords": 2}[how]
    assert args[0] == "200 OK"
    assert args[1] is HEADERS


def test_a_second_start_replaces_the_first() -> None:
    """With ``exc_info`` the application starts anew, and the second status is the one."""

    def app(env: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        try:
            int("x")
        except ValueError:
            start_response("500 Oh no", HEADERS, sys.exc_info())
        return [b"failed"]

    door = Door(app)
    wire = Wire()
    wire.run(door, environ())

    assert [start[:2] for start in wire.starts] == [("200 OK", []), ("500 Oh no", HEADERS)]
    assert isinstance(wire.starts[1][2][1], ValueError)
    assert door.record.status == 500
    assert door.errors == 1


def test_a_second_start_that_comes_too_late_raises_what_the_server_raises() -> None:
    """After bytes have left, the server raises the error it is given, through the application."""
    error = ValueError("late")

    def app(env: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"a"
        try:
            raise error
        except ValueError:
            start_response("500 Oh no", [], sys.exc_info())

    door = Door(app)
    with pytest.raises(ValueError, match="late") as raised:
        Wire().run(door, environ())

    assert raised.value is error
    assert len(door.records) == 1


@pytest.mark.parametrize("status", ["200", "200 OK", "404 Nöt", "500 Err"])
def test_any_status_line_is_understood(status: str) -> None:
    """The number is noted and the line passed on as it is."""

    def app(env: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(status, [])
        return []

    door = Door(app)
    wire = Wire()
    wire.run(door, environ())

    assert wire.starts[0][0] == status
    assert door.record.status == int(status[:3])
    assert door.faults == {}


def test_write_writes_what_the_server_would_write() -> None:
    """Pieces written come before the body, and what ``write`` returns is the server's."""
    returned: list[object] = []

    def app(env: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", [])
        returned.extend(write(part) for part in (b"", b"one", b"two"))
        return [b"three"]

    door = Door(app)
    wire = Wire(on_part=lambda part: setattr(door.clock, "now", door.clock.now + 10))
    wire.run(door, environ())

    assert wire.parts == [b"", b"one", b"two", b"three"]
    assert returned == [None] * 3
    assert door.record.waited_s == 30
    assert door.record.elapsed_s == 0


def test_the_first_byte_written_ends_the_budget() -> None:
    """An empty piece is no byte; the first piece with one is, however long the rest takes."""

    def app(env: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", [])
        for part in (b"", b"one", b"two"):
            door.clock.now += 1
            write(part)
        door.clock.now += 1
        return []

    door = Door(app)
    Wire().run(door, environ())

    assert door.record.first_byte_s == door.record.elapsed_s == 2
    assert door.record.duration_s == 4


def test_the_first_byte_of_a_stream_ends_the_budget() -> None:
    """A slow client between the parts is not billed, the application's own steps are."""

    def app(env: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])
        for part in (b"", b"one", b"two"):
            door.clock.now += 1
            yield part
        door.clock.now += 1

    door = Door(app)
    Wire(on_part=lambda part: setattr(door.clock, "now", door.clock.now + 10)).run(door, environ())

    assert door.record.first_byte_s == door.record.elapsed_s == 2
    assert door.record.duration_s == 4
    assert door.record.waited_s == 30


def test_the_last_byte_ends_the_budget_where_the_route_says_so() -> None:
    """With ``clock: last_byte`` all steps count and the client's slowness does not."""

    def app(env: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])
        for part in (b"one", b"two"):
            door.clock.now += 0.6
            yield part

    door = Door(app)
    Wire(on_part=lambda part: setattr(door.clock, "now", door.clock.now + 10)).run(
        door,
        environ(path="/reports/x"),
    )

    assert door.record.elapsed_s == pytest.approx(1.2)
    assert door.record.outcome == "exceeded"


@pytest.mark.parametrize("kind", ["generator", "body"])
def test_a_lazy_start_is_a_start(kind: str) -> None:
    """``start_response`` called by the first step of the body works as in the call."""

    def app(env: Environ, start_response: StartResponse) -> Iterator[bytes]:
        with budget.stage("lazy"):
            start_response("201 Created", [])
        yield b"a"

    def body_app(env: Environ, start_response: StartResponse) -> Iterable[bytes]:
        return Body(each=lambda: start_response("201 Created", []))

    door = Door(app if kind == "generator" else body_app)
    Wire().run(door, environ())

    assert door.record.status == 201


@pytest.mark.parametrize("kind", ["generator", "body"])
def test_a_client_that_leaves_before_a_lazy_start_is_gone(kind: str) -> None:
    """Closed before any step: no answer was begun, whether or not the body has a ``close()``."""

    def app(env: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"a"

    def body_app(env: Environ, start_response: StartResponse) -> Iterable[bytes]:
        return iter([b"a"])

    door = Door(app if kind == "generator" else body_app)
    door.clock.now += 10
    body: Any = door(environ(), Wire().start_response)
    door.clock.now += 10
    body.close()

    assert door.outcomes == {"client_gone": 1}
    assert door.record.outcome == "client_gone"


@pytest.mark.parametrize("error", [ValueError("v"), KeyboardInterrupt(), SystemExit(1)])
def test_errors_of_the_application_leave_as_they_are(error: BaseException) -> None:
    """The same object with its cause and without a context of ours; nothing stays set."""
    cause = LookupError()

    def app(env: Environ, start_response: StartResponse) -> Iterable[bytes]:
        raise error from cause

    door = Door(app)
    with pytest.raises(type(error)) as raised:
        door(environ(), Wire().start_response)

    assert raised.value is error
    assert error.__cause__ is cause
    assert error.__context__ is None
    assert sum(door.outcomes.values()) == len(door.records) == 1
    assert door.errors == isinstance(error, Exception)
    assert current_budget.get() is None


def test_an_application_may_swap_its_greenlets_context() -> None:
    """Code that changes the running context behind Python's back costs no request."""

    def app(env: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])
        getcurrent().gr_context = contextvars.Context()
        yield b"a"
        getcurrent().gr_context = contextvars.Context()

    def eager(env: Environ, start_response: StartResponse) -> Iterable[bytes]:
        getcurrent().gr_context = contextvars.Context()
        return answer(env, start_response)

    wire = Wire()

    def serve() -> None:
        wire.run(Door(app), environ())
        wire.run(Door(eager), environ())
        wire.run(Door(lambda env, start: Body(each=swap)), environ())

    def swap() -> None:
        getcurrent().gr_context = contextvars.Context()

    greenlet(serve).switch()

    assert wire.parts == [b"a", b"ok", b"a", b"b"]


@pytest.mark.parametrize("method", ["GET", "DELETE", "HEAD", "BREW"])
def test_the_environ_is_the_servers_own(method: str) -> None:
    """The application is given the very environ, and without a body nothing in it is changed."""
    env = environ(method)
    before = dict(env)
    seen: list[Environ] = []

    def app(env: Environ, start_response: StartResponse) -> Iterable[bytes]:
        seen.append(env)
        return answer(env, start_response)

    Wire().run(Door(app), env)

    assert seen[0] is env
    assert env == before


@pytest.mark.parametrize(
    ("script", "path", "route"),
    [
        ("", "/signals/x", "signals"),
        ("/api", "/signals/x", "signals"),
        ("", "/signals/\xc3\xa9", "signals"),
        ("", "/signals/\xff\xfe", "signals"),
        ("/\xc3\xa9", "/signals/x", "signals"),
        ("", "", "home"),
        ("/api", "", "home"),
        ("/api", "/", "home"),
        ("", "/nope", "_unmatched"),
        ("", "//", "_unmatched"),
        ("/signals", "/x", "signals"),
    ],
)
def test_the_path_is_what_the_router_sees(script: str, path: str, route: str) -> None:
    """Script name and path as PEP 3333 encodes them, valid UTF-8 or not."""
    door = Door(answer)
    Wire().run(door, environ(path=path, SCRIPT_NAME=script))

    assert door.record.route == route
    assert door.faults == {}


def test_optional_keys_are_optional() -> None:
    """No SCRIPT_NAME, no PATH_INFO, no file wrapper: nothing is a fault."""
    env = environ("POST")
    for key in ("SCRIPT_NAME", "PATH_INFO", "wsgi.file_wrapper", "QUERY_STRING"):
        del env[key]
    door = Door(answer)
    Wire().run(door, env)

    assert door.record.route == "home"
    assert door.faults == {}


def test_the_tier_is_what_an_outer_middleware_stored() -> None:
    """A tier in the environ or from a callable; a header is never believed."""
    door = Door(answer)
    Wire().run(door, environ(**{"budgetware.tier": "pro", "HTTP_BUDGETWARE_TIER": "free"}))
    Wire().run(door, environ(HTTP_BUDGETWARE_TIER="pro"))
    named = Door(answer, tier=lambda env: str(env["QUERY_STRING"]) or None)
    Wire().run(named, environ(QUERY_STRING="pro"))
    Wire().run(named, environ())
    Wire().run(named, environ(QUERY_STRING="nobody"))

    assert [record.tier for record in door.records] == ["pro", "free"]
    assert [record.tier for record in named.records] == ["pro", "free", "free"]
