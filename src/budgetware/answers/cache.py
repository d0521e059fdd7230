"""Which full response may stand in for this request's, and what is worth keeping? Asked here.

First this process's own store is looked at, then the shared one if there is one. What goes in is
judged by ``storable`` and ``key``; what comes out is checked against the request once more.
"""

from __future__ import annotations

import os
import threading
import weakref
from array import array
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import blake2b
from math import inf
from typing import Final

from budgetware._core.policy import CachePolicy
from budgetware.answers.facts import RequestFacts, ResponseFacts, end_to_end, values_of
from budgetware.answers.key import (
    MOST_VARIED,
    depends_on_credentials,
    key_of,
    may_be_shared,
    selecting,
    varied_on,
)
from budgetware.answers.memory import MemoryStore
from budgetware.answers.storable import declared_length, lifetime, may_be_answered, may_be_kept
from budgetware.answers.stored import AsyncStore, Found, Store, Stored
from budgetware.answers.tee import MOST_BODY_BYTES, Tee

MOST_REFRESHED: Final = 64
"""Stored responses that may be made anew at the same time."""

MARKS: Final = 65_536
"""How many marks there are for addresses that were written to; some addresses share one."""

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_FAILED: Final = 400


@dataclass(frozen=True, slots=True)
class Draft:
    """A response that will be kept once its body is whole.

    Attributes:
        tee: Give it the parts of the body as they pass by.
        key: Under which it will be kept.
        begun: The response, with no body yet.

    """

    tee: Tee
    key: bytes
    begun: Stored


class _Shelf:
    """What both caches do alike: whatever needs no waiting."""

    def __init__(
        self,
        memory: MemoryStore | None,
        shared: Store | AsyncStore | None,
        most_body_bytes: int,
    ) -> None:
        self.memory = MemoryStore() if memory is None else memory
        self._keepers = (self.memory,) if shared is None else (self.memory, shared)
        self._most_body_bytes = most_body_bytes
        self._lock = threading.Lock()
        self._varied: dict[str, frozenset[bytes]] = {}
        self._written: array[float] | None = None
        self._refreshed: set[bytes] = set()
        _after_fork.add(self)

    @property
    def is_shared(self) -> bool:
        """Whether a look-up may have to ask a store outside this process."""
        return len(self._keepers) > 1

    def draft(
        self,
        request: RequestFacts,
        policy: CachePolicy,
        response: ResponseFacts,
    ) -> Draft | None:
        """Return where to collect the body of the full response, ``None`` if it is not kept.

        Ask when the response starts, and never about what is sent instead of the full one.
        """
        if not (may_be_kept(request) and may_be_shared(request, policy)):
            return None
        lasts = lifetime(response, policy)
        names = varied_on(response)
        if lasts is None or names is None:
            return None
        if request.identity is None and depends_on_credentials(names):
            return None
        tee = Tee(declared_length(response.headers), self._most_body_bytes)
        if not tee.collecting or not self._learn(request.route, names):
            return None
        begun = Stored(
            status=response.status,
            headers=end_to_end(response.headers),
            body=b"",
            fresh_s=lasts.fresh_s,
            kept_s=lasts.kept_s,
            age_s=lasts.age_s,
            selecting=selecting(request, names),
        )
        return Draft(tee, key_of(request, policy, self._varied[request.route]), begun)

    def keep(self, draft: Draft, took_s: float, now: float) -> bool:
        """Keep the full response after its last part; tell whether its body was whole.

        Nothing is waited for: a shared store is written to by others.

        Args:
            draft: What ``draft`` returned when the response started.
            took_s: Seconds since the request began; the response is at least so old.
            now: Monotonic seconds.

        """
        body = draft.tee.whole()
        if body is None:
            return False
        stored = replace(draft.begun, body=body)
        for store in self._keepers:
            store.put(draft.key, stored, took_s, now)
        return True

    def wrote(self, request: RequestFacts, status: int, now: float) -> None:
        """Take note that *request* may have changed what its address stands for (RFC 9111, 4.4).

        What was asked for before *now* is no longer served from there by this process. Call it
        when the response to an unsafe method is known; others change nothing.
        """
        if request.method in _SAFE or status >= _FAILED:
            return
        if self._written is None:
            with self._lock:
                if self._written is None:
                    self._written = array("d", [-inf]) * MARKS
        self._written[_mark(request)] = now

    def begin_refresh(
        self, request: RequestFacts, policy: CachePolicy, spend: Callable[[], bool]
    ) -> bytes | None:
        """Return the key of the stored response that *request*'s work is to make anew.

        One request at a time does so for each key; others get ``None`` and leave it at the stored
        response. Whoever got the key gives it back with ``end_refresh``, whatever came of it.

        Args:
            request: The request, which was answered from the cache.
            policy: Its route's.
            spend: Tells whether such work may be done now; asked last.

        """
        key = self._key(request, policy)
        with self._lock:
            refreshed = self._refreshed
            if key is None or key in refreshed or len(refreshed) >= MOST_REFRESHED or not spend():
                return None
            refreshed.add(key)
        return key

    def end_refresh(self, key: bytes) -> None:
        """Let another request make the response under *key* anew."""
        with self._lock:
            self._refreshed.discard(key)

    def _key(self, request: RequestFacts, policy: CachePolicy) -> bytes | None:
        if not (may_be_answered(request) and may_be_shared(request, policy)):
            return None
        return key_of(request, policy, self._varied.get(request.route, frozenset()))

    def _checked(self, found: Found | None, request: RequestFacts, now: float) -> Found | None:
        if found is None or not found.is_usable:
            return None
        stored = found.stored
        varied = varied_on(ResponseFacts(stored.status, stored.headers))
        if varied is None or stored.selecting != selecting(request, varied):
            return None
        if request.identity is None and depends_on_credentials(varied):
            return None
        written = self._written
        if written is not None and now - found.resident_s <= written[_mark(request)]:
            return None
        return found

    def _learn(self, route: str, names: frozenset[bytes]) -> bool:
        # A request's key is made before its response is known, so its route has to tell.
        known = self._varied.get(route)
        if known is not None and names <= known:
            return True
        with self._lock:
            together = self._varied.get(route, frozenset()) | names
            if len(together) > MOST_VARIED:
                return False
            self._varied[route] = together
        return True


class ResponseCache(_Shelf):
    """Keeps and finds full responses for threads.

    Args:
        memory: This process's own store.
        shared: One that several processes use, if any.
        most_body_bytes: A longer body is not kept.

    """

    def __init__(
        self,
        memory: MemoryStore | None = None,
        shared: Store | None = None,
        *,
        most_body_bytes: int = MOST_BODY_BYTES,
    ) -> None:
        super().__init__(memory, shared, most_body_bytes)
        self._shared = shared

    def look_up(
        self,
        request: RequestFacts,
        policy: CachePolicy,
        now: float,
        wait_s: float,
    ) -> Found | None:
        """Return the response that may stand in for that to *request*: fresh, or still usable.

        Args:
            request: The request.
            policy: Its route's.
            now: Monotonic seconds.
            wait_s: How long the shared store may take, at most what is left of the request.

        """
        key = self._key(request, policy)
        if key is None:
            return None
        mine = self._checked(self.memory.get(key, now), request, now)
        if self._shared is None or (mine is not None and mine.is_fresh):
            return mine
        return _better(mine, self._checked(self._shared.get(key, now, wait_s), request, now))


class AsyncResponseCache(_Shelf):
    """Keeps and finds full responses for tasks.

    Args:
        memory: This process's own store.
        shared: One that several processes use, if any.
        most_body_bytes: A longer body is not kept.

    """

    def __init__(
        self,
        memory: MemoryStore | None = None,
        shared: AsyncStore | None = None,
        *,
        most_body_bytes: int = MOST_BODY_BYTES,
    ) -> None:
        super().__init__(memory, shared, most_body_bytes)
        self._shared = shared

    async def look_up(
        self,
        request: RequestFacts,
        policy: CachePolicy,
        now: float,
        wait_s: float,
    ) -> Found | None:
        """Return the response that may stand in for that to *request*; see ``ResponseCache``."""
        key = self._key(request, policy)
        if key is None:
            return None
        mine = self._checked(self.memory.get(key, now), request, now)
        if self._shared is None or (mine is not None and mine.is_fresh):
            return mine
        return _better(mine, self._checked(await self._shared.get(key, now, wait_s), request, now))


def _better(mine: Found | None, theirs: Found | None) -> Found | None:
    if mine is None or theirs is None:
        return theirs if mine is None else mine
    return min(mine, theirs, key=lambda found: found.resident_s)


def _mark(request: RequestFacts) -> int:
    digest = blake2b(digest_size=8)
    for host in values_of(request.headers, b"host"):
        digest.update(host.lower() + b"\n")
    digest.update(request.target)
    return int.from_bytes(digest.digest(), "big") % MARKS


_after_fork: weakref.WeakSet[_Shelf] = weakref.WeakSet()


def _begin_anew() -> None:
    # A thread of the parent may have held the lock, and the parent's requests are not the child's.
    for shelf in _after_fork:
        shelf._lock = threading.Lock()  # noqa: SLF001 - the same file
        shelf._refreshed = set()  # noqa: SLF001 - likewise


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
