"""What passes the ASGI door comes out as the same objects."""

from __future__ import annotations

import copy
import threading
from collections.abc import Generator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.doors.asgi_play import (
    BODY,
    LAST,
    POLICY,
    START,
    Clock,
    Door,
    Wire,
    answer,
    http,
    run,
)

from budgetware import budget
from budgetware.asgi import Message, Receive, Scope, Send


@pytest.mark.parametrize("kind", ["lifespan", "websocket", "foo", "http2", ""])
def test_other_scopes_get_the_servers_own_objects(kind: str) -> None:
    """Lifespan, websocket and unknown scopes: same scope, receive and send, no budget."""
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> str:
        seen.extend([scope, receive, send, budget.route])
        return "done"

    scope: Scope = {"type": kind}
    wire = Wire()
    receive, send = wire.receive, wire.send
    door = Door(app)

    assert run(door(scope, receive, send)) == "done"
    assert seen[0] is scope
    assert seen[1] is receive
    assert seen[2] is send
    assert seen[3] is None
    assert scope == {"type": kind}
    assert door.outcomes == {}


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS", "BREW"])
def test_receive_is_the_servers_own_without_a_body(method: str) -> None:
    """Requests without a body are given ``receive`` itself, never a stand-in."""
    seen: list[Receive] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(receive)
        await answer(scope, receive, send)

    wire = Wire()
    receive = wire.receive
    run(Door(app)(http(method), receive, wire.send))

    assert seen == [receive]
    assert seen[0] is receive


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_body_messages_arrive_as_they_are(method: str) -> None:
    """Every part of a body, what follows it and unknown messages are the server's objects."""
    incoming: list[Message] = [
        {"type": "http.request", "body": b"a", "more_body": True, "odd": object()},
        {"type": "x.unknown"},
        {"type": "http.request"},
        {"type": "http.disconnect"},
    ]
    seen: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend([await receive() for _ in incoming])
        await answer(scope, receive, send)

    door = Door(app)
    Wire(incoming).run(door, http(method))

    assert len(seen) == len(incoming)
    assert all(mine is theirs for mine, theirs in zip(seen, incoming, strict=True))
    assert door.faults == {}


def test_nothing_is_read_ahead() -> None:
    """An application that never receives leaves everything with the server."""
    wire = Wire()
    wire.run(Door(answer), http("POST"))

    assert wire.received == []


def test_scope_is_neither_copied_nor_changed() -> None:
    """The application's scope is the server's, its state and a lock in it included."""
    lock = threading.Lock()
    scope = http(state={"lock": lock}, extensions={"http.response.pathsend": {}})
    before = {key: copy.copy(value) if key != "state" else value for key, value in scope.items()}
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)
        await answer(scope, receive, send)

    Wire().run(Door(Door(app)), scope)

    assert seen[0] is scope
    assert scope == before
    assert scope["state"] is before["state"]
    assert scope["state"] == {"lock": lock}


def test_the_applications_own_changes_of_the_scope_are_kept() -> None:
    """What the application writes into the scope is there for whoever is outside."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = "mine"
        await answer(scope, receive, send)

    scope = http()
    Wire().run(Door(app), scope)

    assert scope["route"] == "mine"


def test_the_return_value_is_the_applications() -> None:
    """Whatever the application returns, the server gets that object."""
    value = object()

    async def app(scope: Scope, receive: Receive, send: Send) -> object:
        await answer(scope, receive, send)
        return value

    assert Wire().run(Door(app), http()) is value
    assert Wire().run(Door(app), {"type": "lifespan"}) is value


class Awaitable:
    """An application in the style of Starlette's class-based endpoints."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.arguments = scope, receive, send

    def __await__(self) -> Generator[Any, Any, None]:
        return answer(*self.arguments).__await__()


class Callable3:
    """An application that is an object."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        await answer(scope, receive, send)


@pytest.mark.parametrize("app", [Awaitable, Callable3(), Callable3().__call__])
def test_class_based_applications_are_applications(app: Any) -> None:
    """A class whose instances are awaited and an object that is called both work."""
    door = Door(app)
    wire = Wire()
    wire.run(door, http())

    assert wire.sent == [START, LAST]
    assert door.record.status == 200


SENT: list[list[Message]] = [
    [START, LAST],
    [START, {"type": "http.response.body"}],
    [{"type": "http.response.start", "status": 204}, {"type": "http.response.body", "body": b""}],
    [START, {"type": "http.response.body", "body": b"a", "more_body": True}, LAST],
    [START, {"type": "http.response.body", "body": b"a", "more_body": 1, "odd": object()}, LAST],
    [START, {"type": "http.response.pathsend", "path": "/etc/hostname"}],
    [
        START,
        {"type": "http.response.zerocopysend", "file": 3, "count": 10, "more_body": True},
        {"type": "http.response.zerocopysend", "file": 3},
    ],
    [{"type": "http.response.early_hint", "links": [b"</a>; rel=preload"]}, START, LAST],
    [{"type": "http.response.debug", "info": {}}, {"type": "http.response.push"}, START, LAST],
    [
        {"type": "http.response.start", "status": 200, "trailers": True},
        LAST,
        {"type": "http.response.trailers", "headers": [], "more_trailers": True},
        {"type": "http.response.trailers", "headers": [(b"x", b"y")]},
    ],
    [{"type": "x.unknown", "type2": 7}, START, LAST, {"type": "x.late"}],
]


@pytest.mark.parametrize("messages", SENT)
def test_sent_messages_leave_as_they_are(messages: list[Message]) -> None:
    """Known, extended and unknown messages reach the server as the same unchanged objects."""
    before = [dict(message) for message in messages]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    door = Door(app)
    wire = Wire()
    wire.run(door, http())

    assert len(wire.sent) == len(messages)
    assert all(mine is theirs for mine, theirs in zip(wire.sent, messages, strict=True))
    assert messages == before
    assert len(door.records) == 1
    assert door.faults == {}


WORDS = st.sampled_from(
    ["type", "status", "headers", "body", "more_body", "trailers", "more_trailers", "file", "x"],
)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 600),
    st.text(max_size=3),
    st.binary(max_size=3),
    st.lists(st.binary(max_size=2), max_size=2),
)
KINDS = st.sampled_from(
    [
        "http.response.start",
        "http.response.body",
        "http.response.trailers",
        "http.response.pathsend",
        "http.response.zerocopysend",
        "http.response.debug",
        "x",
    ],
)
NONSENSE = st.dictionaries(WORDS, VALUES, max_size=5)
MESSAGES = st.one_of(
    NONSENSE,
    st.tuples(KINDS, NONSENSE).map(lambda pair: {**pair[1], "type": pair[0]}),
)


@settings(max_examples=500, deadline=None)
@given(st.lists(MESSAGES, max_size=6), st.sampled_from(["GET", "POST", ""]), st.booleans())
def test_any_message_passes(messages: list[Message], method: str, timing: bool) -> None:  # noqa: FBT001
    """Well-formed or not, whatever is sent and received passes; nothing of ours is raised."""
    seen: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            seen.append(await receive())
            await send(message)

    wire = Wire(incoming=messages)
    wire.run(FUZZED_TIMED if timing else FUZZED, http(method, app=app))

    assert [id(message) for message in seen] == [id(message) for message in wire.received]
    assert len(wire.sent) == len(messages)
    for mine, theirs in zip(wire.sent, messages, strict=True):
        if timing and theirs.get("type") == "http.response.start":
            assert {**mine, "headers": 0} == {**theirs, "headers": 0}
        else:
            assert mine is theirs


async def _fuzzed(scope: Scope, receive: Receive, send: Send) -> Any:
    return await scope["app"](scope, receive, send)


FUZZED = Door(_fuzzed)
FUZZED_TIMED = Door(_fuzzed, server_timing=True)

OPTIONAL = st.fixed_dictionaries(
    {},
    optional={
        "asgi": st.just({"version": "3.0"}),
        "http_version": st.sampled_from(["1.0", "1.1", "2", "3"]),
        "scheme": st.sampled_from(["http", "https"]),
        "raw_path": st.one_of(st.none(), st.binary(max_size=8)),
        "query_string": st.binary(max_size=8),
        "root_path": st.sampled_from(["", "/", "/api", "/api/", "\udcff"]),
        "headers": st.lists(st.tuples(st.binary(max_size=8), st.binary(max_size=8)), max_size=4),
        "client": st.one_of(st.none(), st.just(("1.2.3.4", None)), st.just(["::1", 1])),
        "server": st.one_of(st.none(), st.just(("/run/a.sock", None))),
        "state": st.sampled_from([{}, {"budgetware.tier": "pro"}, {"budgetware.tier": 7}]),
        "extensions": st.one_of(st.none(), st.just({})),
    },
)


@settings(max_examples=200, deadline=None)
@given(OPTIONAL, st.text(min_size=1, max_size=6), st.text(max_size=12), st.booleans())
def test_any_valid_scope_is_served_with_a_budget(
    optional: Scope,
    method: str,
    path: str,
    timing: bool,  # noqa: FBT001
) -> None:
    """No optional key is needed, and no method or path is a fault."""
    door = Door(answer, server_timing=timing)
    scope = {"type": "http", "method": method, "path": path, **optional}
    before = dict(scope)
    wire = Wire()
    wire.run(door, scope)

    assert wire.body == b"ok"
    assert scope == before
    assert door.faults == {}
    assert door.record.route in {"signals", "report", "home", "_unmatched"}
    assert door.record.tier in {"free", "pro"}


def test_nested_doors_each_keep_their_own_account() -> None:
    """Two doors with two policies: same bytes, one record each, the inner one is current."""
    seen: list[str | None] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with budget.stage("db"):
            seen.append(budget.route)
        await answer(scope, receive, send)

    inner = Door(app)

    async def between(scope: Scope, receive: Receive, send: Send) -> None:
        with budget.stage("db"):
            await inner(scope, receive, send)
        seen.append(budget.route)

    outer = Door(between, replace(POLICY, service="outer"), clock=Clock())
    wire = Wire()
    wire.run(outer, http("POST"))

    assert seen == ["signals", "signals"]
    assert wire.sent == [START, LAST]
    assert [record.openings[0].name for record in (inner.record, outer.record)] == ["db", "db"]
    assert budget.route is None


def test_server_timing_adds_one_header_and_nothing_else() -> None:
    """With ``server_timing`` the application's own start message stays as it was."""
    start: Message = {"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]}
    before = copy.deepcopy(start)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start)
        await send(LAST)

    wire = Wire([BODY])
    wire.run(Door(app, server_timing=lambda scope: scope["path"] == "/"), http(path="/"))

    assert start == before
    assert wire.sent[0] == {
        **before,
        "headers": [(b"a", b"b"), (b"server-timing", b"total;dur=0.0")],
    }
    assert wire.sent[1] is LAST
