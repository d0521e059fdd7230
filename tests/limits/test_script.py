"""What is asked and understood, without a server; and a library that is not there."""

from __future__ import annotations

import importlib
import sys
from math import inf, nan
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgetware._core.rate import LONGEST_WAIT_S
from budgetware.errors import MissingExtra
from budgetware.limits.script import key_of, numbers_of, wait_s_of

identities = st.none() | st.text() | st.integers() | st.uuids()


@given(
    st.lists(st.tuples(st.none() | st.text(), identities), min_size=2, max_size=2, unique=True),
)
def test_callers_have_keys_of_their_own(callers: list[tuple[str | None, object]]) -> None:
    """Two that differ in tier or identity, even in its type, differ in key; all are as long."""
    first, second = (key_of("p:", tier, identity) for tier, identity in callers)

    assert first != second
    assert len(first) == len(second) == len("p:") + 32


def test_a_key_is_the_same_in_every_process() -> None:
    """Nothing random goes into it, and half a surrogate pair is no error."""
    assert key_of("p:", "pro", "ann") == "p:17ed85a17ea27b6d68fed4091c027cb8"
    assert key_of("p:", "pro", UUID(int=1)) != key_of("p:", "pro", str(UUID(int=1)))
    assert key_of("p:", "\ud800", "\udfff")


@given(st.floats(), st.floats())
def test_numbers_for_the_server_are_finite(rate: float, burst: float) -> None:
    """Whatever the policy says, it is asked about a sound interval and tolerance, or not at all."""
    numbers = numbers_of(rate, burst)

    if numbers is None:
        assert not 0 < rate <= 1e6
        return
    interval_us, tolerance_us = map(float, numbers)
    assert 1 <= interval_us <= LONGEST_WAIT_S * 1e6
    assert interval_us <= tolerance_us < inf
    assert tolerance_us <= interval_us * 1e6


@pytest.mark.parametrize(
    ("reply", "wait_s"),
    [
        (0, 0.0),
        (1500, 0.0015),
        (2**62, LONGEST_WAIT_S),
        (-1, None),
        (b"0", None),
        (None, None),
        (0.0, None),
        (nan, None),
        ([0], None),
    ],
)
def test_only_the_scripts_replies_are_replies(reply: object, wait_s: float | None) -> None:
    """Microseconds from 0 up, as a whole number; nothing else means anything."""
    assert wait_s_of(reply) == wait_s


@pytest.mark.parametrize("module", ["connections", "threads", "tasks"])
def test_a_library_that_is_missing_is_named(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing what needs it says what to install."""
    for name in list(sys.modules):
        if name.partition(".")[0] == "redis" or name.startswith("budgetware.limits."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis", None)

    with pytest.raises(MissingExtra, match=r"pip install 'budgetware\[redis\]'"):
        importlib.import_module(f"budgetware.limits.{module}")
