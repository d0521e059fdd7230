"""What may be kept, and for how long."""

from __future__ import annotations

import itertools
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.answers.requests_made_up import POLICY, full, get

from budgetware._core.policy import CachePolicy
from budgetware.answers.facts import Header
from budgetware.answers.storable import (
    MOST_KEPT_S,
    Lifetime,
    declared_length,
    directives,
    lifetime,
    may_be_answered,
    may_be_kept,
)

_FORBIDDING = ("no-store", "private", "no-cache", 'private="x, y"', "no-cache=set-cookie")
_CASES = (str.lower, str.upper, str.title, str.swapcase)
_AROUND = (
    "{}",
    " {} ",
    "\t{}\t",
    "max-age=60,{}",
    "{},max-age=60",
    "public , {} ,x",
    "{};max-age=9",
)
_NAMES = (b"cache-control", b"Cache-Control", b"CACHE-CONTROL", b"cAcHe-CoNtRoL")


def _spellings() -> list[tuple[tuple[bytes, bytes], ...]]:
    spelled = []
    for directive, case, around, name in itertools.product(_FORBIDDING, _CASES, _AROUND, _NAMES):
        value = around.format(case(directive)).encode()
        others = ((b"cache-control", b"public, max-age=60"),)
        spelled += [((name, value),), ((name, value), *others), (*others, (name, value))]
    for name, value in itertools.product(
        (b"set-cookie", b"Set-Cookie", b"SET-COOKIE", b"set-Cookie2"),
        (b"sid=1", b"", b" sid=1; HttpOnly"),
    ):
        spelled.append(((name, value),))
    for name, value in itertools.product(
        (b"vary", b"Vary", b"VARY"), (b"*", b" *", b"accept, *", b"*,accept", b"accept\t,\t*")
    ):
        spelled.append(((name, value),))
    return spelled


def test_no_spelling_of_what_forbids_keeping_is_kept() -> None:
    """Case, blanks, duplicate lines, arguments and company make no difference: 0 are kept."""
    from budgetware.answers.key import varied_on  # noqa: PLC0415 - a rule of its own

    spellings = _spellings()
    kept = [
        lines
        for lines in spellings
        if lifetime(full(*lines), POLICY) is not None and varied_on(full(*lines)) is not None
    ]

    assert len(spellings) > 1700
    assert kept == []


@given(
    st.lists(st.text('abcxyz-=" ,;\t0123456789', max_size=12), max_size=4),
    st.sampled_from(_FORBIDDING),
    st.integers(0, 4),
    st.sampled_from([",", ", ", " ,", ";", "\t,\t"]),
)
def test_no_company_hides_a_directive(
    company: list[str], directive: str, place: int, comma: str
) -> None:
    """Whatever else stands in the line, quotes that never end included, no-store is seen."""
    members = [*company[:place], directive.upper(), *company[place:]]

    line = (b"cache-control", comma.join(members).encode())

    assert lifetime(full(line), POLICY) is None


NO_STORE = (b"cache-control", b"no-store")


@given(st.lists(st.binary(max_size=40), max_size=5))
def test_any_bytes_are_directives_of_some_kind(values: list[bytes]) -> None:
    """Reading a header never fails, and nothing before or behind it hides a ``no-store``."""
    lines = [(b"cache-control", value) for value in values]
    kept = lifetime(full(*lines), POLICY)

    assert kept is None or 0 <= kept.age_s < kept.kept_s
    assert all(name == name.lower() for name in directives(values))
    for strict in ([*lines, NO_STORE], [NO_STORE, *lines]):
        assert lifetime(full(*strict), POLICY) is None


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ((), Lifetime(1, 61, 0)),
        (((b"cache-control", b"public"),), Lifetime(1, 61, 0)),
        (((b"cache-control", b"max-age=600"),), Lifetime(1, 61, 0)),
        (((b"cache-control", b"max-age=600"), (b"age", b"5")), Lifetime(1, 61, 5)),
        (((b"cache-control", b"max-age=6"), (b"age", b"6")), None),
        (((b"cache-control", b"max-age=0"),), None),
        (((b"cache-control", b"max-age"),), None),
        (((b"cache-control", b"max-age=-1"),), None),
        (((b"cache-control", b"max-age=1e3"),), None),
        (((b"cache-control", "max-age=\uff11\uff12".encode()),), None),
        (((b"cache-control", b"max-age=60, max-age=0"),), None),
        (((b"cache-control", b'max-age="60"'),), Lifetime(1, 61, 0)),
        (((b"cache-control", b"max-age=60"), (b"cache-control", b"s-maxage=0")), None),
        (((b"cache-control", b"max-age=0, s-maxage=60"),), Lifetime(1, 1, 0)),
        (((b"cache-control", b"must-revalidate"),), Lifetime(1, 1, 0)),
        (((b"cache-control", b"Proxy-Revalidate"),), Lifetime(1, 1, 0)),
        (((b"cache-control", b"stale-if-error=5"),), Lifetime(1, 6, 0)),
        (((b"cache-control", b"stale-if-error=5, stale-while-revalidate=9"),), Lifetime(1, 10, 0)),
        (((b"cache-control", b"stale-if-error=9999"),), Lifetime(1, 61, 0)),
        (((b"pragma", b"No-Cache"),), None),
        (((b"expires", b"0"),), None),
        (((b"expires", b"Thu, 01 Jan 2026 00:00:10 GMT"),), None),
        (
            (
                (b"date", b"Thu, 01 Jan 2026 00:00:00 GMT"),
                (b"expires", b"Thu, 01 Jan 2026 00:00:10 GMT"),
            ),
            Lifetime(1, 61, 0),
        ),
        (
            (
                (b"date", b"Thu, 01 Jan 2026 00:00:10 GMT"),
                (b"expires", b"Thu, 01 Jan 2026 00:00:10 GMT"),
            ),
            None,
        ),
        (((b"content-range", b"bytes 0-1/2"),), None),
        (((b"Content-Type", b"Text/Event-Stream; charset=utf-8"),), None),
        (((b"trailer", b"x-checksum"),), None),
        (((b"www-authenticate", b"Basic"),), None),
        (((b"content-length", b"4"), (b"content-length", b"5")), None),
        (((b"content-length", b"+4"),), None),
        (((b"content-length", b"4_0"),), None),
        (((b"x-split", b"a\r\nset-cookie: b"),), None),
        (((b"budgetware-answer", b"fallback"),), None),
    ],
)
def test_a_response_shortens_the_windows_of_the_policy(
    headers: tuple[Header, ...], expected: Lifetime | None
) -> None:
    """The policy allows a second fresh and a minute stale; the response may only take away."""
    assert lifetime(full(*headers), POLICY) == expected


@given(st.floats(0, 100), st.floats(0, 100), st.integers(0, 200), st.integers(0, 200))
def test_nothing_lengthens_the_windows(
    fresh: float, stale: float, max_age: int, granted: int
) -> None:
    """Whatever the response says, the policy's windows are the longest."""
    line = b"max-age=%d, stale-if-error=%d" % (max_age, granted)
    lasts = lifetime(full((b"cache-control", line)), CachePolicy(fresh=fresh, stale=stale))

    if lasts is not None:
        assert lasts.fresh_s <= min(fresh, max_age)
        assert lasts.kept_s - lasts.fresh_s <= min(stale, granted) + 1e-9


def test_only_a_get_with_status_200_is_kept() -> None:
    """Of twelve methods and every status one pair is kept; of methods, two are answered."""
    methods = [
        "GET",
        "HEAD",
        "POST",
        "PUT",
        "PATCH",
        "DELETE",
        "OPTIONS",
        "TRACE",
        "CONNECT",
        "get",
    ]
    methods += ["GET\x00", "QUERY"]
    kept = [
        (method, status)
        for method in methods
        for status in range(100, 600)
        if may_be_kept(get(method=method)) and lifetime(full(status=status), POLICY) is not None
    ]

    assert kept == [("GET", 200)]
    assert [method for method in methods if may_be_answered(get(method=method))] == ["GET", "HEAD"]


@pytest.mark.parametrize(
    ("header", "answered", "kept"),
    [
        ((b"Range", b"bytes=0-1"), False, False),
        ((b"if-match", b'"x"'), False, False),
        ((b"X-HTTP-Method-Override", b"DELETE"), False, False),
        ((b"content-length", b"7"), False, False),
        ((b"content-length", b"0"), True, True),
        ((b"transfer-encoding", b"chunked"), False, False),
        ((b"Cache-Control", b"No-Store"), True, False),
        ((b"cache-control", b"no-cache"), True, True),
        ((b"if-none-match", b'"x"'), True, True),
    ],
)
def test_what_a_request_asks_for_decides_too(header: Header, answered: bool, kept: bool) -> None:  # noqa: FBT001 - a table
    """Parts, bodies, conditions and methods in disguise are the application's to answer."""
    request = get(b"/", header)

    assert (may_be_answered(request), may_be_kept(request)) == (answered, kept)


def test_windows_of_nothing_keep_nothing() -> None:
    """A policy without windows is no reason to keep anything, and endless ones end after a year."""
    assert lifetime(full(), CachePolicy()) is None
    assert lifetime(full(), CachePolicy(fresh=inf)) == Lifetime(MOST_KEPT_S, MOST_KEPT_S, 0)


def test_the_declared_length_is_believed_or_not() -> None:
    """One number, repeated or not, is a length; anything else cannot be."""
    name = b"content-length"
    assert declared_length([]) is None
    assert declared_length([(name, b" 12 ")]) == 12
    assert declared_length([(name, b"12"), (b"Content-Length", b"12")]) == 12
    assert declared_length([(name, b"12, 12")]) == -1
    assert declared_length([(name, b"")]) == -1
