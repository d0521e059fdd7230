"""May it start now, must it wait, or not at all? Nothing waits here: the doors do.

A process runs so many requests at once. A tier's *share* of them is its own; what no share
claims is common, and every tier may take from it. A slot that is freed goes to a tier that has
less than its share, then to the highest tier that waits. The order of tiers is that of the policy
file: the first, which is that of unknown callers, is the lowest, and each is above those before
it. A tier without a share is guaranteed nothing, and gets what the tiers above it leave.

Waiting follows two findings of Maurer, "Fail at Scale" (ACM Queue 13(8), 2015). A queue served
oldest first under overload serves only requests whose time is nearly used up, so a tier's queue
turns to newest first once a waiter's time ran out or no room was left, and back when it is empty.
And a wait has an end: a waiter whose time is up is dropped before it runs. Queues are bounded and
each tier has its own, so no tier's waiters take up another's room.

A request that waits for its client, which does not send or does not read, is idle. Its slot is
lent to whoever finds no room, and taken back when it goes on, over the limit if need be: nobody is
turned away half way, and clients that only hold a connection open keep nobody out.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from math import inf
from typing import Final

from budgetware._core.policy import Policy
from budgetware._core.ticket import State, Ticket, TierSlots

EXEMPT_PATHS: Final = frozenset({"/healthz", "/livez", "/readyz", "/metrics"})
"""Asked by those who restart a service that does not answer, and so never refused."""

LONGEST_WAIT_S: Final = 86_400.0
"""Waits are clamped to a day, which every timer takes."""

LENT_AFTER_S: Final = 0.05
"""Slots are not lent sooner: most bodies arrive within this time, and if every one on its way made
room for another request there would be no limit to those that run."""

_LEAST_WAITING = 16


def is_exempt(
    method: str, path: str, root: str | None = None, paths: Collection[str] = EXEMPT_PATHS
) -> bool:
    """Tell whether a request is let through unasked: a health check, or a preflight ``OPTIONS``.

    Browsers send that in front of the real request, and give that up if it is refused. Nothing is
    decided on such a request either.

    Args:
        method: The HTTP method.
        path: The decoded path, with or without *root*.
        root: Where the application is mounted.
        paths: Those of health checks, below the root as well.

    """
    if method == "OPTIONS" or path.removesuffix("/") in paths:
        return True
    if not root or not path.startswith(root):
        return False
    return path[len(root) :].removesuffix("/") in paths


def wait_allowed_s(queue_s: float | None, remaining_s: float) -> float:
    """Return how long a request may wait: its tier's ``queue``, at most half of what it has left.

    Half, because a request that starts with less has mostly waited for nothing. Without ``queue``
    nothing waits; what is not a number is 0.
    """
    if queue_s is None or not (queue_s > 0 and remaining_s > 0):
        return 0.0
    return min(queue_s, remaining_s / 2, LONGEST_WAIT_S)


def precedence(policy: Policy) -> tuple[str | None, ...]:
    """Return the policy's tiers, highest first: the reverse of their order in the file."""
    return tuple(reversed(tuple(policy.tiers))) or (None,)


def shares_of(policy: Policy) -> dict[str, float]:
    """Return the share of each tier that has one."""
    return {name: tier.share for name, tier in policy.tiers.items() if tier.share is not None}


class Admission:
    """The slots of one process; safe to use from many threads.

    ``leave`` may be called from anywhere, a finalizer or a signal handler included, and never
    blocks: whoever is busy with the slots at that moment finishes it.

    Args:
        concurrency: Requests that run at once, at least 1.
        shares: Guaranteed shares by tier, from 0 to 1 and not over 1 together. A share above 0 is
            at least one slot as long as there are any; the nearest whole number otherwise.
        order: All tiers, highest first. An unknown tier is the last of them.
        lend: How much of a tier's idle share others may take, from 0 to 1. At 0 it is always
            there; at 1 its owner is only the first to get what is freed.
        most_waiting: Waiters per tier; four times *concurrency* and at least 16 unless given.

    Raises:
        ValueError: A number is out of its range, or *order* is empty.

    Attributes:
        faults: How many wake-up calls failed; what they were for was given to somebody else.

    """

    def __init__(
        self,
        concurrency: int,
        shares: Mapping[str, float],
        order: Sequence[str | None],
        *,
        lend: float = 0.0,
        most_waiting: int | None = None,
    ) -> None:
        if not 0 <= lend <= 1:
            raise ValueError(f"between nothing and all can be lent, not {lend}")
        self.faults = 0
        self._lend = lend
        self._wanted_waiting = most_waiting
        self._epoch = 0
        self._tiers: dict[str | None, TierSlots] = {}
        self._places: dict[str | None, TierSlots] = {}
        self._order: list[TierSlots] = []
        self._now_s = -inf
        self._begin()
        self.reshape(concurrency, shares, order)
        _after_fork.add(self)

    def _begin(self) -> None:
        # Not re-entrant: ``leave`` must notice that its own thread is in the middle of something.
        self._lock = threading.Lock()
        self._left: deque[Ticket] = deque()
        self._resumed: deque[Ticket] = deque()
        self._idle: dict[Ticket, float] = {}
        self._in_use = 0
        self._kept = 0

    @property
    def in_flight(self) -> int:
        """How many slots are taken."""
        self._settle()
        return self._in_use

    def load(self) -> dict[str | None, tuple[int, int]]:
        """Return slots taken and requests waiting, by tier."""
        self._settle()
        with self._lock:
            found = {name: (one.in_use, len(one.waiting)) for name, one in self._tiers.items()}
        self._settle()
        return found

    def reshape(
        self,
        concurrency: int,
        shares: Mapping[str, float],
        order: Sequence[str | None],
    ) -> None:
        """Change the limits under what is running, as after a reload; nothing is interrupted.

        Waiters of a tier that is gone are refused.

        Raises:
            ValueError: As for the class; nothing is changed then.

        """
        if concurrency < 1 or not order:
            raise ValueError(f"there must be a slot and a tier, not {concurrency} and {order!r}")
        if not all(share >= 0 for share in shares.values()) or sum(shares.values()) > 1 + 1e-9:
            raise ValueError(f"shares are at least 0 and at most 1 together, not {dict(shares)}")
        told: list[Ticket] = []
        with self._lock:
            self._concurrency = concurrency
            self._most_waiting = (
                max(_LEAST_WAITING, 4 * concurrency)
                if self._wanted_waiting is None
                else self._wanted_waiting
            )
            # A tier that is gone keeps its count: what runs of it is still to leave.
            self._places = {name: self._tiers.setdefault(name, TierSlots()) for name in order}
            gone = {name: one for name, one in self._tiers.items() if name not in self._places}
            self._order = list(self._places.values())
            unclaimed = concurrency
            for name, tier in (*self._places.items(), *gone.items()):
                share = 0.0 if name is None or name in gone else shares.get(name, 0.0)
                wanted = max(1, int(share * concurrency + 0.5)) if share > 0 else 0
                tier.guaranteed = min(wanted, unclaimed)
                unclaimed -= tier.guaranteed
                self._count(tier, 0)
                while name in gone and tier.waiting:
                    self._drop(tier.waiting.popitem()[0], State.REFUSED, told)
            self._dispatch(told)
        self._tell(told)
        self._settle()

    def enter(
        self,
        tier: str | None,
        now_s: float,
        wait_s: float = 0.0,
        wake: Callable[[], object] | None = None,
    ) -> Ticket:
        """Return a ticket: admitted, queued, or refused.

        Ask without *wait_s* first, and prepare something to wait on only if that is refused.

        Args:
            tier: The request's tier.
            now_s: Monotonic seconds; all calls are to use the same clock.
            wait_s: How long it may be queued, as from ``wait_allowed_s``.
            wake: Called once, from any thread and holding no lock, when a queued ticket is
                admitted, refused or expired. It must not block. Should it raise, the ticket
                is left for it.

        """
        told: list[Ticket] = []
        with self._lock:
            if self._left:
                self._now_s = max(self._now_s, now_s)
                self._catch_up(told)
            place = self._places.get(tier)
            if place is None:
                place = self._order[-1]
            if self._idle and not self._has_room(place):
                self._now_s = max(self._now_s, now_s)
                self._free_idle(now_s)
                self._dispatch(told)
            if self._has_room(place):
                ticket = Ticket(place, self._epoch, State.ADMITTED)
                self._count(place, 1)
            elif wait_s > 0:
                ticket = self._queue(place, now_s, wait_s, wake, told)
            else:
                ticket = Ticket(place, self._epoch, State.REFUSED)
        if told or self._left:
            self._tell(told)
            self._settle()
        return ticket

    def give_up(self, ticket: Ticket, now_s: float = -inf) -> bool:
        """End the wait of *ticket*, whose time is up; tell whether it was admitted after all.

        If so it holds a slot and is to run, or to be left. A slot that is idle by *now_s* will do.
        """
        with self._lock:
            if ticket.state is State.QUEUED and ticket.epoch == self._epoch:
                tier = ticket.tier
                del tier.waiting[ticket]
                ticket.wake = None
                self._free_idle(now_s)
                if self._has_room(tier):
                    ticket.waited_s = max(0.0, now_s - ticket.entered_s)
                    ticket.state = State.ADMITTED
                    self._count(tier, 1)
                else:
                    ticket.state = State.EXPIRED
                    tier.newest_first = bool(tier.waiting)
        self._settle()
        return ticket.state is State.ADMITTED

    def lend_idle(self, now_s: float) -> None:
        """Give slots that are idle by *now_s* to those that wait, who ask for it now and then."""
        if self._idle:
            told: list[Ticket] = []
            with self._lock:
                self._now_s = max(self._now_s, now_s)
                self._free_idle(now_s)
                self._dispatch(told)
            self._tell(told)
            self._settle()

    def idle(self, ticket: Ticket, now_s: float) -> None:
        """Note that the request of *ticket* waits for its client, until ``resume``."""
        if ticket.state is State.ADMITTED and ticket.holders == 1 and not ticket.lent:
            self._idle.setdefault(ticket, now_s)

    def resume(self, ticket: Ticket) -> None:
        """Note that the request of *ticket* goes on; its slot is taken back if it was lent."""
        if self._idle.pop(ticket, None) is None and ticket.lent:
            self._resumed.append(ticket)
            self._settle()

    def join(self, ticket: Ticket) -> Ticket:
        """Return another ticket for the slot of *ticket*, which is free when both have left.

        For work that may outlive its request, such as a thread nobody can stop. If *ticket*
        holds no slot, neither does the other; it can be left all the same.
        """
        told: list[Ticket] = []
        with self._lock:
            self._catch_up(told)
            other = Ticket(ticket.tier, ticket.epoch, State.LEFT)
            if ticket.state is State.ADMITTED:
                other.state = State.ADMITTED
                other.slot = ticket.slot or ticket
                other.slot.holders += 1
                self._take_back(other.slot)
        self._tell(told)
        self._settle()
        return other

    def leave(self, ticket: Ticket, now_s: float) -> None:
        """End *ticket*, whatever its state; a slot that is freed by it goes to whoever is next.

        Leaving twice is leaving once. What it makes room for is told through ``wake``.
        """
        self._now_s = max(self._now_s, now_s)
        self._left.append(ticket)
        self._settle()

    def _settle(self) -> None:
        """Free what was left, unless somebody is at it, who then looks again before going."""
        while (self._left or self._resumed) and self._lock.acquire(blocking=False):
            told: list[Ticket] = []
            try:
                self._catch_up(told)
            finally:
                self._lock.release()
            self._tell(told)

    def _tell(self, told: list[Ticket]) -> None:
        for ticket in told:
            wake, ticket.wake = ticket.wake, None
            if wake is None:
                continue
            try:
                wake()
            except Exception:  # noqa: BLE001 - a closed event loop, say; its slot must not be lost
                self.faults += 1
                self._left.append(ticket)

    # What follows is called with the lock held.

    def _has_room(self, tier: TierSlots) -> bool:
        free = self._concurrency - self._in_use
        return free > (0 if tier.in_use < tier.guaranteed else self._kept)

    def _count(self, tier: TierSlots, change: int) -> None:
        """Change the number of *tier*'s slots in use, and with it what is kept for it."""
        self._in_use += change
        tier.in_use += change
        idle = tier.guaranteed - tier.in_use
        kept = idle - int(idle * self._lend) if idle > 0 else 0
        self._kept += kept - tier.kept
        tier.kept = kept

    def _queue(
        self,
        tier: TierSlots,
        now_s: float,
        wait_s: float,
        wake: Callable[[], object] | None,
        told: list[Ticket],
    ) -> Ticket:
        ticket = Ticket(tier, self._epoch, State.QUEUED)
        self._now_s = max(self._now_s, now_s)
        # Those at the two ends only: going through all of them would make refusing expensive.
        for newest in (False, True):
            while len(tier.waiting) >= self._most_waiting and tier.waiting:
                last = next(reversed(tier.waiting)) if newest else next(iter(tier.waiting))
                if last.expires_s > self._now_s:
                    break
                del tier.waiting[last]
                self._drop(last, State.EXPIRED, told)
        if len(tier.waiting) >= self._most_waiting:
            tier.newest_first = bool(tier.waiting)
            ticket.state = State.REFUSED
            return ticket
        ticket.entered_s = now_s
        ticket.expires_s = now_s + min(wait_s, LONGEST_WAIT_S)
        ticket.wake = wake
        tier.waiting[ticket] = None
        return ticket

    def _drop(self, ticket: Ticket, state: State, told: list[Ticket]) -> None:
        ticket.state = state
        told.append(ticket)

    def _catch_up(self, told: list[Ticket]) -> None:
        """Free what was left, and give it to whoever is next."""
        while self._resumed:
            self._take_back(self._resumed.popleft())
        while self._left:
            self._end(self._left.popleft())
        self._dispatch(told)

    def _free_idle(self, now_s: float) -> None:
        """Free the slots that have been idle for long enough."""
        for ticket, since_s in tuple(self._idle.items()):
            if since_s > now_s - LENT_AFTER_S:
                break
            # Before it is taken out, so that who resumes it meanwhile and misses it knows why.
            ticket.lent = True
            if self._idle.pop(ticket, None) is None:
                ticket.lent = False
            else:
                self._count(ticket.tier, -1)

    def _take_back(self, ticket: Ticket) -> None:
        self._idle.pop(ticket, None)
        if ticket.lent and ticket.epoch == self._epoch:
            ticket.lent = False
            self._count(ticket.tier, 1)

    def _end(self, ticket: Ticket) -> None:
        state, ticket.state = ticket.state, State.LEFT
        ticket.wake = None
        if ticket.epoch != self._epoch:
            return
        tier = ticket.tier
        if state is State.QUEUED:
            del tier.waiting[ticket]
            tier.newest_first = tier.newest_first and bool(tier.waiting)
        elif state is State.ADMITTED:
            slot = ticket.slot or ticket
            slot.holders -= 1
            if not slot.holders:
                self._take_back(slot)
                self._count(tier, -1)

    def _dispatch(self, told: list[Ticket]) -> None:
        for within_share in (True, False):
            for tier in self._order:
                while tier.waiting and self._has_room(tier):
                    if within_share and tier.in_use >= tier.guaranteed:
                        break
                    self._admit_next(tier, told)

    def _admit_next(self, tier: TierSlots, told: list[Ticket]) -> None:
        """Admit a waiter of *tier*, or drop one whose time is up."""
        ticket, _ = tier.waiting.popitem(last=tier.newest_first)
        expired = ticket.expires_s <= self._now_s
        if not expired:
            ticket.waited_s = max(0.0, self._now_s - ticket.entered_s)
            self._count(tier, 1)
        self._drop(ticket, State.EXPIRED if expired else State.ADMITTED, told)
        tier.newest_first = bool(tier.waiting) and (expired or tier.newest_first)

    def _forked(self) -> None:
        """Begin anew in a child process: what the parent runs, and who waits, stays there."""
        self._epoch += 1
        self._begin()
        for tier in self._tiers.values():
            tier.in_use = tier.kept = 0
            tier.waiting = OrderedDict()
            tier.newest_first = False
            self._count(tier, 0)


_after_fork: weakref.WeakSet[Admission] = weakref.WeakSet()


def _renew() -> None:
    for admission in _after_fork:
        admission._forked()  # noqa: SLF001 - this file's own


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
