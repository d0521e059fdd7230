"""Who sends a request, as the application names them to either door."""

from __future__ import annotations

from uuid import UUID

import pytest

from budgetware.runtime import identity_of

USER = UUID("5d0c9d34-6d0a-4f4c-9a0b-6d3a1c1f2e11")


@pytest.mark.parametrize(
    ("given", "named"),
    [("me", "me"), (7, "7"), (USER, str(USER)), (None, None), ("", None), (" \t", None)],
)
def test_whoever_is_named_is_told_apart(given: object, named: str | None) -> None:
    """Numbers and UUIDs are what many keys of tables are; a blank name is an anonymous user's."""
    faults: list[str] = []

    assert identity_of(lambda _: given, {}, lambda step, _: faults.append(step)) == named
    assert identity_of(None, {}, lambda step, _: faults.append(step)) is None
    assert faults == []


@pytest.mark.parametrize("given", [True, 1.5, b"me", object()])
def test_what_is_no_name_is_counted(given: object) -> None:
    """All callers would be one, and nobody would know why."""
    faults: list[str] = []

    assert identity_of(lambda _: given, {}, lambda step, _: faults.append(step)) is None
    assert faults == ["identity"]
