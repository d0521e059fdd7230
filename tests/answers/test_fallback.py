"""What a fallback may return, and how it is called."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Coroutine
from functools import partial
from typing import Any

import anyio
import flask
import pytest
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse

from budgetware.answers.answer import Answer
from budgetware.answers.fallback import fallback_answer
from budgetware.answers.preparing import Fallback, FallbackLate

JSON = b"application/json"
TEXT = b"text/plain; charset=utf-8"


def _type(answer: Answer) -> bytes:
    return dict(answer.headers)[b"content-type"]


@pytest.mark.parametrize(
    ("result", "status", "body", "kind"),
    [
        ("grün", 200, "grün".encode(), TEXT),
        (b"\x00", 200, b"\x00", b"application/octet-stream"),
        (bytearray(b"x"), 200, b"x", b"application/octet-stream"),
        ({"a": [1]}, 200, b'{"a":[1]}', JSON),
        ([1, 2], 200, b"[1,2]", JSON),
        ((203, {"X-Why": "cheap"}, {"a": 1}), 203, b'{"a":1}', JSON),
        ((200, [("Content-Type", "text/csv")], "a,b"), 200, b"a,b", b"text/csv"),
        ((200, [(b"content-type", b"text/csv")], b"a,b"), 200, b"a,b", b"text/csv"),
        (PlainTextResponse("cheap", 206), 206, b"cheap", TEXT),
        (JSONResponse({"a": 1}), 200, b'{"a":1}', JSON),
        (flask.Response("cheap", 202, mimetype="text/plain"), 202, b"cheap", TEXT),
    ],
)
def test_these_become_answers(result: object, status: int, body: bytes, kind: bytes) -> None:
    """Text, bytes, data, triples and whole responses keep status, body and type."""
    answer = fallback_answer(result)

    assert (answer.kind, answer.status, answer.body, _type(answer)) == (
        "fallback",
        status,
        body,
        kind,
    )


def _parts() -> Any:
    yield "part"


@pytest.mark.parametrize(
    ("result", "error", "words"),
    [
        (None, TypeError, "not NoneType"),
        (7, TypeError, "not int"),
        (_parts(), TypeError, "not generator"),
        ((200, {}), TypeError, "2 items"),
        (
            (200, "cheap"),
            TypeError,
            r"is \(status, headers, body\), such as \(200, {}, 'text'\), not 2",
        ),
        (("200", {}, "x"), TypeError, "an int, not str"),
        ((200, "x: y", "x"), TypeError, "pairs, not str"),
        ((200, [("x",)], "x"), TypeError, "pairs of name and value"),
        ((200, {"x": None}, "x"), TypeError, "text, not NoneType"),
        ((200, {"x": "\u20ac"}, "x"), ValueError, "cannot be sent"),
        ((200, {"x": "a\r\nb: c"}, "x"), ValueError, "cannot be sent"),
        ((99, {}, "x"), ValueError, "99"),
        ({"a": float("nan")}, ValueError, "not JSON compliant"),
        (StreamingResponse(_parts()), TypeError, "StreamingResponse"),
        (flask.Response(_parts()), TypeError, "not a stream"),
    ],
)
def test_these_are_errors_that_say_why(result: object, error: type[Exception], words: str) -> None:
    """What no response can be made of is refused with its type or value."""
    with pytest.raises(error, match=words):
        fallback_answer(result)


_NAME = contextvars.ContextVar("_NAME", default="nobody")


def _sync(request: str) -> str:
    return f"{request} for {_NAME.get()}"


async def _async(request: str) -> str:
    await anyio.lowlevel.checkpoint()
    return f"{request} for {_NAME.get()}"


class _Object:
    async def __call__(self, request: str) -> str:
        return await _async(request)


def _returning(request: str) -> Coroutine[Any, Any, str]:
    return _async(request)


CALLABLES = [_sync, _async, _Object(), partial(_async), _returning]


@pytest.mark.parametrize("function", CALLABLES)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_any_callable_answers_tasks(function: Any, backend: str) -> None:
    """Sync and async functions answer on either loop, in the context of the request."""

    async def ask() -> Answer:
        _NAME.set("ann")
        return await Fallback("signals", function, 30.0).answer("cheap", 30.0)

    assert anyio.run(ask, backend=backend).body == b"cheap for ann"


@pytest.mark.parametrize("function", CALLABLES)
def test_any_callable_answers_threads(function: Any) -> None:
    """And so they do where there is no loop."""
    token = _NAME.set("bob")
    try:
        answer = Fallback("signals", function, 30.0).answer_now("cheap", 30.0)
    finally:
        _NAME.reset(token)

    assert answer.body == b"cheap for bob"


async def _never(_: object) -> str:
    await anyio.sleep_forever()
    return "never"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_late_fallback_is_left_behind(backend: str) -> None:
    """Nobody waits longer than its budget or the request's rest, for either kind of function."""
    done = threading.Event()
    try:
        for function in (_never, lambda _: done.wait(60)):
            with pytest.raises(FallbackLate, match="'signals'"):
                anyio.run(Fallback("signals", function, 0.01).answer, None, 60.0, backend=backend)
            with pytest.raises(FallbackLate):
                anyio.run(Fallback("signals", function, 60.0).answer, None, 0.01, backend=backend)
            with pytest.raises(FallbackLate):
                Fallback("signals", function, 60.0).answer_now(None, 0.01)
            with pytest.raises(FallbackLate):
                Fallback("signals", function, 60.0).answer_now(None, -1.0)
    finally:
        done.set()


def test_errors_of_a_fallback_are_its_own() -> None:
    """What it raises comes out, a TimeoutError of its own included; a bad result is an error."""

    def wrong(_: object) -> None:
        raise TimeoutError("its own")

    async def wrong_async(_: object) -> None:
        raise TimeoutError("its own")

    for function in (wrong, wrong_async):
        fallback = Fallback("signals", function, 30.0)
        with pytest.raises(TimeoutError, match="its own"):
            fallback.answer_now(None, 30.0)
        with pytest.raises(TimeoutError, match="its own"):
            asyncio.run(fallback.answer(None, 30.0))
    with pytest.raises(TypeError, match="NoneType"):
        Fallback("signals", lambda _: None, 30.0).answer_now(None, 30.0)


@pytest.mark.parametrize(
    ("result", "error"), [(None, TypeError), ((200, "cheap"), TypeError), ("\ud800", ValueError)]
)
def test_a_wrong_result_is_told_with_its_route(result: object, error: type[Exception]) -> None:
    """One log line is all there is of it, and many routes may have a fallback."""

    async def later(_: object) -> object:
        return result

    for function in (later, lambda _: result, partial(later)):
        fallback = Fallback("signals", function, 30.0)
        with pytest.raises(error, match="the fallback of 'signals': "):
            fallback.answer_now(None, 30.0)
        with pytest.raises(error, match="the fallback of 'signals': "):
            asyncio.run(fallback.answer(None, 30.0))


def test_what_is_no_fallback_is_refused_at_start() -> None:
    """A value that cannot be called and a budget of nothing are errors of the configuration."""
    with pytest.raises(TypeError, match="'signals'"):
        Fallback("signals", "text")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'signals'"):
        Fallback("signals", _sync, 0.0)
    with pytest.raises(ValueError, match="'signals'"):
        Fallback("signals", _sync, float("nan"))
