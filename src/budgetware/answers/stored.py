"""What is kept of a full response, and what does a store have to do? Both are said here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from budgetware.answers.facts import Headers


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A full response as it was kept.

    Attributes:
        status: The HTTP status.
        headers: Its lines, without those of one connection.
        body: The whole body.
        fresh_s: For how many seconds after the request began it is as good as a new one.
        kept_s: For how many seconds after the request began it may be used at all.
        age_s: How old it was already when it was made, in seconds (``Age`` of another cache).
        selecting: What the response varied on: the request's fields and their values.

    """

    status: int
    headers: Headers
    body: bytes
    fresh_s: float
    kept_s: float
    age_s: float = 0.0
    selecting: Headers = ()


@dataclass(frozen=True, slots=True)
class Found:
    """A stored response at the moment it is looked at.

    Attributes:
        stored: What was kept.
        resident_s: Seconds since the request began that made it.

    """

    stored: Stored
    resident_s: float

    @property
    def age_s(self) -> float:
        """Seconds since the response was made by whoever made it."""
        return self.stored.age_s + self.resident_s

    @property
    def fresh_left_s(self) -> float:
        """Seconds it is still as good as a new one; negative once it is stale."""
        return self.stored.fresh_s - self.resident_s

    @property
    def is_fresh(self) -> bool:
        """Whether it is as good as a new one."""
        return self.fresh_left_s > 0

    @property
    def is_usable(self) -> bool:
        """Whether it may be used at all."""
        return 0 <= self.resident_s < self.stored.kept_s


class Store(Protocol):
    """Where threads keep responses; it answers in time, is bounded, and never raises.

    ``now`` is monotonic seconds of this process, ``wait_s`` the longest the caller may wait.
    """

    def get(self, key: bytes, now: float, wait_s: float) -> Found | None:
        """Return what is kept under *key* and usable *now*."""

    def put(self, key: bytes, stored: Stored, resident_s: float, now: float) -> None:
        """Keep *stored*, whose request began *resident_s* seconds before *now*."""


class AsyncStore(Protocol):
    """The same for tasks."""

    async def get(self, key: bytes, now: float, wait_s: float) -> Found | None:
        """Return what is kept under *key* and usable *now*."""

    def put(self, key: bytes, stored: Stored, resident_s: float, now: float) -> None:
        """Begin to keep *stored*; the caller does not wait for it."""
