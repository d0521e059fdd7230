"""What is sent, and how it is marked."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.answers.requests_made_up import stored

from budgetware._core.policy import StaticAnswer
from budgetware.answers.answer import Answer, marked, marked_partial
from budgetware.answers.cached import cached_answer
from budgetware.answers.fallback import fallback_answer
from budgetware.answers.rejection import LONGEST_RETRY_S, Rejection, jittered_s, rejection
from budgetware.answers.static import static_answer
from budgetware.answers.stored import Found
from budgetware.names import ANSWER_HEADER


def _one(answer: Answer, name: bytes) -> bytes:
    (value,) = [value for found, value in answer.headers if found == name]
    return value


def _half() -> float:
    return 0.5


MADE: tuple[Callable[[], Answer], ...] = (
    lambda: cached_answer(Found(stored(), 3.0), "late"),
    lambda: fallback_answer({"cheap": True}),
    lambda: static_answer(StaticAnswer(body="[]")),
    lambda: rejection(Rejection.OVERLOADED, 1.0, _half),
)


@pytest.mark.parametrize("make", MADE)
def test_every_answer_is_marked(make: Callable[[], Answer]) -> None:
    """Nobody keeps it, its kind is named, and its length is right, for HEAD as well."""
    answer = make()
    head = answer.to("HEAD")

    assert _one(answer, b"cache-control") == b"no-store"
    assert _one(answer, ANSWER_HEADER.lower().encode()) == answer.kind.encode()
    assert _one(answer, b"content-length") == str(len(answer.body)).encode()
    assert answer.body
    assert (head.body, head.headers) == (b"", answer.headers)
    assert answer.to("GET") is answer


def test_what_others_could_keep_it_by_is_gone() -> None:
    """Lines about storing, about one connection and about timing do not get out."""
    lines = [
        (b"Cache-Control", b"public, max-age=60"),
        (b"CDN-Cache-Control", b"max-age=600"),
        (b"surrogate-control", b"max-age=600"),
        (b"X-Accel-Expires", b"600"),
        (b"Edge-Control", b"cache-maxage=10m"),
        (b"expires", b"Thu, 01 Jan 2099 00:00:00 GMT"),
        (b"age", b"9"),
        (b"cache-status", b"other; hit"),
        (b"server-timing", b"db;dur=5"),
        (b"content-length", b"99"),
        (b"connection", b"keep-alive, X-Hop"),
        (b"x-hop", b"1"),
        (b"transfer-encoding", b"chunked"),
        (b"budgetware-answer", b"full"),
        (b"ETag", b'"1"'),
    ]

    answer = marked("static", 200, lines, b"x")

    assert answer.headers == (
        (b"etag", b'"1"'),
        (b"cache-control", b"no-store"),
        (b"budgetware-answer", b"static"),
        (b"content-length", b"1"),
    )


def test_a_response_made_with_a_stage_left_out_is_marked() -> None:
    """Nobody keeps it or takes it for the full one; whatever else it says is left alone."""
    lines = [
        (b"Content-Type", b"text/plain"),
        (b"content-length", b"4"),
        (b"Cache-Control", b"public, max-age=60, No-Transform"),
        (b"cache-control", b'private="x", s-maxage=5'),
        (b"CDN-Cache-Control", b"max-age=600"),
        (b"Surrogate-Control", b"max-age=600"),
        (b"X-Accel-Expires", b"600"),
        (b"edge-control", b"cache-maxage=10m"),
        (b"Expires", b"Thu, 01 Jan 2099 00:00:00 GMT"),
        (b"ETag", b'"1"'),
        (b"Last-Modified", b"Thu, 01 Jan 2026 00:00:00 GMT"),
        (b"Server-Timing", b"db;dur=5"),
        (b"Set-Cookie", b"a=b"),
        (b"Set-Cookie", b"c=d"),
    ]

    assert marked_partial(iter(lines)) == [
        (b"Content-Type", b"text/plain"),
        (b"content-length", b"4"),
        (b"Server-Timing", b"db;dur=5"),
        (b"Set-Cookie", b"a=b"),
        (b"Set-Cookie", b"c=d"),
        (b"cache-control", b"no-store, private, no-transform"),
        (b"budgetware-answer", b"partial"),
    ]
    assert marked_partial(()) == [
        (b"cache-control", b"no-store"),
        (b"budgetware-answer", b"partial"),
    ]


def test_what_the_application_asks_of_caches_beyond_ours_stays() -> None:
    """The stronger of both holds in a smaller answer, too."""
    answer = fallback_answer((200, {"Cache-Control": "private, max-age=9, no-transform"}, "x"))

    assert _one(answer, b"cache-control") == b"no-store, private, no-transform"


@pytest.mark.parametrize("line", [(b"x", b"a\r\nb: c"), (b"x\n", b""), (b"", b""), (b"x", b"\0")])
def test_a_line_that_would_split_is_refused(line: tuple[bytes, bytes]) -> None:
    """A header that could not be sent is an error here and not in the server."""
    with pytest.raises(ValueError, match="cannot be sent"):
        marked("fallback", 200, [line], b"")


@pytest.mark.parametrize("status", [100, 199, 600, -1])
def test_only_final_statuses_are_answers(status: int) -> None:
    """Whatever is no final status is refused."""
    with pytest.raises(ValueError, match=str(status)):
        marked("static", status, [], b"")


@pytest.mark.parametrize("status", [204, 304])
def test_statuses_without_content_have_none(status: int) -> None:
    """No body and no length of one."""
    answer = marked("static", status, [], b"ignored")

    assert answer.body == b""
    assert b"content-length" not in dict(answer.headers)


@pytest.mark.parametrize(
    ("resident_s", "age_s", "detail", "age", "status"),
    [
        (0.2, 0.0, "over_budget", b"1", b"budgetware; hit; ttl=0; detail=over_budget"),
        (12.5, 0.0, "", b"13", b"budgetware; hit; ttl=-12"),
        (1.0, 30.0, 'x"; evil', b"31", b"budgetware; hit; ttl=0"),
        (1e300, 0.0, "a b", b"2147483647", b"budgetware; hit; ttl=-2147483647"),
    ],
)
def test_a_cached_answer_tells_its_age(
    resident_s: float, age_s: float, detail: str, age: bytes, status: bytes
) -> None:
    """Age counts from whoever made it, ttl is negative once stale, detail is a token or nothing."""
    answer = cached_answer(Found(stored(age_s=age_s), resident_s), detail)

    assert _one(answer, b"age") == age
    assert _one(answer, b"cache-status") == status
    assert _one(answer, b"content-type") == b"text/plain"


@pytest.mark.parametrize(
    ("reason", "status", "title"),
    [
        (Rejection.OVERLOADED, 503, "Service Unavailable"),
        (Rejection.DEADLINE_SPENT, 504, "Gateway Timeout"),
        (Rejection.RATE_EXCEEDED, 429, "Too Many Requests"),
    ],
)
def test_a_rejection_is_a_problem_document(reason: Rejection, status: int, title: str) -> None:
    """Status, type and members are those of RFC 9457."""
    answer = rejection(reason, 2.2, _half)
    problem = json.loads(answer.body)

    assert (answer.kind, answer.status) == ("reject", status)
    assert _one(answer, b"content-type") == b"application/problem+json"
    assert (problem["status"], problem["title"], problem["type"]) == (status, title, "about:blank")
    assert problem["reason"] == reason
    assert str(problem["retry_after"]).encode() == _one(answer, b"retry-after")
    assert b"retry-after" not in dict(rejection(reason, None, _half).headers)


@given(st.floats(), st.floats(0, 1))
def test_retry_after_is_a_whole_number_from_one(least_s: float, drawn: float) -> None:
    """Never less than asked for, never less than 1, for any float there is."""
    wait_s = jittered_s(least_s, lambda: drawn)

    assert 1 <= wait_s <= 1.5 * LONGEST_RETRY_S
    assert math.isnan(least_s) or wait_s >= min(least_s, LONGEST_RETRY_S)


def test_callers_do_not_come_back_together() -> None:
    """A thousand callers sent away for ten seconds spread evenly over six."""
    draw = random.Random(7).random
    waits = [jittered_s(10, draw) for _ in range(1000)]

    counts = [waits.count(wait) for wait in range(10, 16)]

    assert sum(counts) == 1000
    assert min(counts) > 120


def test_a_static_answer_is_what_the_file_says() -> None:
    """Its type is guessed only when it is not said; what cannot be sent is an error."""
    given_type = static_answer(
        StaticAnswer(status=503, body="down", headers={"Content-Type": "text/html"})
    )

    assert (given_type.kind, given_type.status, given_type.body) == ("static", 503, b"down")
    assert _one(given_type, b"content-type") == b"text/html"
    assert _one(static_answer(StaticAnswer(body=' {"a": 1}')), b"content-type") == (
        b"application/json"
    )
    assert _one(static_answer(StaticAnswer(body="ü")), b"content-type").startswith(b"text/plain")
    assert b"content-type" not in dict(static_answer(StaticAnswer(status=204)).headers)
    with pytest.raises(ValueError, match="cannot be sent"):
        static_answer(StaticAnswer(headers={"X": "a\nb"}))
    with pytest.raises(ValueError, match="cannot be sent"):
        static_answer(StaticAnswer(headers={"X": "\u20ac"}))
