"""Every shape of a WSGI body, and how often it is closed."""

from __future__ import annotations

import contextvars
import gc
import io
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any
from wsgiref.util import FileWrapper
from wsgiref.validate import validator

import pytest
from tests.doors.asgi_play import POLICY
from tests.doors.wsgi_play import Body, Door, SizedBody, Wire, answer, environ

from budgetware import budget
from budgetware._core.budget import Budget
from budgetware._core.current import current_budget
from budgetware.wsgi import Environ, StartResponse, WSGIApp


def _giving(body: Any) -> WSGIApp:
    def app(env: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        made: Iterable[bytes] = body() if callable(body) else body
        return made

    return app


@pytest.mark.parametrize("kind", [Body, SizedBody])
@pytest.mark.parametrize("leave_after", [None, 1, 2])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_body_is_closed_once(
    kind: type[Body],
    leave_after: int | None,
    method: str,
) -> None:
    """Read to the end or left early: one close, on the application's own object."""
    body = kind()
    door = Door(_giving(body))
    Wire(leave_after).run(door, environ(method))

    assert body.closed == 1
    assert sum(door.outcomes.values()) == len(door.records) == 1
    assert current_budget.get() is None


def test_a_body_that_is_never_iterated_is_closed_once() -> None:
    """A server may close without reading, as some do for HEAD."""
    body = Body()
    door = Door(_giving(body))
    wrapped = door(environ("HEAD"), Wire().start_response)
    wrapped.close()  # type: ignore[attr-defined]

    assert body.closed == 1
    assert len(door.records) == 1


def test_a_body_whose_step_fails_is_closed_once() -> None:
    """The application's error in the middle of its body reaches the server, which closes."""
    error = ValueError("middle")

    def fail() -> None:
        raise error

    body = Body(each=fail)
    door = Door(_giving(body))
    with pytest.raises(ValueError, match="middle") as raised:
        Wire().run(door, environ())

    assert raised.value is error
    assert body.closed == 1
    assert door.errors == 1
    assert door.record.error == "ValueError"
    assert current_budget.get() is None


def test_an_error_in_close_reaches_the_server() -> None:
    """What ``close()`` raises is raised, and the request is finished all the same."""
    error = KeyError("close")

    class Failing(Body):
        def close(self) -> None:
            super().close()
            raise error

    body = Failing()
    door = Door(_giving(body))
    with pytest.raises(KeyError) as raised:
        Wire().run(door, environ())

    assert raised.value is error
    assert error.__context__ is None
    assert body.closed == 1
    assert len(door.records) == 1
    assert door.errors == 1


def test_a_body_without_close_is_finished_all_the_same() -> None:
    """An iterator and a generator that was not started have nothing to close, or nothing to do."""
    ran: list[str] = []

    def generate() -> Iterator[bytes]:
        ran.append("ran")
        yield b"a"

    door = Door(_giving(lambda: iter([b"a"])))
    Wire().run(door, environ())
    Wire().run(Door(_giving(generate)), environ())
    body = Door(_giving(generate))(environ(), Wire().start_response)
    body.close()  # type: ignore[attr-defined]

    assert len(door.records) == 1
    assert ran == ["ran"]


@pytest.mark.parametrize(
    ("body", "length"),
    [
        ([], 0),
        ([b"a"], 1),
        ((b"a", b"b"), 2),
        (SizedBody(), 2),
        (Body(), None),
        (iter([b"a"]), None),
        ({b"a": 1, b"b": 2}, 2),
    ],
)
def test_the_length_is_there_if_it_was_there(body: Any, length: int | None) -> None:
    """``len()`` of a body is what the application's says, or is as impossible."""
    wire = Wire()
    wire.run(Door(_giving(body)), environ())

    assert wire.length == length


def test_a_ready_body_that_nobody_has_to_be_told_of_is_handed_on_itself() -> None:
    """Without an observer that wants it, the server gets the very list the application made."""
    body = [b"a"]
    door = Door(_giving(body), observers=[])

    assert door(environ(), Wire().start_response) is body
    assert door.outcomes == {"met": 1}


def test_a_ready_body_is_told_of_after_it_has_left() -> None:
    """Observers hear of a list when the server closes it, not before."""
    door = Door(_giving([b"a"]))
    body = door(environ(), Wire().start_response)

    assert list(body) == [b"a"]
    assert door.records == []
    body.close()  # type: ignore[attr-defined]
    assert len(door.records) == 1


class Closing(FileWrapper):
    """A file wrapper whose close is its class's, as waitress has it."""

    closed = 0

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self.__dict__.pop("close", None)

    def close(self) -> None:
        """Count it."""
        self.closed += 1


class Slotted:
    """A file wrapper that takes no attributes."""

    __slots__ = ("_file", "closed")

    def __init__(self, file: Any) -> None:
        self._file = file
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._file)

    def close(self) -> None:
        """Count it."""
        self.closed += 1


@pytest.mark.parametrize("wrapper", [FileWrapper, Closing, Slotted])
def test_a_servers_file_wrapper_comes_back_itself(wrapper: Callable[[Any], Any]) -> None:
    """The server recognises its own object, and closing it closes the file once."""
    made: list[Any] = []

    def app(env: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        made.append(env["wsgi.file_wrapper"](io.BytesIO(b"contents")))
        return made[0]  # type: ignore[no-any-return]

    door = Door(app)
    env = environ(file_wrapper=wrapper)
    body: Any = door(env, Wire().start_response)

    assert body is made[0]
    assert b"".join(body) == b"contents"
    body.close()
    assert getattr(body, "closed", 1) == 1
    if wrapper is FileWrapper:
        assert body.filelike.closed
    assert sum(door.outcomes.values()) == len(door.records) == 1


def test_a_file_wrapper_that_is_a_function_is_any_body() -> None:
    """Where the server's wrapper is no class, there is nothing to recognise."""
    wire = Wire()
    wire.run(Door(_giving([b"a"])), environ(file_wrapper=lambda file: [b"a"]))
    assert wire.parts == [b"a"]


@pytest.mark.parametrize("shape", ["list", "generator", "sized", "file"])
@pytest.mark.parametrize("fails", [False, True])
def test_a_budget_is_gone_with_its_request(shape: str, fails: bool) -> None:  # noqa: FBT001
    """Without a garbage collector, no budget outlives the closing of its body."""
    refs: list[weakref.ref[Budget]] = []

    def parts() -> Iterator[bytes]:
        yield b"a"
        if fails:
            raise ValueError

    def app(env: Environ, start_response: StartResponse) -> Iterable[bytes]:
        mine = current_budget.get()
        assert mine is not None
        refs.append(weakref.ref(mine))
        del mine
        start_response("200 OK", [])
        env["wsgi.input"].read()
        if fails and shape != "generator":
            raise ValueError
        made: dict[str, Callable[[], Iterable[bytes]]] = {
            "list": lambda: [b"a"],
            "generator": parts,
            "sized": SizedBody,
            "file": lambda: Closing(io.BytesIO()),
        }
        return made[shape]()

    door = Door(app)
    gc.disable()
    try:
        try:
            Wire().run(door, environ("POST", file_wrapper=Closing))
        except ValueError:
            assert fails
        assert [ref() for ref in refs] == [None]
    finally:
        gc.enable()


def test_an_abandoned_stream_leaves_nothing_on_its_thread() -> None:
    """Ten thousand requests on one thread, every second stream left half-way: no stale budget."""
    seen: set[str | None] = set()
    bodies: list[Any] = []

    def app(env: Environ, start_response: StartResponse) -> Iterator[bytes]:
        seen.add(budget.route)
        start_response("200 OK", [])
        for part in (b"a", b"b"):
            with budget.stage("part"):
                yield part

    door = Door(app)
    found: list[str | None] = []

    def serve() -> None:
        for number in range(10_000):
            body = iter(door(environ(), Wire().start_response))
            next(body)
            found.append(budget.route)
            if number % 2:
                body.close()  # type: ignore[attr-defined]
            else:
                bodies.append(body)
                bodies[:-10] = []

    thread = threading.Thread(target=serve)
    thread.start()
    thread.join()

    assert set(found) == {None}
    assert seen == {"signals"}
    assert len(door.records) == 5_000


@pytest.mark.parametrize("where", ["thread", "context", "collector", "swapped"])
def test_a_body_may_be_closed_anywhere(
    where: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From another thread, another context, by the garbage collector: nothing is raised."""
    problems: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", problems.append)
    monkeypatch.setattr(threading, "excepthook", problems.append)
    closed: list[str] = []

    def parts() -> Iterator[bytes]:
        try:
            with budget.stage("part"):
                yield b"a"
                yield b"b"
        finally:
            closed.append(where)

    door = Door(_giving(parts))
    body: Any = iter(door(environ(), Wire().start_response))
    next(body)
    if where == "thread":
        thread = threading.Thread(target=body.close)
        thread.start()
        thread.join()
    elif where == "context":
        contextvars.Context().run(body.close)
    elif where == "collector":
        del body
        gc.collect()
    else:
        contextvars.copy_context().run(next, body)
        body.close()

    assert closed == [where]
    assert problems == []
    assert budget.route is None
    assert door.faults == {}


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("shape", ["list", "generator", "sized", "write"])
@pytest.mark.parametrize("timing", [False, True])
def test_both_sides_are_valid(shape: str, method: str, timing: bool) -> None:  # noqa: FBT001
    """With the standard library's validator on either side, neither has anything to say."""

    def app(env: Environ, start_response: StartResponse) -> Iterable[bytes]:
        env["wsgi.input"].read(3)
        env["wsgi.input"].readline(2)
        list(env["wsgi.input"])
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        if shape == "write":
            write(b"w")
            return []
        made: dict[str, Callable[[], Iterable[bytes]]] = {
            "list": lambda: [b"a"],
            "generator": lambda: (part for part in (b"a", b"b")),
            "sized": SizedBody,
        }
        return made[shape]()

    door = Door(validator(app), server_timing=timing)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = environ(method)
        del env["wsgi.file_wrapper"]
        wire = Wire()
        wire.run(validator(door), env)

    assert b"".join(wire.parts) in {b"a", b"ab", b"w"}
    assert len(door.records) == 1


def test_nested_doors_each_keep_their_own_account() -> None:
    """Two doors with two policies: one record each, the bytes are the application's."""
    inner = Door(answer)
    outer = Door(inner, replace(POLICY, service="outer"))
    wire = Wire()
    wire.run(outer, environ("POST"))

    assert wire.parts == [b"ok"]
    assert inner.record.route == outer.record.route == "signals"
    assert wire.starts == [("200 OK", [("X-A", "1")], None)]
