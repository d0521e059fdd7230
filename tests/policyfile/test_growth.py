"""Four times the file takes about four times the work, whatever is wrong with it.

Work is lines of Python that are run, ours and those of the standard library. What regular
expressions do is counted in ``tests/test_patterns.py``.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import yaml
from tests.policyfile.line_counts import lines

from budgetware.policyfile import check, tree
from budgetware.policyfile.findings import MOST_PROBLEMS
from budgetware.policyfile.render import as_text

pytestmark = pytest.mark.exhaustive

V = "version: 1\n"


def many(head: str, piece: str, tail: str = "") -> Callable[[int], str]:
    """Return what makes a text of so many pieces, with their number for ``#``."""
    return lambda times: head + "".join(piece.replace("#", str(n)) for n in range(times)) + tail


def of_parts(*parts: tuple[str, str]) -> Callable[[int], str]:
    """Return what makes a text of so many pieces under each of some headings."""
    return lambda times: V + "".join(many(head, piece)(times) for head, piece in parts)


FILES: dict[str, Callable[[int], str]] = {
    "routes": many(V + "routes:\n", "  r#: {match: GET /r#, budget: 1s}\n"),
    "bad routes": many(V + "routes:\n", "  r#: {match: get /r#, budget: 1}\n"),
    "bad answers": many(V + "routes: {r: {match: GET /x, answers: [", "cach, ", "]}}"),
    "the same answer": many(V + "routes: {r: {match: GET /x, answers: [", "cached, ", "]}}"),
    "unknown keys": many(V, "tier_#: 1\n"),
    "one key": many(V, "a: 1\n"),
    "unknown tiers": of_parts(
        ("tiers:\n", "  tier_a#: {}\n"),
        ("routes:\n  r:\n    match: GET /x\n    budget:\n", "      tier_b#: 1s\n"),
    ),
    "unknown stages": of_parts(
        ("stages:\n", "  stage_a#: 1us\n"),
        ("routes:\n  r:\n    match: GET /x\n    stages:\n", "      stage_b#: off\n"),
    ),
    "new names in an environment": of_parts(
        ("tiers:\n", "  tier_a#: {}\n"),
        ("environments:\n  dev:\n    tiers:\n", "      tier_b#: {}\n"),
    ),
    "environments": of_parts(
        ("routes:\n", "  r#: {match: GET /r#}\n"), ("environments:\n", "  e#: {mode: observe}\n")
    ),
    "routes, tiers and stages": of_parts(
        ("tiers:\n", "  t#: {budget: 1s}\n"),
        ("stages:\n", "  s#: {budget: 1us, operations: {o: 1us}}\n"),
        ("routes:\n", "  r#: {match: GET /r#, stages: {s#: 2us}}\n"),
    ),
    "empty lines before an error": many(V, "\n", "  service: a\n"),
    "control characters": many(V + "service: ", "\x01"),
    "tabs": many(V, "\tx\n"),
    "braces": many(V + "routes: {r: {match: GET /", "{a}", "}}"),
    "open braces": many(V + "routes: {r: {match: GET /", "a{", "}}"),
    "brackets": many(V + "a: ", "[" * 8),  # a parser looks ahead for 1024 characters
    "laughs": many("a: &a0 [x, x]\n", "b#: &b# [*a0, *a0, *b#]\n"),
    "merges": many("a: &a {k: 1}\n", "m#: {<<: [*a, *a]}\n"),
    "a long word": many(V + "mode: ", "observe"),
    "a long key": many(V, "service", ": a\n"),
    "a long environment": many(V + "environments: {", "service", ": {tirs: {}}}\n"),
}


ABOUT_THE_PARSER = {
    *("brackets", "laughs", "merges", "braces", "open braces", "a long word", "one key"),
    *("tabs", "empty lines before an error"),
}


@pytest.mark.parametrize(
    ("name", "parser"),
    [
        *((name, "CSafeLoader") for name in FILES),
        *((name, "SafeLoader") for name in sorted(ABOUT_THE_PARSER)),
    ],
)
def test_work_grows_in_proportion_to_the_file(
    name: str, parser: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading and reporting is linear, with the parser in C and with the one in Python."""
    monkeypatch.setattr(tree, "_Parser", getattr(yaml, parser))
    check("tiers: 1")  # what is made once is not counted

    def work(times: int) -> int:
        return lines(lambda: as_text(check(FILES[name](times))))

    assert work(4 * MOST_PROBLEMS) < 5 * work(MOST_PROBLEMS)


def test_the_square_is_told_from_proportion() -> None:
    """The lines of a loop in a loop are counted as what they are."""

    def loop(times: int) -> int:
        def run() -> None:
            for _ in range(times):
                for _ in range(times):
                    pass

        return lines(run)

    assert loop(40) > 8 * loop(10)
