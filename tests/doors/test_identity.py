"""Who sends a request, as the application names them to either door."""

from __future__ import annotations

from uuid import UUID

import pytest

from budgetware.runtime import NOBODY, Caller, identity_of

USER = UUID("5d0c9d34-6d0a-4f4c-9a0b-6d3a1c1f2e11")


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("me", "me"),
        ("7", "7"),
        (7, "\0int 7"),
        ("\0int 7", "\0str \0int 7"),
        (USER, f"\0uuid {USER}"),
        (str(USER), str(USER)),
        (None, None),
        ("", None),
        (" \t", None),
    ],
)
def test_whoever_is_named_is_told_apart(given: object, named: str | None) -> None:
    """Numbers and UUIDs are keys of tables, and no text; a blank name is an anonymous user's."""
    faults: list[str] = []

    assert identity_of(lambda _: given, {}, lambda step, _: faults.append(step)) == Caller(named)
    assert identity_of(None, {}, lambda step, _: faults.append(step)) is NOBODY
    assert faults == []


@pytest.mark.parametrize("given", [True, 1.5, b"me", object()])
def test_what_is_no_name_is_counted(given: object) -> None:
    """It may be anybody's: no name is told for it, and what it is stays out of the log."""
    faults: list[tuple[str, str]] = []

    caller = identity_of(lambda _: given, {}, lambda step, error: faults.append((step, str(error))))

    assert caller == Caller(is_doubtful=True)
    said = f"identity gives a str, an int, a UUID or None, not a {type(given).__name__}"
    assert faults == [("identity", said)]
