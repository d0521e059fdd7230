"""No file, however broken, makes the reader do anything but say what is wrong."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.policyfile.yaml_values import FULL, TRADING, VALUES, places

from budgetware.errors import Problem
from budgetware.policyfile import check
from budgetware.policyfile.annotate import as_github, as_sarif
from budgetware.policyfile.render import as_json, as_text
from budgetware.policyfile.rules import RULES
from budgetware.policyfile.source import lines_of

QUICK = settings(max_examples=80, deadline=None)


def judged(source: str | bytes) -> tuple[Problem, ...]:
    """Return the problems of *source* after checking that they make sense."""
    document = check(source, file="b.yaml", every_environment=True)
    assert (document.policy is None) == bool(document.errors)
    lines = lines_of(document.text)
    for problem in document.problems:
        assert problem.code in RULES
        assert problem.message
        if problem.line and document.text:
            assert 1 <= problem.line <= len(lines)
            assert 1 <= problem.column <= len(lines[problem.line - 1]) + 1
    for render in (as_text, as_json, as_github, as_sarif):
        assert render(document)
    return document.problems


@QUICK
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_in_words(source: bytes) -> None:
    """Bytes that are no policy file give problems, never an exception."""
    assert judged(source)


@QUICK
@given(st.text(alphabet="abversion: 1\n-[]{}\"'&*!|>#%@,\t\\<", max_size=60))
def test_any_yaml_like_text_is_judged(text: str) -> None:
    """Text made of YAML's own signs is judged without an exception."""
    assert judged(text) or text.strip()


@QUICK
@given(st.data())
def test_a_valid_file_with_a_cut_is_judged(data: st.DataObject) -> None:
    """The example with a piece removed and another put in is still judged in place."""
    start = data.draw(st.integers(0, len(TRADING)))
    length = data.draw(st.integers(0, 30))
    piece = data.draw(st.text(alphabet="a1: %ms/{}[],\n-*&", max_size=8))
    judged(TRADING[:start] + piece + TRADING[start + length :])


@QUICK
@given(st.data())
def test_a_valid_file_with_another_value_is_judged(data: st.DataObject) -> None:
    """Every value of the example can be anything at all."""
    content = yaml.safe_load(TRADING)
    node = content
    while isinstance(node, dict) and node:
        key = data.draw(st.sampled_from(sorted(node)))
        if not isinstance(node[key], dict) or data.draw(st.integers(0, 3)) == 0:
            scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
            node[key] = data.draw(
                scalars
                | st.sampled_from(["5ms", "1s", "50%", "1/s", "10KB", "GET /x", "off", "observe"])
                | st.lists(scalars, max_size=3)
                | st.dictionaries(st.text(max_size=3), scalars, max_size=3)
            )
            break
        node = node[key]
    judged(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def test_the_whole_file_is_valid() -> None:
    """The file whose parts are exchanged is right in every environment."""
    assert [problem for problem in judged(FULL) if problem.severity == "error"] == []


@pytest.mark.parametrize("value", ["[a: b]", "{a: b}", "[[a]]", "~", ".nan", "{? [a] : b}"])
def test_what_is_no_text_is_judged_at_every_place(value: str) -> None:
    """A list, a mapping or nothing for any key or value of a valid file is refused in words."""
    for start, end, break_ in places(FULL):
        document = check(FULL[:start] + value + break_ + FULL[end:])
        assert (document.policy is None) == bool(document.errors)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(places(FULL)), VALUES)
def test_any_yaml_is_judged_at_any_place(place: tuple[int, int, str], value: str) -> None:
    """Lists, mappings, keys that are no text and anchors of themselves are judged everywhere."""
    start, end, break_ = place
    judged(FULL[:start] + value + break_ + FULL[end:])
