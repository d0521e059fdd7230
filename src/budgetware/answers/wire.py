"""How does a stored response become bytes, and which bytes become one again? By this format.

All numbers are big-endian. First a 4-byte mark whose last byte is the version, then a 16-byte
BLAKE2b digest, keyed if there is a secret, of the key of the entry and of all that follows:

    status u16 · fresh, kept, age in ms u64 each · lines u16 · selecting lines u16 · body u32
    per line: name u16 · value u32, then all names and values, then the body

Whatever differs from this in any way, belongs to another key, or is longer than it says is no
response. Nothing is ever executed, and no length is believed before it was checked.
"""

from __future__ import annotations

import hmac
import struct
from hashlib import blake2b
from typing import Final

from budgetware.answers.facts import Header, Headers, is_sound
from budgetware.answers.stored import Stored

_MARK: Final = b"BWA\x01"
_DIGEST_BYTES: Final = 16
_PREFIX_BYTES: Final = len(_MARK) + _DIGEST_BYTES
_HEAD: Final = struct.Struct(">HQQQHHI")
_LINE: Final = struct.Struct(">HI")
_MOST_LINES: Final = 512
_MOST_NAME_BYTES: Final = 256
_MOST_MS: Final = 2**53
_FULL: Final = 200

SECRET_BYTES: Final = 64
"""The longest secret BLAKE2b takes."""


def encoded(key: bytes, stored: Stored, secret: bytes = b"") -> bytes:
    """Return *stored* as the bytes to keep under *key*.

    Raises:
        ValueError: It has more lines than fit.

    """
    lines = stored.headers + stored.selecting
    if len(lines) > _MOST_LINES:
        raise ValueError(f"a response of {len(lines)} header lines is not kept")
    times = (_ms(stored.fresh_s), _ms(stored.kept_s), _ms(stored.age_s))
    counts = (len(stored.headers), len(stored.selecting), len(stored.body))
    parts = [_HEAD.pack(stored.status, *times, *counts)]
    parts.extend(_LINE.pack(len(name), len(value)) for name, value in lines)
    parts.extend(text for line in lines for text in line)
    parts.append(stored.body)
    content = b"".join(parts)
    return _MARK + _digest(key, content, secret) + content


def decoded(key: bytes, data: object, secret: bytes = b"") -> Stored | None:
    """Return the response in *data*, ``None`` unless *data* is just what ``encoded`` makes."""
    if not isinstance(data, bytes) or not data.startswith(_MARK):
        return None
    content = data[_PREFIX_BYTES:]
    digest = data[len(_MARK) : _PREFIX_BYTES]
    if len(content) < _HEAD.size or not hmac.compare_digest(digest, _digest(key, content, secret)):
        return None
    # A digest without a secret can be made by anyone, so what it covers is not believed either.
    status, *times, count, selecting_count, body_bytes = _HEAD.unpack_from(content)
    if status != _FULL or max(times) > _MOST_MS or count + selecting_count > _MOST_LINES:
        return None
    lines = _lines(content, count + selecting_count, body_bytes)
    if lines is None:
        return None
    fresh_s, kept_s, age_s = (ms / 1000 for ms in times)
    return Stored(
        status=status,
        headers=lines[:count],
        selecting=lines[count:],
        body=content[len(content) - body_bytes :],
        fresh_s=fresh_s,
        kept_s=kept_s,
        age_s=age_s,
    )


def _lines(content: bytes, count: int, body_bytes: int) -> Headers | None:
    at = _HEAD.size + count * _LINE.size
    if at + body_bytes > len(content):
        return None
    sizes = list(_LINE.iter_unpack(content[_HEAD.size : at]))
    if at + sum(map(sum, sizes)) + body_bytes != len(content):
        return None
    lines: list[Header] = []
    for name_bytes, value_bytes in sizes:
        middle, end = at + name_bytes, at + name_bytes + value_bytes
        line = (content[at:middle], content[middle:end])
        if name_bytes > _MOST_NAME_BYTES or not is_sound(line):
            return None
        lines.append(line)
        at = end
    return tuple(lines)


def _digest(key: bytes, content: bytes, secret: bytes) -> bytes:
    digest = blake2b(len(key).to_bytes(4, "big"), digest_size=_DIGEST_BYTES, key=secret)
    digest.update(key)
    digest.update(content)
    return digest.digest()


def _ms(seconds: float) -> int:
    return round(min(_MOST_MS, max(0.0, seconds * 1000)))
