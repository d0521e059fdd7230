"""What the WSGI door keeps of full responses, for whom, and what it never keeps."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from tests.doors.steered_play import LIMIT_S, POLICY, SIGNALS
from tests.doors.wsgi_play import Body, SizedBody, Wire
from tests.doors.wsgi_steered_play import HEADERS, Stand, degrades

from budgetware import budget
from budgetware._core.policy import Match, Mode, Route, TierPolicy
from budgetware.testing import deciding
from budgetware.wsgi import StartResponse

Env = dict[str, Any]
ANY = replace(SIGNALS, match=(Match("*", "/**"),))


def answers(env: Env, start_response: StartResponse) -> Iterable[bytes]:
    """Say what was asked for."""
    start_response("200 OK", HEADERS)
    return [f"{env['PATH_INFO']} ? {env['QUERY_STRING']}".encode("latin-1")]


def kept(stand: Stand, path: str = "/signals", **more: Any) -> bytes | None:
    """Return the body that is kept for a request, ``None`` if none is."""
    with deciding("answer"):
        got = stand.ask(path, **more)
    return got.body if got.kind == "cached" else None


@budget.stage("ml", fallback=lambda: b"cheap")
def ml() -> bytes:
    """Be a stage that may be left out."""
    return b"dear"


@pytest.mark.parametrize("shape", ["list", "lazy", "write"])
def test_a_body_made_with_a_stage_left_out_is_counted_and_not_kept(shape: str) -> None:
    """It is no full response: neither for the cache nor for the totals."""

    def app(_: Env, start_response: StartResponse) -> Iterable[bytes]:
        with deciding("skip"):
            made = ml()
        if shape == "lazy":
            return steps(start_response, made)
        write = start_response("200 OK", HEADERS)
        if shape == "write":
            write(made)
            return []
        return [made]

    def steps(start_response: StartResponse, made: bytes) -> Iterator[bytes]:
        start_response("200 OK", HEADERS)
        yield made

    stand = Stand(app)

    assert stand.ask().body == b"cheap"
    assert stand.outcomes == {"degraded": 1}
    assert [(record.answer, record.reason) for record in stand.records] == [("partial", "forced")]
    assert kept(stand) is None
    stand.check()


def test_nothing_is_left_out_in_the_middle_of_a_body() -> None:
    """The response has begun as a full one, and nobody could be told any more."""

    def app(_: Env, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", HEADERS)
        yield b"so far "
        with deciding("skip"):
            yield ml()

    stand = Stand(app)

    assert stand.ask().body == b"so far dear"
    assert stand.records[0].answer is None
    assert kept(stand) == b"so far dear"
    stand.check()


def test_a_get_with_a_body_is_neither_kept_nor_answered_from_what_is() -> None:
    """Its body is no part of the key."""

    def app(env: Env, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", HEADERS)
        return [b"body was: " + env["wsgi.input"].read()]

    stand = Stand(app)
    evil: dict[str, Any] = {"wsgi.input": io.BytesIO(b"evil"), "CONTENT_LENGTH": "4"}

    stand.ask(**evil)
    assert kept(stand) is None
    none: dict[str, Any] = {"wsgi.input": io.BytesIO(), "CONTENT_LENGTH": "", "CONTENT_TYPE": ""}
    stand.ask(**none)
    assert kept(stand) == b"body was: "
    assert kept(stand, **evil) is None
    stand.check()


def test_a_response_may_vary_on_the_type_of_what_was_sent() -> None:
    """That header has a name of its own in an environ."""

    def app(env: Env, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [*HEADERS, ("Vary", "Content-Type")])
        return [env.get("CONTENT_TYPE", "").encode()]

    stand = Stand(app)

    stand.ask(CONTENT_TYPE="text/a")
    assert kept(stand, CONTENT_TYPE="text/a") == b"text/a"
    assert kept(stand, CONTENT_TYPE="text/b") is None
    stand.check()


def test_what_went_through_write_is_not_kept() -> None:
    """Half of it would be."""

    def app(_: Env, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", HEADERS)(b"first ")
        return [b"second"]

    stand = Stand(app)

    assert stand.ask().body == b"first second"
    assert kept(stand) is None
    stand.check()


@pytest.mark.parametrize("other", [{}, {"RAW_URI": "/signals"}, {"REQUEST_URI": "/signals"}])
def test_a_question_mark_in_the_path_is_not_the_querys(other: dict[str, Any]) -> None:
    """Decoded, the two addresses look alike; one of them is the administrator's."""
    stand = Stand(answers, ANY)

    stand.ask("/a?admin=1", **other)

    assert kept(stand, "/a", QUERY_STRING="admin=1", **other) is None
    assert kept(stand, "/a?admin=1", **other) == b"/a?admin=1 ? "
    assert kept(stand, "/a?admin=1", QUERY_STRING="x", **other) is None
    stand.check()


def test_addresses_that_differ_only_as_they_were_sent_are_told_apart() -> None:
    """An application may look there: an encoded slash is no slash."""
    stand = Stand(answers, ANY)

    for name in ("RAW_URI", "REQUEST_URI"):
        upper: dict[str, Any] = {name: "/a%2Fb"}
        stand.ask("/a/b", **upper)
        assert kept(stand, "/a/b", **upper) is not None
        assert kept(stand, "/a/b", **{name: "/a%2fb"}) is None
    assert kept(stand, "/a/b") is None
    stand.ask("/a/b", RAW_URI="/a/b")
    assert kept(stand, "/a/b") is not None
    stand.check()


def test_a_whole_url_as_it_was_sent_is_an_address_of_its_own() -> None:
    """The host in it is not the one of the ``Host`` header."""
    stand = Stand(answers, ANY)

    stand.ask("/a", RAW_URI="http://one/a", HTTP_HOST="one")

    assert kept(stand, "/a", RAW_URI="http://one/a", HTTP_HOST="one") is not None
    assert kept(stand, "/a", RAW_URI="http://two/a", HTTP_HOST="one") is None
    assert kept(stand, "/a", RAW_URI="/a", HTTP_HOST="one") is None
    stand.check()


def test_a_path_put_in_by_another_middleware_is_part_of_the_address() -> None:
    """What was sent is the same for everybody there."""
    stand = Stand(answers, ANY)

    stand.ask("/users/1", RAW_URI="/me")

    assert kept(stand, "/users/1", RAW_URI="/me") == b"/users/1 ? "
    assert kept(stand, "/users/2", RAW_URI="/me") is None
    assert kept(stand, "/me", RAW_URI="/me") is None
    stand.check()


def test_text_that_is_no_latin_1_is_part_of_an_address_like_any_other() -> None:
    """No server gives such a query or header, but a middleware may."""
    stand = Stand(lambda _, start: answers({"PATH_INFO": "", "QUERY_STRING": ""}, start), ANY)

    stand.ask(HTTP_HOST="\u20ac", QUERY_STRING="\udcff")

    assert kept(stand, HTTP_HOST="\u20ac", QUERY_STRING="\udcff") is not None
    assert kept(stand, HTTP_HOST="\u20ad", QUERY_STRING="\udcff") is None
    assert kept(stand, HTTP_HOST="\u20ac", QUERY_STRING="\udcfe") is None
    stand.check()


@pytest.mark.parametrize("path", ["/signals", "/plain"])
@pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.OBSERVE])
def test_a_write_makes_what_was_kept_of_its_address_unusable(path: str, mode: Mode) -> None:
    """Whatever route and mode the write belongs to, as long as anything is decided at all."""
    reads = replace(SIGNALS, match=(Match("GET", "/signals"), Match("GET", "/plain")))
    writes = Route(name="writes", match=(Match("POST", "/**"),), budget=None, mode=mode)
    policy = replace(POLICY, routes={"signals": reads, "writes": writes})
    stand = Stand(answers, policy=policy)
    stand.ask(path)
    assert kept(stand, path) is not None

    stand.time.now += 0.01
    stand.ask(path, method="POST")

    assert kept(stand, path) is None
    stand.check()


def test_a_write_that_failed_changes_nothing_and_one_that_was_broken_off_may_have() -> None:
    """Nobody knows how far it had come."""
    stand = Stand(answers)
    stand.ask()
    stand.time.now += 0.01

    def fails(_: Env, start_response: StartResponse) -> Iterable[bytes]:
        start_response("500 Oh", HEADERS)
        return [b""]

    stand.app = fails
    stand.ask(method="POST")
    assert kept(stand) is not None

    stand.time.now += 0.01
    stand.app = degrades
    assert stand.ask(method="POST").body == b"static"
    assert kept(stand) is None
    stand.check()


@pytest.mark.parametrize("kind", [Body, SizedBody])
def test_a_body_keeps_its_length_and_is_kept(kind: type[Body]) -> None:
    """A server may look at the length before it sends anything."""

    def app(_: Env, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", HEADERS)
        return kind()

    stand = Stand(app)

    assert stand.ask().length == (2 if kind is SizedBody else None)
    assert kept(stand) == b"ab"
    stand.check()


def test_a_file_is_the_servers_own_and_not_kept() -> None:
    """It may send it without reading it."""

    def app(env: Env, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", HEADERS)
        wrapper = env["wsgi.file_wrapper"]
        return wrapper(io.BytesIO(b"file"))  # type: ignore[no-any-return]

    stand = Stand(app)

    got = stand.ask()

    assert (got.is_file, got.body) == (True, b"file")
    assert kept(stand) is None
    assert stand.outcomes == {"met": 1, "degraded": 1}
    stand.check()


def test_a_body_the_client_has_left_is_neither_kept_nor_learnt_from() -> None:
    """How long it would have taken nobody knows."""
    stand = Stand(lambda _, start: (start("200 OK", HEADERS), Body())[1])
    learnt: list[object] = []
    steering = stand.door._engine.lane("GET", "/signals", None, None).steering
    assert steering is not None
    assert steering.forecast is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            type(steering.forecast), "learn", lambda _, path, **_more: learnt.append(path)
        )
        stand.ask(wire=Wire(leave_after=1))
        assert learnt == []
        stand.ask()
        assert len(learnt) == 1
    stand.check()


@pytest.mark.parametrize("lazy", [False, True])
def test_a_response_begun_anew_is_kept_as_it_ended(*, lazy: bool) -> None:
    """Only what took the place of the first start counts."""

    def app(_: Env, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", HEADERS)
        start_response("503 Anew", HEADERS, (ValueError, ValueError(), None))
        return Body() if lazy else [b"sorry"]

    stand = Stand(app)
    body = stand.door({"REQUEST_METHOD": "GET", "PATH_INFO": "/signals"}, Wire().start_response)
    list(body)
    getattr(body, "close", lambda: None)()

    assert kept(stand) is None
    stand.check()


@pytest.mark.parametrize("how", [True, lambda env: "HTTP_X_TELL" in env])
def test_where_the_time_went_is_told_on_every_route(how: Any) -> None:
    """On one where something is decided as on one where nothing is; never of a smaller answer."""
    plain = Route(name="plain", match=(Match("*", "/plain"),), mode=Mode.OBSERVE)
    policy = replace(POLICY, routes={"signals": SIGNALS, "plain": plain})
    stand = Stand(answers, policy=policy, server_timing=how)

    for path in ("/signals", "/plain"):
        for method in ("GET", "POST"):
            told = stand.ask(path, method, HTTP_X_TELL="1").headers
            assert told["Server-Timing"].startswith("total;dur=")
    with deciding("answer"):
        assert "Server-Timing" not in stand.ask(HTTP_X_TELL="1").headers
    stand.check()


def test_where_the_time_went_is_told_to_those_who_had_to_come_in() -> None:
    """Rates and slots change nothing about it."""
    tiers = {"pro": TierPolicy(budget=LIMIT_S, rate=100.0)}
    stand = Stand(answers, policy=replace(POLICY, tiers=tiers, concurrency=4), server_timing=True)

    assert "Server-Timing" in stand.ask().headers
    stand.check()
