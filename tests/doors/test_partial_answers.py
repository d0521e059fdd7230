"""A response made with a stage left out says so, and nobody keeps it; both doors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from tests.doors.steered_play import SIGNALS, Play
from tests.doors.wsgi_steered_play import Stand

from budgetware import budget
from budgetware._core.policy import Mode
from budgetware._core.record import RequestRecord
from budgetware.testing import deciding
from budgetware.wsgi import StartResponse

HEADERS = {
    "Content-Type": "text/plain",
    "Cache-Control": "public, max-age=600",
    "ETag": '"full"',
    "X-Own": "kept",
}
MARKED = {
    "content-type": "text/plain",
    "x-own": "kept",
    "cache-control": "no-store",
    "budgetware-answer": "partial",
}


@budget.stage("ml", fallback=lambda: "part")
def score() -> str:
    """Be a stage that may be left out."""
    return "full"


async def endpoint(_: Request) -> Response:
    """Answer with what the stage says, as something that may be kept for long."""
    return PlainTextResponse(score(), headers=HEADERS)


def application(_: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """Do the same for WSGI."""
    made = score()
    start_response("200 OK", list(HEADERS.items()))
    return [made.encode()]


class Asgi:
    """One client of an ASGI application, and what an observer was told."""

    def __init__(self, mode: Mode = Mode.ENFORCE, **options: Any) -> None:
        self.records: list[RequestRecord] = []
        self.play = Play(endpoint, mode=mode, observers=[self.records.append], **options)
        self.memory = self.play.door._helm()._cache.memory

    def ask(self, method: str = "GET") -> tuple[bytes, dict[str, str]]:
        """Return the body and the headers of a response."""
        answered = self.play.ask(method)
        headers = answered.messages[0]["headers"]
        return answered.body, {name.decode(): value.decode() for name, value in headers}

    def check(self) -> None:
        """Make sure that nothing failed."""
        self.play.check()


class Wsgi:
    """The same of a WSGI application."""

    def __init__(self, mode: Mode = Mode.ENFORCE, **options: Any) -> None:
        self.stand = Stand(application, mode=mode, **options)
        self.records = self.stand.records
        self.memory = self.stand.door._helm()._cache.memory

    def ask(self, method: str = "GET") -> tuple[bytes, dict[str, str]]:
        """Return the body and the headers of a response."""
        got = self.stand.ask(method=method)
        return got.body, {name.lower(): value for name, value in got.headers.items()}

    def check(self) -> None:
        """Make sure that nothing failed."""
        self.stand.check()


DOORS = pytest.mark.parametrize("door", [Asgi, Wsgi])


@DOORS
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_it_says_so_and_is_not_kept(door: type[Asgi | Wsgi], method: str) -> None:
    """What the client is told and what is counted are the same."""
    client = door()
    with deciding("skip"):
        body, headers = client.ask(method)

    assert body == b"part"
    headers.pop("content-length", None)
    assert headers | {"content-type": "text/plain"} == MARKED
    assert [record.answer for record in client.records] == ["partial"]
    assert len(client.memory) == 0
    client.check()


@DOORS
@pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.SHADOW])
def test_a_full_response_is_left_alone(door: type[Asgi | Wsgi], mode: Mode) -> None:
    """Also where it is only counted that something would have been left out."""
    client = door(mode)
    if mode is Mode.SHADOW:
        with deciding("skip"):
            body, headers = client.ask()
    else:
        body, headers = client.ask()

    assert body == b"full"
    assert headers["cache-control"] == HEADERS["Cache-Control"]
    assert headers["etag"] == HEADERS["ETag"]
    assert "budgetware-answer" not in headers
    assert [record.answer for record in client.records] == [None]
    client.check()


@DOORS
def test_the_marks_and_the_timing_go_together(door: type[Asgi | Wsgi]) -> None:
    """``Server-Timing`` is about this very response, so it stays."""
    client = door(server_timing=True)
    with deciding("skip"):
        _, headers = client.ask()

    assert headers["budgetware-answer"] == "partial"
    assert "total;dur=" in headers["server-timing"]
    client.check()


def test_nothing_is_left_out_of_a_stream_that_has_begun() -> None:
    """Its headers have left as a full response's."""

    async def stream(_: Request) -> Response:
        async def parts() -> AsyncIterator[str]:
            yield "so far "
            with deciding("skip"):
                yield score()

        return StreamingResponse(parts())

    records: list[RequestRecord] = []
    play = Play(stream, observers=[records.append])
    answered = play.ask()

    assert (answered.body, answered.kind) == (b"so far full", None)
    assert [record.answer for record in records] == [None]
    play.check()


def test_a_late_one_is_marked_as_well() -> None:
    """It counts as late, and as partial, and is no more for keeping than one in time."""

    async def late(_: Request) -> Response:
        play.time.now += 1.0
        return JSONResponse(score())

    play = Play(late, replace(SIGNALS, answers=(), static=None))
    with deciding("skip"):
        answered = play.ask()

    assert answered.kind == "partial"
    assert play.outcomes == {"breached": 1}
    assert [key[2] for key in play.door._engine.tally.degraded] == ["partial"]
    play.check()


STORED: list[tuple[Any, Any]] = [("ETag", '"v1"'), ("Cache-Control", "private, max-age=600")]
FORMS: list[Any] = [str, bytearray, memoryview, lambda text: memoryview(bytearray(text))]


@pytest.mark.parametrize("form", FORMS)
def test_odd_lines_are_marked_under_asgi(form: Any) -> None:
    """Some servers take text, and any kind of bytes; what cannot be read stays as it is."""

    def odd(text: str) -> Any:
        return text if form is str else form(text.encode())

    own = (b"x-own", odd("kept"))
    lines = [own, *((odd(name), odd(value)) for name, value in STORED), (b"x-none", None)]

    async def app(_: Any, __: Any, send: Any) -> None:
        made = score()
        await send({"type": "http.response.start", "status": 200, "headers": lines})
        await send({"type": "http.response.body", "body": made.encode()})

    play = Play(endpoint, wrapped=lambda _: app)
    with deciding("skip"):
        answered = play.ask()

    assert answered.body == b"part"
    assert answered.messages[0]["headers"] == [own, (b"x-none", None), *ours(b"private")]
    assert play.door._engine.tally.faults["mark"] == 1
    assert play.outcomes == {"degraded": 1}


@pytest.mark.parametrize("status", ["200 OK", "OK", ""])
@pytest.mark.parametrize("odd", [("X-Odd", "\u20ac"), ("Content-Length", 4), ("X-None", None)])
def test_odd_lines_are_marked_under_wsgi(odd: tuple[Any, Any], status: str) -> None:
    """Likewise of a number, of text that is no latin-1, and where the status has no number."""

    def app(_: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        made = score()
        start_response(status, [odd, *STORED])
        assert score() == "full"  # it has begun, and is marked already
        return [made.encode()]

    stand = Stand(app)
    with deciding("skip"):
        got = stand.ask()

    told = {name.decode(): value.decode() for name, value in ours(b"private")}
    assert (got.status, got.body, got.headers) == (status, b"part", dict([odd]) | told)
    assert stand.door._engine.tally.faults["mark"] == 1
    assert len(stand.records) == 1


def test_a_status_without_a_number_is_no_reason_not_to_mark() -> None:
    """The lines are as they should be."""

    def app(_: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        made = score()
        start_response("OK", list(HEADERS.items()))
        return [made.encode()]

    stand = Stand(app)
    with deciding("skip"):
        got = stand.ask()

    assert (got.status, got.body) == ("OK", b"part")
    assert {name.lower(): value for name, value in got.headers.items()} == MARKED


def ours(strict: bytes) -> list[tuple[bytes, bytes]]:
    """Return our two lines, for an application that has asked of caches what is *strict*."""
    return [(b"cache-control", b"no-store, " + strict), (b"budgetware-answer", b"partial")]
