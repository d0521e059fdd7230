"""Values from outside, made safe."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgetware.telemetry.plain import LONGEST, plain


@given(st.text(alphabet=st.characters(exclude_categories=()), max_size=600))
def test_any_text_becomes_one_short_printable_line(text: str) -> None:
    """Whatever comes in, what goes out is printable, short, and encodes as UTF-8 and JSON."""
    safe = plain(text)

    assert safe.isprintable()
    assert len(safe) <= LONGEST
    assert json.loads(json.dumps(safe).encode()) == safe
    safe.encode()


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain text, é and 日本", "plain text, é and 日本"),
        ("a\nb\r\n", r"a\nb\r\n"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("user\u202egnp.exe", r"user\u202egnp.exe"),
        ("\ud800", r"\ud800"),
        ("\u2028", r"\u2028"),
        ("\x00", r"\x00"),
        ("x" * 300, "x" * 255 + "…"),
        ("\n" * 200, r"\n" * 127 + "\\…"),
        ("", ""),
    ],
)
def test_what_cannot_be_shown_is_escaped(text: str, safe: str) -> None:
    """Ordinary text passes; what could forge or break a line becomes an escape."""
    assert plain(text) == safe


def test_an_object_that_cannot_describe_itself_is_named_by_its_type() -> None:
    """An exception whose text raises is still reported."""

    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    assert plain(MuteError()) == "<MuteError>"
