"""Which route is it? The table against a matcher that tries every template."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgetware._core.policy import Match
from budgetware._core.routes import ANY_METHOD, LONGEST_PATH, RouteTable, shape

literals = st.sampled_from(["a", "a", "a", "b", "a.b", "ü", "(z)"])
one = st.sampled_from(["{x}", "{other}"])
rest = st.sampled_from([[], [], ["**"], ["{rest:path}"]])


@st.composite
def _templates(draw: st.DrawFn) -> str:
    segments = [*draw(st.lists(literals | one, max_size=3)), *draw(rest)]
    return "/" + "/".join(segments) + draw(st.sampled_from(["", "/"] if segments else [""]))


@st.composite
def _paths(draw: st.DrawFn) -> str:
    odd = st.sampled_from(["", "c", "\n"])
    segments = draw(st.lists(st.one_of(literals, literals, literals, odd), max_size=3))
    return "/" + "/".join(segments) + draw(st.sampled_from(["", "", "/"]))


matches = st.lists(
    st.builds(Match, st.sampled_from(["GET", ANY_METHOD, ANY_METHOD, "HEAD"]), _templates()),
    min_size=4,
    max_size=12,
    unique_by=lambda match: (match.method, shape(match.template)),
)


def _segments(path: str) -> list[str]:
    if path.strip("/") and path.endswith("/"):
        path = path[:-1]
    return [] if path == "/" else path[1:].split("/")


def _fits(template: str, path: str) -> bool:
    wanted, given_ = _segments(template), _segments(path)
    if wanted and (wanted[-1] == "**" or wanted[-1].endswith(":path}")):
        wanted, given_ = wanted[:-1], given_[: len(wanted) - 1]
    return len(wanted) == len(given_) and all(
        text == part or (text.startswith("{") and part != "")
        for text, part in zip(wanted, given_, strict=True)
    )


def _rank(match: Match) -> tuple[tuple[int, ...], int]:
    kinds = [
        2 if text == "**" or text.endswith(":path}") else int(text.startswith("{"))
        for text in _segments(match.template)
    ]
    return tuple(kinds), ["HEAD", "GET", "PUT", ANY_METHOD].index(match.method)


def _brute(found: list[Match], method: str, path: str) -> Match | None:
    fitting = [
        match
        for match in found
        if match.method in {method, "GET" if method == "HEAD" else method, ANY_METHOD}
        and _fits(match.template, path)
    ]
    return min(fitting, key=_rank, default=None)


@settings(max_examples=300)
@given(matches, st.sampled_from(["GET", "HEAD", "PUT"]), _paths(), st.randoms())
def test_the_most_specific_template_wins_in_any_order(
    found: list[Match],
    method: str,
    path: str,
    shuffling: object,
) -> None:
    """The table finds what trying every template finds, however the file orders them."""
    expected = _brute(found, method, path)
    table = RouteTable([(match, match) for match in found])
    assert table.find(method, path) == expected

    shuffling.shuffle(found)  # type: ignore[attr-defined]
    assert RouteTable([(match, match) for match in found]).find(method, path) == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("/", ()),
        ("/a", ((0, "a"),)),
        ("/a/", ((0, "a"),)),
        ("/a/{x}", ((0, "a"), (1, ""))),
        ("/a/{x_1:path}", ((0, "a"), (2, ""))),
        ("/**", ((2, ""),)),
    ],
)
def test_a_shape_leaves_out_what_parameters_are_called(
    template: str,
    expected: tuple[tuple[int, str], ...],
) -> None:
    """Templates that match the same paths have the same shape."""
    assert shape(template) == expected


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("", "does not start with '/'"),
        ("a/b", "does not start with '/'"),
        ("/**/a", "nothing may follow"),
        ("/{x:path}/a", "nothing may follow"),
        ("/a*", "neither text nor"),
        ("/{1}", "neither text nor"),
        ("/{x:int}", "neither text nor"),
        ("/a?b=1", "neither text nor"),
        ("/pre{x}", "neither text nor"),
    ],
)
def test_a_template_that_is_none_is_an_error(template: str, complaint: str) -> None:
    """The message says which part cannot be read."""
    with pytest.raises(ValueError, match=complaint):
        shape(template)


def test_the_first_of_two_equal_templates_wins() -> None:
    """Where the file says the same thing twice, its first word counts."""
    table = RouteTable([(Match("GET", "/{a}"), 1), (Match("GET", "/{b}"), 2)])

    assert table.find("GET", "/x") == 1


@pytest.mark.parametrize(
    ("own", "expected"),
    [([], "get"), ([("HEAD", "/**")], "get"), ([("HEAD", "/a/{x}")], "own")],
)
@pytest.mark.parametrize("template", ["/a/{x}", "/a/b"])
def test_head_goes_to_the_most_specific_template(
    template: str, own: list[tuple[str, str]], expected: str
) -> None:
    """A GET route is not hidden by a wildcard; HEAD's own comes first at equal shape."""
    listed = [(Match(method, path), "own") for method, path in own]
    found = RouteTable([(Match("*", "/**"), "any"), (Match("GET", template), "get"), *listed])

    literal = template == "/a/b"
    assert found.find("HEAD", "/a/b") == ("get" if literal else expected)
    assert found.find("HEAD", "/b") == ("own" if own[:1] == [("HEAD", "/**")] else "any")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_one_trailing_slash_is_ignored_and_no_second_one(method: str) -> None:
    """Also when HEAD is looked up as GET."""
    table = RouteTable([(Match("GET", "/a"), 1), (Match("GET", "/b/{x}"), 2)])

    found = [table.find(method, path) for path in ("/a", "/a/", "/a//", "/b/c/", "/b/c//")]
    assert found == [1, 1, None, 2, None]


def test_an_empty_table_finds_nothing() -> None:
    """Without templates every request is unmatched."""
    assert RouteTable[int]([]).find("GET", "/") is None


def test_a_path_is_never_taken_for_a_pattern() -> None:
    """Dots and brackets in a literal segment stand for themselves."""
    table = RouteTable([(Match("GET", "/a.b/{x}"), 1)])

    assert table.find("GET", "/a.b/c") == 1
    assert table.find("GET", "/axb/c") is None


def test_a_very_long_path_matches_nothing() -> None:
    """No service has such addresses, and nobody is paid for looking one up."""
    table = RouteTable([(Match("*", "/**"), "all"), (Match("GET", "/{a}/{b}"), "two")])
    longest = "/" + "a" * (LONGEST_PATH - 1)

    assert table.find("GET", longest) == "all"
    assert table.find("GET", longest + "a") is None


@pytest.mark.parametrize("path", ["/r17/x/y", "/r17/1/none", "/none", "/a/b/c/d", "/" * 500])
def test_a_look_up_takes_no_longer_for_more_routes(path: str) -> None:
    """Neither a hit nor a miss executes more lines at 10,000 routes than at 100."""
    few, many = (
        RouteTable(
            [(Match("GET", f"/r{number}/{{x}}/y"), number) for number in range(count)]
            + [(Match("*", "/a/{x}/{y}/z"), -1)]
        )
        for count in (100, 10_000)
    )

    assert few.find("GET", path) == many.find("GET", path)
    assert _lines_of(many, path) == _lines_of(few, path) < 20 * (path.count("/") + 10)


def _lines_of(table: RouteTable[int], path: str) -> int:
    lines = 0

    def count(frame: object, event: str, arg: object) -> object:
        nonlocal lines
        lines += event == "line"
        return count

    before = sys.gettrace()
    sys.settrace(count)  # type: ignore[arg-type]
    try:
        table.find("GET", path)
    finally:
        sys.settrace(before)
    return lines
