"""A WSGI application with a body of every shape; it notes which are made and which closed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from budgetware import budget
from budgetware._core.interrupt import AnswerNow
from budgetware._core.policy import Match, Mode, Policy, Route, StaticAnswer
from budgetware.wsgi import Environ, StartResponse

made: list[str] = []
closed: list[str] = []


class Body:
    """Parts made step by step, with ``close()``."""

    def __init__(self, parts: Iterable[bytes]) -> None:
        made.append("body")
        self._parts = iter(parts)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        with budget.stage("step"):
            return next(self._parts)

    def close(self) -> None:
        """Count it."""
        closed.append("body")


class Sized(Body):
    """The same with a length."""

    def __len__(self) -> int:
        return 1


def _generated(parts: Iterable[bytes]) -> Iterator[bytes]:
    made.append("generator")
    try:
        for part in parts:
            with budget.stage("step"):
                yield part
    finally:
        closed.append("generator")


def _lazy(start_response: StartResponse) -> Iterator[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield from _generated([b"la", b"zy"])


def _fails() -> Iterator[bytes]:
    yield from _generated([b"so far"])
    raise ValueError("in the middle")


SHAPES: dict[str, Callable[[Environ], Iterable[bytes]]] = {
    "/list": lambda env: [b"a", b"b"],
    "/empty": lambda env: [],
    "/tuple": lambda env: (b"a",),
    "/generator": lambda env: _generated([b"a", b"", b"b"]),
    "/body": lambda env: Body([b"a", b"b"]),
    "/sized": lambda env: Sized([b"whole"]),
    "/big": lambda env: Body([b"x" * 65536] * 64),
    "/fails": lambda env: _fails(),
    "/file": lambda env: _file(env),  # noqa: PLW0108 - it is defined below
}


def _file(env: Environ) -> Iterable[bytes]:
    wrapper: Callable[..., Iterable[bytes]] = env["wsgi.file_wrapper"]
    return wrapper(open(__file__, "rb"), 1024)  # noqa: PTH123 - the server closes it


def app(env: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with the shape that the path names."""
    path = env["PATH_INFO"]
    stream: Any = env["wsgi.input"]
    if path == "/lazy":
        return _lazy(start_response)
    if path == "/anew":
        start_response("200 OK", [("X-First", "1")])
        try:
            int("x")
        except ValueError:
            start_response("503 Anew", [("X-Second", "2")], sys.exc_info())
        return [b"sorry"]
    if path == "/raises":
        raise ValueError("at once")
    headers = [("Content-Type", "text/plain")]
    if path == "/echo":
        first = stream.readline()
        # Not to the end: the standard library's server gives the connection itself.
        data = first + b"|" + stream.read(int(env["CONTENT_LENGTH"]) - len(first))
        start_response("201 Created", [*headers, ("Content-Length", str(len(data)))])
        return [data]
    write: Callable[[bytes], object] = start_response("200 OK", headers)
    if path == "/write":
        write(b"written ")
        write(b"and ")
        return [b"returned"]
    shape = SHAPES.get(path)
    return [b"?"] if shape is None else shape(env)


PATHS = [*SHAPES, "/lazy", "/anew", "/raises", "/write", "/other"]


def _turns_first(start_response: StartResponse) -> Iterator[bytes]:
    made.append("turns")
    try:
        budget.degrade("no_model")
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "4")])
        yield b"full"
    finally:
        closed.append("turns")


def _turns_later(start_response: StartResponse) -> Iterator[bytes]:
    made.append("turns")
    try:
        budget.degrade("no_model")
    except AnswerNow as turn:
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "8")])
        yield b"so far"
        raise turn from None
    finally:
        closed.append("turns")


def _degrades(env: Environ, start_response: StartResponse) -> Iterable[bytes]:
    if env["PATH_INFO"].startswith("/steered/first"):
        return _turns_first(start_response)
    if env["PATH_INFO"] == "/steered/later":
        return _turns_later(start_response)
    if env["PATH_INFO"] == "/steered/stream":  # begun, so there is nothing to turn to any more
        start_response("200 OK", [("Content-Type", "text/plain")])
        return Body(_degrading())
    budget.degrade("no_model")
    return []


def _degrading() -> Iterator[bytes]:
    for _ in range(64):
        budget.degrade("no_model")
        yield b"x" * 65536


def steered_app(env: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with something smaller, at the point the path names, or in full."""
    if env["PATH_INFO"].startswith("/steered/"):
        return _degrades(env, start_response)
    return app(env, start_response)


STEERED = Policy(
    mode=Mode.ENFORCE,
    routes={
        "ours": Route(name="ours", match=(Match("GET", "/ready"), Match("GET", "/state"))),
        "steered": Route(
            name="steered",
            match=(Match("*", "/**"),),
            budget=30.0,
            answers=("static",),
            static=StaticAnswer(body="smaller"),
        ),
    },
)
"""Everything is decided on, and nothing is ever late."""
