"""Which full response may stand in for this request's, and what is worth keeping? Asked here.

First this process's own store is looked at, then the shared one if there is one. What goes in is
judged by ``storable`` and ``key``; what comes out is checked against the request once more.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import blake2b
from math import inf
from typing import Final, Protocol

from budgetware._core.policy import CachePolicy
from budgetware.answers.anonymity import names_caller, why_unshared
from budgetware.answers.facts import RequestFacts, ResponseFacts, end_to_end, values_of
from budgetware.answers.key import (
    MOST_VARIED,
    key_of,
    named_in,
    selecting,
    varied_on,
)
from budgetware.answers.memory import MemoryStore
from budgetware.answers.storable import (
    NotKept,
    declared_length,
    lifetime,
    may_be_answered,
    may_be_kept,
)
from budgetware.answers.stored import AsyncStore, Found, Store, Stored
from budgetware.answers.tee import MOST_BODY_BYTES, Tee
from budgetware.http import CLIENT_ERROR, SAFE_METHODS

MOST_REFRESHED: Final = 64
"""Stored responses that may be made anew at the same time."""

REFRESH_LEASE_S: Final = 10.0
"""Seconds after which a refresh that has not ended is taken for lost, and another may begin.

That one has twice as long, and so on: if all of them hang, each holds a slot as long as it does.
"""

MOST_WRITTEN: Final = 65_536
"""Addresses that were written to last and are remembered one by one."""

_BUCKETS: Final = 4096
"""Of older ones is remembered, for so many of them together, when the last was written to."""


class CacheListener(Protocol):
    """Hears what became of the cache's part in a request."""

    def __call__(
        self, route: str, tier: str | None, result: str, reason: str, detail: str, /
    ) -> object:
        """Take note.

        Args:
            route: The request's route.
            tier: Its tier.
            result: ``hit``, ``miss`` or ``not_kept``.
            reason: Why it was not kept, one of ``NotKept``; empty otherwise.
            detail: What in the request or the response says so; not from a closed set.

        """


def _tell_nobody(*_: object) -> None:
    pass


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


@dataclass(frozen=True, slots=True, eq=False)
class Refresh:
    """The right to make one stored response anew.

    Attributes:
        key: Under which it is kept.
        until: When the right is lost, in monotonic seconds.
        lease_s: For how long it was given.

    """

    key: bytes
    until: float
    lease_s: float = REFRESH_LEASE_S


class _Written:
    """When each address was last written to, at the latest.

    One that is forgotten, and all that share its bucket, count as written to at that moment.
    """

    def __init__(self) -> None:
        # Re-entrant: the garbage collector may finish an abandoned request of the same thread.
        self._lock = threading.RLock()
        self._at: OrderedDict[int, float] = OrderedDict()
        self._forgotten = [-inf] * _BUCKETS

    def note(self, mark: int, now: float) -> None:
        """Note that the address with *mark* was written to at *now*."""
        with self._lock:
            self._at[mark] = now
            self._at.move_to_end(mark)
            if len(self._at) > MOST_WRITTEN:
                forgotten, at = self._at.popitem(last=False)
                bucket = forgotten % _BUCKETS
                self._forgotten[bucket] = max(at, self._forgotten[bucket])

    def renew_lock(self) -> None:
        """Begin anew with the lock, in a child process: a thread of the parent may have held it."""
        self._lock = threading.RLock()

    def at(self, mark: int) -> float:
        """Return when the address with *mark* was last written to, at the latest."""
        return self._at.get(mark, self._forgotten[mark % _BUCKETS])


class _Shelf:
    """What both caches do alike: whatever needs no waiting."""

    def __init__(
        self,
        memory: MemoryStore | None,
        shared: Store | AsyncStore | None,
        most_body_bytes: int,
        told: CacheListener,
    ) -> None:
        self.memory = MemoryStore() if memory is None else memory
        self._keepers = (self.memory,) if shared is None else (self.memory, shared)
        self._most_body_bytes = most_body_bytes
        self._told = told
        self._lock = threading.Lock()
        self._varied: dict[str, frozenset[bytes]] = {}
        self._written = _Written()
        self._refreshed: dict[bytes, Refresh] = {}
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
        found = self._draft(request, policy, response)
        if isinstance(found, Draft):
            return found
        if request.method == "GET":
            self._told(request.route, request.tier, "not_kept", *found)
        return None

    def _draft(  # noqa: PLR0911 - one list of reasons, to be read from top to bottom
        self, request: RequestFacts, policy: CachePolicy, response: ResponseFacts
    ) -> Draft | tuple[str, str]:
        if not may_be_kept(request):
            return NotKept.REQUEST, ""
        lasts = lifetime(response, policy)
        if lasts is None:
            return NotKept.RESPONSE, ""
        names = varied_on(response)
        if names is None:
            return NotKept.VARIES, ""
        unshared = why_unshared(request, policy, named_in(policy) | names)
        if unshared is not None:
            return unshared
        if request.identity is None and (by := names_caller(names)):
            return NotKept.VARIES_BY_CALLER, by
        tee = Tee(declared_length(response.headers), self._most_body_bytes)
        if not tee.collecting:
            return NotKept.TOO_LONG, ""
        if not self._learn(request.route, names):
            return NotKept.VARIES, ""
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
        if request.method in SAFE_METHODS or status >= CLIENT_ERROR:
            return
        self._written.note(_mark(request), now)

    def begin_refresh(
        self, request: RequestFacts, policy: CachePolicy, spend: Callable[[], bool], now: float
    ) -> Refresh | None:
        """Return the right to make the stored response to *request* anew, if it is to be had.

        One request at a time has it for each stored response; the others leave it at that one.
        Whoever got it gives it back with ``end_refresh``, whatever came of it.

        Args:
            request: The request, which was answered from the cache.
            policy: Its route's.
            spend: Tells whether such work may be done now; asked last.
            now: Monotonic seconds.

        """
        key = self._key(request, policy)
        if key is None:
            return None
        with self._lock:
            under_way = self._refreshed
            lost = under_way.get(key)
            if lost is not None and lost.until > now:
                return None
            if lost is None and len(under_way) >= MOST_REFRESHED:
                for one in [one for one in under_way.values() if one.until <= now]:
                    del under_way[one.key]
            if len(under_way) - (lost is not None) >= MOST_REFRESHED or not spend():
                return None
            lease_s = REFRESH_LEASE_S if lost is None else 2 * lost.lease_s
            refresh = under_way[key] = Refresh(key, now + lease_s, lease_s)
        return refresh

    def end_refresh(self, refresh: Refresh) -> None:
        """Let another request make the response anew."""
        with self._lock:
            if self._refreshed.get(refresh.key) is refresh:
                del self._refreshed[refresh.key]

    def _key(self, request: RequestFacts, policy: CachePolicy) -> bytes | None:
        if not may_be_answered(request):
            return None
        varied = self._varied.get(request.route, frozenset())
        if why_unshared(request, policy, named_in(policy) | varied) is not None:
            return None
        return key_of(request, policy, varied)

    def _served(self, found: Found | None, request: RequestFacts) -> Found | None:
        """Return *found*, having told of it."""
        self._told(request.route, request.tier, "miss" if found is None else "hit", "", "")
        return found

    def _checked(self, found: Found | None, request: RequestFacts, now: float) -> Found | None:
        if found is None or not found.is_usable:
            return None
        stored = found.stored
        varied = varied_on(ResponseFacts(stored.status, stored.headers))
        if varied is None or stored.selecting != selecting(request, varied):
            return None
        if request.identity is None and names_caller(varied):
            return None
        return None if now - found.resident_s <= self._written.at(_mark(request)) else found

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
        told: Hears of what is found, and of what is not kept.

    """

    def __init__(
        self,
        memory: MemoryStore | None = None,
        shared: Store | None = None,
        *,
        most_body_bytes: int = MOST_BODY_BYTES,
        told: CacheListener = _tell_nobody,
    ) -> None:
        super().__init__(memory, shared, most_body_bytes, told)
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
            return self._served(None, request)
        found = self._checked(self.memory.get(key, now), request, now)
        if self._shared is not None and not (found is not None and found.is_fresh):
            theirs = self._shared.get(key, now, wait_s)
            found = _better(found, self._checked(theirs, request, now))
        return self._served(found, request)


class AsyncResponseCache(_Shelf):
    """Keeps and finds full responses for tasks.

    Args:
        memory: This process's own store.
        shared: One that several processes use, if any.
        most_body_bytes: A longer body is not kept.
        told: Hears of what is found, and of what is not kept.

    """

    def __init__(
        self,
        memory: MemoryStore | None = None,
        shared: AsyncStore | None = None,
        *,
        most_body_bytes: int = MOST_BODY_BYTES,
        told: CacheListener = _tell_nobody,
    ) -> None:
        super().__init__(memory, shared, most_body_bytes, told)
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
            return self._served(None, request)
        found = self._checked(self.memory.get(key, now), request, now)
        if self._shared is not None and not (found is not None and found.is_fresh):
            theirs = await self._shared.get(key, now, wait_s)
            found = _better(found, self._checked(theirs, request, now))
        return self._served(found, request)


def _better(mine: Found | None, theirs: Found | None) -> Found | None:
    if mine is None or theirs is None:
        return theirs if mine is None else mine
    return min(mine, theirs, key=lambda found: found.resident_s)


def _mark(request: RequestFacts) -> int:
    digest = blake2b(digest_size=8)
    for host in values_of(request.headers, b"host"):
        digest.update(host.lower() + b"\n")
    digest.update(request.root + b"\n" + request.target)
    return int.from_bytes(digest.digest(), "big")


_after_fork: weakref.WeakSet[_Shelf] = weakref.WeakSet()


def _begin_anew() -> None:
    # A thread of the parent may have held the lock, and the parent's requests are not the child's.
    for shelf in _after_fork:
        shelf._lock = threading.Lock()  # noqa: SLF001 - the same file
        shelf._refreshed = {}  # noqa: SLF001 - likewise
        shelf._written.renew_lock()  # noqa: SLF001 - likewise


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
