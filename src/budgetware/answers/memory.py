"""Which responses does this process keep? The ones used last, within a number of bytes."""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from typing import Final

from budgetware.answers.stored import Found, Stored

MOST_BYTES: Final = 64 * 1024 * 1024
MOST_ENTRIES: Final = 65_536
ENTRY_BYTES: Final = 1024
"""Counted for every entry besides its bytes: the objects Python makes for it."""
LINE_BYTES: Final = 160
"""Counted for every header likewise."""


class MemoryStore:
    """A store in this process for any number of threads; every call takes constant time.

    Args:
        most_bytes: What all entries may take together, overhead included.
        most_entries: How many there may be.

    Raises:
        ValueError: A bound is not positive.

    """

    def __init__(self, most_bytes: int = MOST_BYTES, most_entries: int = MOST_ENTRIES) -> None:
        if most_bytes <= 0 or most_entries <= 0:
            raise ValueError("the bounds of a memory store are positive")
        self._most_bytes = most_bytes
        self._most_entries = most_entries
        self._begin()
        _after_fork.add(self)

    def get(self, key: bytes, now: float, wait_s: float = 0.0) -> Found | None:  # noqa: ARG002 - it never waits
        """Return what is kept under *key* and usable *now*."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            stored, began = entry
            found = Found(stored, max(0.0, now - began))
            if not found.is_usable:
                self._remove(key)
                return None
            self._entries.move_to_end(key)
            return found

    def put(self, key: bytes, stored: Stored, resident_s: float, now: float) -> None:
        """Keep *stored*, unless it is too long or one whose request began later is here."""
        size_bytes = footprint_bytes(key, stored)
        began = now - resident_s
        if size_bytes > self._most_bytes or not Found(stored, resident_s).is_usable:
            return
        with self._lock:
            present = self._entries.get(key)
            if present is not None:
                if present[1] > began:
                    return
                self._remove(key)
            self._entries[key] = (stored, began)
            self._bytes += size_bytes
            while self._bytes > self._most_bytes or len(self._entries) > self._most_entries:
                self._remove(next(iter(self._entries)))

    @property
    def size_bytes(self) -> int:
        """What all entries take together, overhead included."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._entries)

    def _remove(self, key: bytes) -> None:
        stored, _ = self._entries.pop(key)
        self._bytes -= footprint_bytes(key, stored)

    def _begin(self) -> None:
        # Re-entrant: the garbage collector may finish an abandoned request of the same thread.
        self._lock = threading.RLock()
        self._entries: OrderedDict[bytes, tuple[Stored, float]] = OrderedDict()
        self._bytes = 0


def footprint_bytes(key: bytes, stored: Stored) -> int:
    """Return how many bytes *stored* counts for under *key*."""
    lines = stored.headers + stored.selecting
    text_bytes = sum(len(name) + len(value) for name, value in lines)
    return ENTRY_BYTES + LINE_BYTES * len(lines) + text_bytes + len(key) + len(stored.body)


_after_fork: weakref.WeakSet[MemoryStore] = weakref.WeakSet()


def _begin_anew() -> None:
    # A thread of the parent may have been in the middle of a change at the moment of the fork.
    for store in _after_fork:
        store._begin()  # noqa: SLF001 - the same file


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
