"""Which bytes become a response again."""

from __future__ import annotations

import pickle
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.answers.requests_made_up import KEY, stored

from budgetware.answers.stored import Stored
from budgetware.answers.wire import _HEAD, _LINE, _MARK, _digest, decoded, encoded

_NAMES = st.from_regex(rb"[a-z-]{1,20}", fullmatch=True)
_VALUES = st.from_regex(rb"[ -~\t\x80-\xff]{0,40}", fullmatch=True)
_LINES = st.lists(st.tuples(_NAMES, _VALUES), max_size=6).map(tuple)
_MS = st.integers(0, 10**9).map(lambda ms: ms / 1000)
_ENTRIES = st.builds(
    Stored,
    status=st.just(200),
    headers=_LINES,
    body=st.binary(max_size=200),
    fresh_s=_MS,
    kept_s=_MS,
    age_s=_MS,
    selecting=_LINES,
)


@given(_ENTRIES, st.binary(max_size=32), st.binary(max_size=64))
def test_what_went_in_comes_out(entry: Stored, key: bytes, secret: bytes) -> None:
    """Headers, body and times survive, for the same key and secret."""
    assert decoded(key, encoded(key, entry, secret), secret) == entry


@given(_ENTRIES, st.data())
def test_bytes_that_were_changed_are_nothing(entry: Stored, data: st.DataObject) -> None:
    """A bit flipped anywhere, an end cut off or bytes added: all misses."""
    whole = encoded(KEY, entry)
    at = data.draw(st.integers(0, len(whole) - 1))
    flipped = bytes([whole[at] ^ (1 << data.draw(st.integers(0, 7)))])

    assert decoded(KEY, whole[:at]) is None
    assert decoded(KEY, whole[:at] + flipped + whole[at + 1 :]) is None
    assert decoded(KEY, whole + data.draw(st.binary(min_size=1))) is None


@given(st.binary(max_size=300))
def test_random_bytes_are_nothing(data: bytes) -> None:
    """With or without the right mark, and even with the right digest."""
    assert decoded(KEY, data) is None
    assert decoded(KEY, _MARK + data) is None
    found = decoded(KEY, _MARK + _digest(KEY, data, b"") + data)
    assert found is None or encoded(KEY, found) == _MARK + _digest(KEY, data, b"") + data


@given(
    st.integers(0, 2**16 - 1),
    st.integers(0, 2**16 - 1),
    st.integers(0, 2**32 - 1),
    st.lists(st.tuples(st.integers(0, 2**16 - 1), st.integers(0, 2**32 - 1)), max_size=4),
    st.binary(max_size=100),
)
def test_lengths_are_not_believed(
    lines: int, chosen: int, body: int, sizes: list[tuple[int, int]], rest: bytes
) -> None:
    """Numbers that claim more than there is, under a digest that is right, are misses."""
    content = _HEAD.pack(200, 1, 1, 0, lines, chosen, body)
    content += b"".join(_LINE.pack(*size) for size in sizes) + rest
    data = _MARK + _digest(KEY, content, b"") + content

    found = decoded(KEY, data)

    assert found is None or encoded(KEY, found) == data


@pytest.mark.parametrize(
    "data",
    [
        None,
        "text",
        b"",
        pickle.dumps({"body": b"x"}),
        b"BWA\x02" + encoded(KEY, stored())[4:],
        encoded(KEY[::-1], stored()),
        encoded(KEY, stored(), b"secret"),
        encoded(KEY, stored(headers=[(b"x", b"a\r\nset-cookie: b")])),
        encoded(KEY, stored(headers=[(b"x y", b"a")])),
        encoded(KEY, stored(headers=[(b"", b"a")])),
    ],
)
def test_hostile_values_are_nothing(data: object) -> None:
    """Pickles, other versions, others' entries, no secret, split headers: all misses."""
    assert decoded(KEY, data) is None


def test_another_status_than_200_is_nothing() -> None:
    """Only full answers are kept, so nothing else is taken out."""
    content = _HEAD.pack(302, 1, 1, 0, 0, 0, 0)

    assert decoded(KEY, _MARK + _digest(KEY, content, b"") + content) is None


def test_too_many_lines_are_refused() -> None:
    """What could not be read back is not written."""
    with pytest.raises(ValueError, match="600 header lines"):
        encoded(KEY, stored(headers=[(b"x", b"y")] * 600))


def test_times_without_end_fit() -> None:
    """Endless and negative times become the largest and the smallest there are."""
    entry = stored(fresh_s=-1.0, kept_s=1e300)

    found = decoded(KEY, encoded(KEY, entry))

    assert found is not None
    assert found.fresh_s == 0
    assert found.kept_s > 1e9
    assert struct.calcsize(_HEAD.format) == _HEAD.size
