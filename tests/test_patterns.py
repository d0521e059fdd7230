"""No pattern of ours takes the square of the time when its text is twice as long.

``re`` holds the interpreter while it looks: a text of 8,000 characters can stop every thread for
seconds. Steps are counted, by a matcher that goes the way of ``re``, on texts made to mislead.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from itertools import permutations, product
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.pattern_steps import Steps, beginning

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "budgetware"

SEARCHING = {"search", "finditer", "findall", "sub", "subn", "split"}

SHORT = {
    "policyfile.templates:_FLASK": "no match is longer than 512 characters",
    "policyfile.templates:_CONVERTER": "no match is longer than 512 characters",
    "units:_PART": "what mixes units has at most five parts",
}
"""Patterns that may take the square, and what keeps their texts short."""

FEW = 48
"""Times that a piece is repeated: more than any counted repeat of a pattern allows."""


class Used(NamedTuple):
    """A pattern, and whether it is looked for everywhere in a text or at one place."""

    pattern: re.Pattern[str]
    searched: bool


def used() -> Iterator[tuple[str, Used]]:
    """Yield every pattern of the package with its name, or the line it is written in."""
    for path in sorted(PACKAGE.rglob("*.py")):
        source = path.read_text("utf-8")
        if "import re\n" not in source:
            continue
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        searched = {owner for owner, method, _ in calls(source) if method in SEARCHING}
        for label, value in vars(import_module(f"budgetware.{name}")).items():
            if isinstance(value, re.Pattern):
                yield f"{name}:{label}", Used(as_text(value), label in searched)
        for owner, method, call in calls(source):
            if owner == "re" and method != "compile":
                pattern = re.compile(ast.literal_eval(call.args[0]))
                yield f"{name}:{call.lineno}", Used(pattern, method in SEARCHING)


def calls(source: str) -> Iterator[tuple[str, str, ast.Call]]:
    """Yield each ``owner.method(...)`` of *source*."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=owner), attr=method)):
                yield owner, method, node


def as_text(pattern: re.Pattern[Any]) -> re.Pattern[str]:
    """Return *pattern* as one for text."""
    if isinstance(pattern.pattern, str):
        return pattern
    return re.compile(pattern.pattern.decode("latin-1"), pattern.flags | re.ASCII)


def pieces(pattern: re.Pattern[str]) -> list[str]:
    """Return some characters that matter to *pattern*: its own signs, and one of each kind."""
    signs = [one for one in "{}[]()<>,:;\"'#%-_=~/.\t\r\n" if one in _written(pattern)]
    return ["a", "1", " ", *signs[:3]]


def _written(pattern: re.Pattern[str]) -> str:
    return pattern.pattern.replace(r"\t", "\t").replace(r"\n", "\n").replace(r"\r", "\r")


def texts(pattern: re.Pattern[str], times: int) -> Iterator[str]:
    """Yield a beginning, a piece again and again, and an end, for all that matter."""
    signs = pieces(pattern)
    repeated = [*signs, *("".join(two) for two in permutations(signs, 2))]
    heads = dict.fromkeys(["", "a", "1", beginning(pattern)])
    for head, piece, tail in product(heads, repeated, ["", "\0" * 20]):
        yield head + piece * times + tail


def growth(one: Used) -> Iterator[float]:
    """Yield by how much the steps grow when a text is four times as long."""
    steps = Steps(one.pattern)

    def counted(text: str) -> int:
        steps.count = 0
        if one.searched:
            steps.match_everywhere(text)
        else:
            steps.match(text, whole=True)
        return steps.count

    for few, many in zip(texts(one.pattern, FEW), texts(one.pattern, 4 * FEW), strict=True):
        yield counted(many) / counted(few)


PATTERNS = dict(used())


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_takes_time_in_proportion_to_its_text(name: str) -> None:
    """Four times the text takes about four times the steps, whatever is in it."""
    assert name in SHORT or all(times < 6 for times in growth(PATTERNS[name]))


@pytest.mark.parametrize(
    "one",
    [
        Used(re.compile(r"[^,\[\]{}]+(?:\{[^\s{},]*\}[^,\[\]{}]*)+"), searched=True),
        Used(re.compile(r"([0-9]+)\s*(.{0,14}?)\s*"), searched=False),
        Used(re.compile(r"a*a*b"), searched=False),
    ],
    ids=lambda one: one.pattern.pattern,
)
def test_the_count_sees_a_pattern_that_goes_back(one: Used) -> None:
    """Patterns that are known to take the square, or more, are found out."""
    assert any(times > 8 for times in growth(one))


@pytest.mark.parametrize("name", PATTERNS)
def test_the_count_is_of_the_same_matches(name: str) -> None:
    """The matcher that counts agrees with the one of Python."""
    pattern = PATTERNS[name].pattern
    steps = Steps(pattern)
    for text in texts(pattern, 2):
        assert steps.match(text) is bool(pattern.match(text))
        assert steps.match(text, whole=True) is bool(pattern.fullmatch(text))
