"""Generated ASGI exchanges, each with and without the door: nobody can tell the difference."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.doors.asgi_play import Door, http, run, suspend

from budgetware import budget
from budgetware.asgi import ASGIApp, Message, Receive, Scope, Send

EXCHANGES = 5000

Step = tuple[str, Any]

_BODIES = st.sampled_from([b"", b"a", b"abc"])
_STARTS = st.builds(
    lambda status, more: {"type": "http.response.start", "status": status, **more},
    st.sampled_from([100, 200, 204, 304, 404, 500, 503]),
    st.sampled_from([{}, {"headers": []}, {"headers": [(b"a", b"b")]}, {"trailers": True}]),
)
_PARTS = st.builds(
    lambda body, more: {"type": "http.response.body", "body": body, **more},
    _BODIES,
    st.sampled_from([{}, {"more_body": True}, {"more_body": False}]),
)
_OTHERS = st.sampled_from(
    [
        {"type": "http.response.trailers", "headers": []},
        {"type": "http.response.trailers", "headers": [], "more_trailers": True},
        {"type": "http.response.pathsend", "path": "/x"},
        {"type": "http.response.zerocopysend", "file": 1, "more_body": True},
        {"type": "http.response.zerocopysend", "file": 1},
        {"type": "http.response.early_hint", "links": []},
        {"type": "http.response.body"},
        {"type": "x"},
        {},
    ],
)
_ERRORS = st.sampled_from(
    [
        ValueError,
        TimeoutError,
        KeyboardInterrupt,
        asyncio.CancelledError,
        lambda: ExceptionGroup("g", [ValueError()]),
    ],
)
_STEPS: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("send"), st.one_of(_STARTS, _PARTS, _PARTS, _OTHERS)),
    st.tuples(st.just("receive"), st.none()),
    st.tuples(st.just("suspend"), st.none()),
    st.tuples(st.just("stage"), st.sampled_from(["db", "ml", "\n", ""])),
    st.tuples(st.just("leave"), st.none()),
    st.tuples(st.just("tier"), st.sampled_from(["pro", "nobody"])),
    st.tuples(st.just("wait"), st.sampled_from([0.01, 0.5, 5.0])),
    st.tuples(st.just("raise"), _ERRORS),
    st.tuples(st.just("return"), st.integers()),
)
_INCOMING = st.sampled_from(
    [
        {"type": "http.request", "body": b"x", "more_body": True},
        {"type": "http.request", "body": b"", "more_body": False},
        {"type": "http.request"},
        {"type": "http.disconnect"},
        {"type": "x"},
    ],
)


@dataclass(frozen=True)
class Script:
    """What the application does, and what the server has for it."""

    steps: list[Step]
    incoming: list[Message]
    scope: Scope
    broken_at: int | None


_SCRIPTS = st.builds(
    Script,
    st.lists(_STEPS, max_size=8),
    st.lists(_INCOMING, max_size=3),
    st.builds(
        lambda method, path, more: {"method": method, "path": path, **more},
        st.sampled_from(["GET", "GET", "HEAD", "POST", "PUT", "OPTIONS", "X"]),
        st.sampled_from(["/signals/x", "/reports/a/b", "/", "//", "/nope", "é", ""]),
        st.sampled_from([{}, {"root_path": "/signals"}, {"state": {"budgetware.tier": "pro"}}]),
    ),
    st.one_of(st.none(), st.integers(0, 4)),
)


@dataclass
class Story:
    """All that can be seen of an exchange from either side."""

    sent: list[int] = field(default_factory=list)
    copies: list[Message] = field(default_factory=list)
    received: list[int] = field(default_factory=list)
    suspensions: int = 0
    result: Any = None
    error: tuple[type[BaseException], bool, object, object] | None = None
    scope: Scope | None = None


class Play:
    """One script, acted by an application and watched by a server."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.error: BaseException | None = None
        self.story = Story()
        self.stages: list[Any] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Be the application."""
        for step, value in self.script.steps:
            if step == "return":
                return value
            if step == "send":
                await send(value)
            elif step == "receive":
                self.story.received.append(id(await receive()))
            elif step == "suspend":
                self.story.suspensions += 1
                await suspend()
            else:
                self._act(step, value)
        return None

    def _act(self, step: str, value: Any) -> None:
        if step == "raise":
            self.error = value()
            raise self.error
        if step == "wait":
            DOOR.clock.now += value
        elif step == "tier":
            budget.tier = value
        elif step == "stage":
            self.stages.append(budget.stage(value))
            self.stages[-1].__enter__()
        elif step == "leave" and self.stages:
            self.stages.pop(0).__exit__(None, None, None)

    def run(self, app: ASGIApp) -> Story:
        """Be the server."""
        story, script = self.story, self.script
        incoming = iter(script.incoming)

        async def receive() -> Message:
            return next(incoming, GONE)

        async def send(message: Message) -> None:
            if len(story.sent) == script.broken_at:
                self.error = BrokenPipeError()
                raise self.error
            story.sent.append(id(message))
            story.copies.append(dict(message))

        scope = http(**script.scope)
        try:
            story.result = run(app(scope, receive, send))
        except BaseException as error:  # noqa: BLE001 - every error is part of the story
            story.error = (
                type(error),
                error is self.error,
                error.__cause__,
                error.__context__,
            )
        story.scope = scope
        return story


GONE: Message = {"type": "http.disconnect"}


async def _acted(scope: Scope, receive: Receive, send: Send) -> Any:
    play = PLAYS[-1]
    return await play(scope, receive, send)


PLAYS: list[Play] = []
DOOR = Door(_acted)


@settings(max_examples=EXCHANGES, deadline=None)
@given(_SCRIPTS)
def test_an_exchange_is_the_same_with_and_without_the_door(script: Script) -> None:
    """Messages, objects, results, errors and the scope are those of the bare application."""
    bare = Play(script)
    PLAYS[:] = [Play(script)]
    DOOR.records.clear()
    expected = bare.run(bare)
    faults = sum(DOOR.faults.values())

    found = PLAYS[-1].run(DOOR)

    assert found == expected
    assert len(DOOR.records) == 1
    assert budget.route is None
    # A message without a type, and a tier nobody listed, are noted; nothing else is a fault.
    noted = {"send", "unknown_tier"}
    assert sum(DOOR.faults.values()) - faults <= len(script.steps)
    assert set(DOOR.faults) <= noted
