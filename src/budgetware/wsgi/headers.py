"""Header lines of a response, as PEP 3333's text and as the bytes they are sent as."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from budgetware.answers.facts import Header, Headers


def as_text(headers: Iterable[Header]) -> list[tuple[str, str]]:
    """Return *headers* as PEP 3333 has them: bytes as latin-1 text."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]


def as_bytes(headers: Iterable[tuple[str, str]]) -> Headers:
    """Return *headers* of an application as the bytes they are sent as."""
    return tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in headers)
