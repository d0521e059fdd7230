"""Collecting a body while it passes by."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgetware.answers.tee import Tee


@given(st.lists(st.binary(max_size=20)), st.integers(0, 100), st.booleans())
def test_a_body_is_whole_or_not_there(parts: list[bytes], most: int, declared: bool) -> None:  # noqa: FBT001 - drawn
    """Up to the cap all of it comes out, over it nothing."""
    body = b"".join(parts)
    tee = Tee(len(body) if declared else None, most)
    for part in parts:
        tee.add(part)

    assert tee.whole() == (body if len(body) <= most else None)
    assert tee.whole() is None


@pytest.mark.parametrize("declared", [3, 5, -1])
def test_a_length_that_is_not_the_bodys_is_no_body(declared: int) -> None:
    """A client that left, an error half way or a wrong header: nothing is kept."""
    tee = Tee(declared)
    tee.add(b"ab")
    tee.add(b"cd")

    assert tee.whole() is None


def test_what_cannot_be_kept_is_given_up_at_once() -> None:
    """A length over the cap collects nothing, and so does what is no bytes."""
    assert not Tee(11, 10).collecting
    tee = Tee()
    tee.add("text")
    assert not tee.collecting
    tee = Tee()
    tee.give_up()
    tee.add(b"x")
    assert tee.whole() is None


def test_a_buffer_used_again_does_not_change_what_was_kept() -> None:
    """Mutable parts are copied, wide views counted in bytes."""
    buffer = bytearray(b"abcd")
    tee = Tee(8)
    tee.add(buffer)
    tee.add(memoryview(buffer))
    buffer[:] = b"xxxx"
    wide = Tee(most_bytes=3)
    wide.add(memoryview(b"abcd").cast("i"))

    assert tee.whole() == b"abcdabcd"
    assert wide.whole() is None


def test_an_endless_stream_takes_no_memory() -> None:
    """Two gigabytes go by, and never more than the cap is held."""
    part = bytes(64 * 1024)
    tee = Tee()
    tracemalloc.start()
    try:
        for _ in range(2**15):
            tee.add(part)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert tee.whole() is None
    assert peak_bytes < 2 * 256 * 1024
