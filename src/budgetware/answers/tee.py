"""What was the whole body? Collected while its parts pass by, and given up early."""

from __future__ import annotations

from typing import Final

MOST_BODY_BYTES: Final = 256 * 1024
"""A longer body is not kept."""


class Tee:
    """Collects the parts of one body; adding one never waits or raises.

    Args:
        declared_bytes: ``Content-Length``, ``None`` without one.
        most_bytes: The longest body worth collecting.

    """

    __slots__ = ("_declared_bytes", "_length_bytes", "_most_bytes", "_parts")

    def __init__(
        self,
        declared_bytes: int | None = None,
        most_bytes: int = MOST_BODY_BYTES,
    ) -> None:
        self._declared_bytes = declared_bytes
        self._most_bytes = most_bytes if declared_bytes is None else min(declared_bytes, most_bytes)
        self._length_bytes = 0
        hopeless = declared_bytes is not None and not 0 <= declared_bytes <= most_bytes
        self._parts: list[bytes] | None = None if hopeless else []

    @property
    def is_measured(self) -> bool:
        """Whether the response has said how long its body is, so that a torso can be told."""
        return self._declared_bytes is not None

    @property
    def collecting(self) -> bool:
        """Whether the body may still be had; once false, adding is pointless."""
        return self._parts is not None

    def add(self, part: object) -> None:
        """Take note of the next *part* of the body."""
        parts = self._parts
        if parts is None:
            return
        if not isinstance(part, bytes):
            if not isinstance(part, bytearray | memoryview):
                self._parts = None
                return
            length_bytes = part.nbytes if isinstance(part, memoryview) else len(part)
            if self._length_bytes + length_bytes > self._most_bytes:
                self._parts = None
                return
            part = bytes(part)  # its owner may use it again
        self._length_bytes += len(part)
        if self._length_bytes > self._most_bytes:
            self._parts = None
        elif part:
            parts.append(part)

    def give_up(self) -> None:
        """Forget the body: it is a file's, has trailers, or failed."""
        self._parts = None

    def whole(self) -> bytes | None:
        """Return the body after its last part, ``None`` when it is not whole or was given up."""
        parts, self._parts = self._parts, None
        if parts is None:
            return None
        if self._declared_bytes is not None and self._declared_bytes != self._length_bytes:
            return None
        return b"".join(parts)
