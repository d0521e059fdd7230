"""Calls as frameworks and servers really make them: odd, and none of them a fault of budgetware."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from tests.doors import asgi_play, wsgi_play
from tests.doors.asgi_play import LAST, START, http, run
from tests.doors.steered_play import POLICY, SIGNALS
from tests.doors.wsgi_play import environ

from budgetware._core.policy import CachePolicy, Mode
from budgetware.asgi import BudgetMiddleware, Message, Receive, Scope, Send
from budgetware.wsgi import BudgetMiddleware as WsgiMiddleware
from budgetware.wsgi import StartResponse

MODES = pytest.mark.parametrize("mode", list(Mode))
LINES = [(b"x-a", b"1"), (b"content-type", b"text/plain")]
CACHED = replace(SIGNALS, cache=CachePolicy(fresh=60.0, stale=60.0, public=True))


class Odd:
    """An iterable that can be gone through once."""

    def __init__(self, lines: Iterable[Any]) -> None:
        self.lines = iter(lines)

    def __iter__(self) -> Iterator[Any]:
        return self.lines


def generated(lines: Iterable[Any]) -> Iterator[Any]:
    """Yield *lines* one by one."""
    yield from lines


SHAPES = pytest.mark.parametrize("shape", [list, tuple, iter, generated, Odd])


def door_of(app: Any, mode: Mode, *, timing: bool = False) -> Any:
    """Return the ASGI door under *mode*, with a cache."""
    policy = replace(POLICY, mode=mode, routes={"signals": CACHED})
    return BudgetMiddleware(app, policy=policy, server_timing=timing)


def check(door: Any) -> None:
    """Make sure that nothing of ours failed, and that nobody is left in flight."""
    assert door._engine.tally.faults == {}
    assert door._engine._traffic.now == 0


@MODES
@SHAPES
@pytest.mark.parametrize("timing", [False, True])
def test_header_lines_arrive_whatever_they_come_in(mode: Mode, shape: Any, *, timing: bool) -> None:
    """Those of the request at the application, those of the response at the server."""
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(list(scope["headers"]))
        await send({**START, "headers": shape(LINES)})
        await send(LAST)

    door = door_of(app, mode, timing=timing)
    for _ in range(2):
        wire = asgi_play.Wire()
        wire.run(door, http(path="/signals", headers=shape(LINES)))
        got = [line for line in wire.sent[0]["headers"] if line[0] != b"server-timing"]
        assert got == LINES
        assert wire.body == b"ok"

    assert seen == [LINES, LINES]
    check(door)


@MODES
@SHAPES
@pytest.mark.parametrize("timing", [False, True])
def test_header_lines_over_wsgi_arrive_likewise(mode: Mode, shape: Any, *, timing: bool) -> None:
    """Most servers take any iterable there, too."""
    lines = [(name.decode(), value.decode()) for name, value in LINES]

    def app(env: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", shape(lines))
        return [b"ok"]

    policy = replace(POLICY, mode=mode, routes={"signals": CACHED})
    door = WsgiMiddleware(app, policy=policy, server_timing=timing)
    for _ in range(2):
        wire = wsgi_play.Wire()
        wire.run(door, environ(path="/signals"))
        assert [line for line in wire.starts[0][1] if line[0] != "Server-Timing"] == lines

    check(door)


@MODES
@pytest.mark.parametrize("query", ["a=ä", b"a=1", "", None])
def test_a_query_may_be_text(mode: Mode, query: Any) -> None:
    """Test clients give it so; what is kept is told apart by it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send({**LAST, "body": str(scope["query_string"]).encode()})

    door = door_of(app, mode)
    for text in (query, "b=2"):
        wire = asgi_play.Wire()
        wire.run(door, http(path="/signals", query_string=text))
        assert wire.body == str(text).encode()

    check(door)


@MODES
@pytest.mark.parametrize("scope", [{}, {"path": "/signals"}, None, ["http"]])
def test_what_is_no_scope_is_passed_on(mode: Mode, scope: Any) -> None:
    """The application says what it thinks of it."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        seen.append(scope)

    door = door_of(app, mode)
    run(door(scope, asgi_play.Wire().receive, asgi_play.Wire().send))

    assert seen == [scope]
    assert seen[0] is scope
    check(door)


NO_MESSAGES = [{}, {"status": 200}, {"type": None}, {"type": "other"}, {"type": 1}, None, [1], "x"]
NO_STARTS = [
    {"type": "http.response.start"},
    {"type": "http.response.start", "status": None},
    {"type": "http.response.start", "status": "200"},
    {"type": "http.response.start", "status": None, "headers": 1},
]


@MODES
@pytest.mark.parametrize("odd", [*NO_MESSAGES, *NO_STARTS])
@pytest.mark.parametrize("timing", [False, True])
def test_what_is_no_message_is_passed_on(mode: Mode, odd: Any, *, timing: bool) -> None:
    """In both directions, once, without a fault of ours; what else the two say passes as well."""
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(await receive())
        await send(odd)
        await send(START)
        await send(LAST)

    door = door_of(app, mode, timing=timing)
    for method in ("GET", "POST"):
        wire = asgi_play.Wire([odd])
        wire.run(door, http(method, path="/signals"))
        if timing and odd in NO_STARTS:
            odd_sent = {key: wire.sent[0][key] for key in odd if key != "headers"}
            assert odd_sent == {key: odd[key] for key in odd_sent}
        else:
            assert wire.sent[0] is odd
        assert len(wire.sent) == 3
        assert wire.sent[-1]["body"] == b"ok"

    assert seen == [odd, odd]
    check(door)


class ServerGoneError(Exception):
    """What a server raises when it is called for a client that has left."""


@MODES
@pytest.mark.parametrize("refused", ["http.response.start", "http.response.body"])
@pytest.mark.parametrize("timing", [False, True])
@pytest.mark.parametrize(
    "last", [LAST, {**LAST, "more_body": False}, {**LAST, "more_body": True}], ids=str
)
def test_a_send_that_raises_when_it_is_called_is_called_once(
    mode: Mode, refused: str, last: Message, *, timing: bool
) -> None:
    """Its error is the application's, as it was raised, with nothing of ours about it."""
    calls: list[str] = []
    error = ServerGoneError()

    async def taken() -> None:
        return None

    def send(message: Message) -> Any:
        calls.append(message["type"])
        if message["type"] == refused:
            raise error
        return taken()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send(last)

    door = door_of(app, mode, timing=timing)
    with pytest.raises(ServerGoneError) as raised:
        run(door(http(path="/signals"), asgi_play.Wire().receive, send))

    assert raised.value is error
    assert raised.value.__context__ is None
    assert calls.count(refused) == 1
    check(door)


@MODES
def test_a_start_response_that_raises_is_called_once(mode: Mode) -> None:
    """Over WSGI the same."""
    calls: list[str] = []
    error = ServerGoneError()

    def start_response(status: str, headers: Any, *_: Any) -> Any:
        calls.append(status)
        raise error

    policy = replace(POLICY, mode=mode, routes={"signals": CACHED})
    door = WsgiMiddleware(wsgi_play.answer, policy=policy)
    with pytest.raises(ServerGoneError) as raised:
        door(environ(path="/signals"), start_response)

    assert raised.value is error
    assert raised.value.__context__ is None
    assert calls == ["200 OK"]
    check(door)


def lines_run(door: Any, count: int) -> int:
    """Return how many lines of ours are run for a request with so many header lines."""
    lines = [(b"x-%d" % number, b"v") for number in range(count)] + [(b"host", b"a.test")]
    env = {f"HTTP_X_{number}": "v" for number in range(count)}
    run_lines = 0

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal run_lines
        if "/budgetware/" not in frame.f_code.co_filename.replace("\\", "/"):
            return None
        run_lines += event == "line"
        return trace

    # The frames that are there already are not traced, and coverage goes on afterwards.
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        if isinstance(door, WsgiMiddleware):
            wsgi_play.Wire().run(door, environ(path="/signals", **env))
        else:
            asgi_play.Wire().run(door, http(path="/signals", headers=lines))
    finally:
        sys.settrace(before)
    check(door)
    return run_lines


@pytest.mark.parametrize("kind", [BudgetMiddleware, WsgiMiddleware])
def test_ten_thousand_header_lines_are_gone_through_once(kind: Any) -> None:
    """Beyond 128 no line of a request is looked at but to find the host, and nothing is kept."""
    app: Any = asgi_play.answer if kind is BudgetMiddleware else wsgi_play.answer
    policy = replace(POLICY, mode=Mode.ENFORCE, routes={"signals": CACHED})
    door = kind(app, policy=policy)
    lines_run(door, 200)  # what is made for the first request
    few, many = lines_run(door, 200), lines_run(door, 10_000)

    assert few > 200
    assert many - few <= 2 * (10_000 - 200)
    counted = {
        (result, reason): count
        for (_, _, result, reason), count in door._engine.tally.cache.items()
    }
    assert counted == {("not_kept", "too_many_fields"): 3}
