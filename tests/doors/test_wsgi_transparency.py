"""Generated WSGI exchanges, each with and without the door: nobody can tell the difference."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from wsgiref.util import FileWrapper

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.doors.wsgi_play import Body, Door, SizedBody, Wire, environ

from budgetware import budget
from budgetware._core.current import current_budget
from budgetware.wsgi import Environ, StartResponse, WSGIApp

EXCHANGES = 2000


class Closing(FileWrapper):
    """The server's file wrapper, which counts how often it is closed."""

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self.closes = 0

    def close(self) -> None:
        """Count it."""
        self.closes += 1


@dataclass(frozen=True)
class Script:
    """What the application does, and what its server and client do."""

    shape: str
    parts: list[bytes]
    statuses: list[str]
    writes: list[bytes]
    reads: list[str]
    fails: str
    method: str
    path: str
    leave_after: int | None


_SCRIPTS = st.builds(
    Script,
    shape=st.sampled_from(["list", "tuple", "generator", "lazy", "body", "sized", "iter", "file"]),
    parts=st.lists(st.sampled_from([b"", b"a", b"bc"]), max_size=4),
    statuses=st.lists(
        st.sampled_from(["200 OK", "404 No", "500 Oh", "204 ", "abc"]),
        min_size=1,
        max_size=2,
    ),
    writes=st.lists(st.sampled_from([b"", b"w"]), max_size=2),
    reads=st.lists(st.sampled_from(["read", "read2", "line", "lines", "iter"]), max_size=3),
    fails=st.sampled_from(["", "", "", "before", "after", "step", "close", "exit"]),
    method=st.sampled_from(["GET", "GET", "HEAD", "POST", "PUT", "X"]),
    path=st.sampled_from(["/signals/x", "/", "", "//", "/\xff", "/reports/a"]),
    leave_after=st.one_of(st.none(), st.integers(0, 3)),
)

ERRORS: dict[str, Callable[[], BaseException]] = {"exit": lambda: SystemExit(1)}
HEADERS: list[tuple[str, str]] = [("X-A", "1")]


@dataclass
class Story:
    """All that can be seen of an exchange from either side."""

    starts: list[tuple[str, int, bool]] = field(default_factory=list)
    parts: list[bytes] = field(default_factory=list)
    length: int | None = None
    is_file: bool = False
    closes: int = 0
    read: list[object] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    error: tuple[type[BaseException], bool, object, object] | None = None


class Play:
    """One script, acted by an application and watched by a server."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.story = Story()
        self.error: BaseException | None = None

    def _fail(self, where: str) -> None:
        if where in {self.script.fails, self.script.fails.replace("exit", "step")}:
            self.error = ERRORS.get(self.script.fails, ValueError)()
            raise self.error

    def _start(self, start_response: StartResponse) -> None:
        self._fail("before")
        write = start_response(self.script.statuses[0], HEADERS)
        for part in self.script.writes:
            write(part)
        for status in self.script.statuses[1:]:
            try:
                int("x")
            except ValueError as error:
                self.error = error
                start_response(status, HEADERS, sys.exc_info())
        self._fail("after")

    def _read(self, stream: Any) -> None:
        ways: dict[str, Callable[[], object]] = {
            "read": stream.read,
            "read2": lambda: stream.read(2),
            "line": stream.readline,
            "lines": stream.readlines,
            "iter": lambda: list(stream),
        }
        self.story.read.extend(ways[way]() for way in self.script.reads)

    def __call__(self, env: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Be the application."""
        self._read(env["wsgi.input"])
        if self.script.shape == "lazy":
            return self._generate(lambda: self._start(start_response))
        self._start(start_response)
        parts = self.script.parts
        made: dict[str, Callable[[], Iterable[bytes]]] = {
            "list": lambda: parts,
            "tuple": lambda: tuple(parts),
            "generator": lambda: self._generate(lambda: None),
            "body": lambda: self._closing(Body),
            "sized": lambda: self._closing(SizedBody),
            "iter": lambda: iter(parts),
            "file": lambda: env["wsgi.file_wrapper"](io.BytesIO(b"".join(parts))),
        }
        return made[self.script.shape]()

    def _generate(self, begin: Callable[[], None]) -> Iterator[bytes]:
        try:
            begin()
            for part in self.script.parts:
                with budget.stage("part"):
                    yield part
                self._fail("step")
        finally:
            self.story.closes += 1

    def _closing(self, kind: type[Body]) -> Body:
        play = self

        class Counted(kind):  # type: ignore[misc,valid-type]
            def close(self) -> None:
                play.story.closes += 1
                play._fail("close")

        return Counted(self.script.parts, lambda: self._fail("step"))

    def run(self, app: WSGIApp) -> Story:
        """Be the server."""
        story, script = self.story, self.script
        wire = Wire(script.leave_after)
        files: list[Closing] = []

        class Tracked(Closing):
            def __init__(self, file: Any) -> None:
                super().__init__(file)
                files.append(self)

        env = environ(script.method, script.path, file_wrapper=Tracked)
        story.keys = sorted(env)
        try:
            wire.run(app, env)
        except BaseException as error:  # noqa: BLE001 - every error is part of the story
            story.error = type(error), error is self.error, error.__cause__, error.__context__
        story.starts = [
            (status, len(headers), info is None) for status, headers, info in wire.starts
        ]
        story.parts, story.length, story.is_file = wire.parts, wire.length, wire.is_file
        story.closes += sum(file.closes for file in files)
        assert sorted(env) == story.keys
        return story


PLAYS: list[Play] = []


def _acted(env: Environ, start_response: StartResponse) -> Iterable[bytes]:
    return PLAYS[-1](env, start_response)


DOOR = Door(_acted)


@settings(max_examples=EXCHANGES, deadline=None)
@given(_SCRIPTS)
def test_an_exchange_is_the_same_with_and_without_the_door(script: Script) -> None:
    """Starts, bytes, lengths, reads, errors and the number of closes are the bare application's."""
    bare = Play(script)
    PLAYS[:] = [Play(script)]
    DOOR.records.clear()
    expected = bare.run(bare)

    found = PLAYS[-1].run(DOOR)

    assert found == expected
    assert len(DOOR.records) == 1
    assert current_budget.get() is None
    # A status line without a number is noted; nothing else is a fault.
    assert set(DOOR.faults) <= {"start_response"}
