"""What is a request asked at the entrance, and what became of it? Both doors read it here.

A policy's rates and its concurrency in one place that outlives a reload. A ``Visit`` is one
request's: it holds the request's ticket, and whoever began it ends it with ``leave``. The door does
the waiting, and the answering of those that are turned away.

Lanes that observe are not asked. Those in shadow are asked on a ledger of their own: what they
would have been told is counted, takes no slot from anybody, and lets everybody in.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from copy import copy
from enum import StrEnum
from typing import Final, NamedTuple

from budgetware._core.admit import (
    Admission,
    is_exempt,
    precedence,
    shares_of,
    wait_allowed_s,
)
from budgetware._core.policy import Mode, Plan, Policy
from budgetware._core.rate import Rates, burst_of
from budgetware._core.ticket import State, Ticket

_UNLIMITED: Final = 1 << 40
"""Slots once a reload has taken the limit away: whoever still waits comes in."""


class Passage(StrEnum):
    """What is counted at the entrance: everything but being let in at once.

    ``queued`` is counted when the wait begins, and one of the first three others when it ends;
    a caller that leaves the queue by itself is only ``queued``.
    """

    ADMITTED = "admitted"
    REFUSED = "refused"
    EXPIRED = "expired"
    QUEUED = "queued"
    RATE = "rate"


Told = Callable[[str | None, Mode, Passage], None]
"""Hears of everything that is counted: the tier, the mode, and what it was."""


class Rule(NamedTuple):
    """What one tier is asked.

    Attributes:
        rate_per_s: Requests per second of one caller, ``None`` without a limit.
        burst: How many of them may come at once.
        queue_s: The longest wait for a slot, ``None`` for none.
        limited: Whether there is a limit to the requests that run at once.

    """

    rate_per_s: float | None
    burst: float
    queue_s: float | None
    limited: bool


def rules_of(policy: Policy) -> dict[str | None, Rule]:
    """Return the rules of the tiers that are asked anything; ``None`` where there are no tiers."""
    limited = policy.concurrency is not None
    rules: dict[str | None, Rule] = {
        name: Rule(tier.rate, burst_of(tier.rate or 0.0), tier.queue, limited)
        for name, tier in policy.tiers.items()
        if limited or tier.rate is not None
    }
    if limited and not policy.tiers:
        rules[None] = Rule(None, 1.0, None, limited)
    return rules


def is_asked(plan: Plan, rules: Mapping[str | None, Rule]) -> bool:
    """Tell whether requests under *plan* are asked anything by *rules*."""
    return plan.mode is not Mode.OBSERVE and plan.tier in rules


class Entrance:
    """The limits of one process, under one policy at a time.

    Args:
        clock: Monotonic seconds.
        told: See ``Told``.

    Attributes:
        rates: What callers have used of their rates, as this process knows it.
        shadow_rates: The same for lanes in shadow.
        enforced: The slots, ``None`` as long as no policy has limited them.
        shadow: The ledger of lanes in shadow.

    """

    def __init__(self, clock: Callable[[], float], told: Told) -> None:
        self.clock = clock
        self.told = told
        self.rates = Rates()
        self.shadow_rates = Rates()
        self.enforced: Admission | None = None
        self.shadow: Admission | None = None
        self._rules: dict[str | None, Rule] = {}

    def adopt(self, policy: Policy) -> None:
        """Put the limits of *policy* in force; what runs and what waits is not interrupted.

        Raises:
            ValueError: There is no slot, or shares are more than there is; nothing changes then.

        """
        rules = rules_of(policy)
        if policy.concurrency is not None:
            limits = policy.concurrency, shares_of(policy), precedence(policy)
            self.enforced = _reshaped(self.enforced, *limits)
            self.shadow = _reshaped(self.shadow, *limits)
        else:
            for admission in (self.enforced, self.shadow):
                if admission is not None:
                    admission.reshape(_UNLIMITED, {}, precedence(policy))
        self._rules = rules

    def visit(self, plan: Plan, method: str, path: str, root: str | None = None) -> Visit | None:
        """Return the visit of a request under *plan*; ``None`` if it is let in unasked.

        Args:
            plan: What is promised.
            method: The HTTP method.
            path: The decoded path, with or without *root*.
            root: Where the application is mounted.

        """
        rule = self._rules.get(plan.tier)
        if rule is None or plan.mode is Mode.OBSERVE or is_exempt(method, path, root):
            return None
        return Visit(self, plan, rule)


class Visit:
    """One request at the entrance, and the slot it holds until ``leave``.

    A visit that nobody ends, as when a server forgets to close a body, ends when it is collected.

    Attributes:
        acts: Whether what is found has consequences.
        rule: What is asked.
        tier: The request's tier.
        waited: Whether it was queued.
        wait_s: How long it may be queued; known once ``enter`` was asked.

    """

    __slots__ = ("_admission", "_entrance", "_mode", "_ticket", "acts", "rule", "tier", "wait_s",
                 "waited")  # fmt: skip

    def __init__(self, entrance: Entrance, plan: Plan, rule: Rule) -> None:
        self._entrance = entrance
        self._mode = plan.mode
        self._ticket: Ticket | None = None
        self.acts = plan.mode is Mode.ENFORCE
        self._admission = entrance.enforced if self.acts else entrance.shadow
        self.rule = rule
        self.tier = plan.tier
        self.wait_s = 0.0
        self.waited = False

    def __del__(self) -> None:
        with suppress(Exception):  # it may never have been made whole
            if self._ticket is not None:
                self.leave()

    def take(self, identity: Hashable, now_s: float) -> float:
        """Return 0, or the seconds until this process would admit the caller; see ``Rates.take``.

        Args:
            identity: Whoever the service says it is, ``None`` for all whom nobody knows.
            now_s: Monotonic seconds.

        """
        rate_per_s = self.rule.rate_per_s
        if rate_per_s is None:
            return 0.0
        rates = self._entrance.rates if self.acts else self._entrance.shadow_rates
        return rates.take(self.tier, identity, rate_per_s, self.rule.burst, now_s)

    def over_rate(self, wait_s: float) -> bool:
        """Tell whether a caller that should come back in *wait_s* seconds is to be told so."""
        if not wait_s > 0:
            return False
        self._tell(Passage.RATE)
        return self.acts

    def enter(self, now_s: float, remaining_s: float) -> bool:
        """Take a slot if there is one; tell whether the request may run.

        If it may not, it has ``wait_s`` to wait in the ``queue``.

        Args:
            now_s: Monotonic seconds.
            remaining_s: What the request has left.

        """
        admission = self._admission
        if admission is None or not self.rule.limited:
            return True
        self._ticket = admission.enter(self.tier, now_s)
        if self._ticket.admitted:
            return True
        self.wait_s = wait_allowed_s(self.rule.queue_s, remaining_s)
        if not self.acts:
            self._tell(Passage.QUEUED if self.wait_s > 0 else Passage.REFUSED)
        return not self.acts

    def refuse(self) -> None:
        """Count a request that does not even wait."""
        self._tell(Passage.REFUSED)

    def queue(self, now_s: float, wake: Callable[[], object]) -> bool:
        """Join the queue; tell whether there is something to wait for. ``settle`` is to follow.

        Args:
            now_s: Monotonic seconds.
            wake: Called once, from any thread, when the wait is over. It must not block.

        """
        admission = self._admission
        if admission is None:
            return False
        self._ticket = admission.enter(self.tier, now_s, self.wait_s, wake)
        self.waited = self._ticket.state is not State.REFUSED
        if self.waited:
            self._tell(Passage.QUEUED)
        return self._ticket.state is State.QUEUED

    def lend_idle(self) -> None:
        """Have idle slots lent to those in the queue; to be called every ``LENT_AFTER_S`` there."""
        if self._admission is not None:
            self._admission.lend_idle(self._now_s())

    def settle(self) -> bool:
        """End the wait; tell whether the request may run."""
        admission, ticket = self._admission, self._ticket
        if admission is None or ticket is None:
            return True
        admitted = admission.give_up(ticket, self._now_s())
        expired = ticket.state is State.EXPIRED
        self._tell(
            Passage.ADMITTED if admitted else Passage.EXPIRED if expired else Passage.REFUSED
        )
        return admitted

    def idle(self) -> None:
        """Note that the request waits for its client; its slot may be lent until ``resume``."""
        admission, ticket = self._admission, self._ticket
        if admission is not None and ticket is not None:
            admission.idle(ticket, self._now_s())

    def resume(self) -> None:
        """Note that the request goes on."""
        admission, ticket = self._admission, self._ticket
        if admission is not None and ticket is not None:
            admission.resume(ticket)

    def share(self) -> Visit | None:
        """Return another visit with the same slot, which is free when both have been left.

        ``None`` if this one holds none: it was let in unasked, turned away, or is over.
        """
        admission, ticket = self._admission, self._ticket
        if admission is None or ticket is None or not ticket.admitted:
            return None
        joined = admission.join(ticket)
        other = copy(self)
        other._ticket = joined  # noqa: SLF001 - another one of these
        return other

    def leave(self) -> None:
        """Give back what the request holds; twice is once."""
        ticket, self._ticket = self._ticket, None
        if ticket is not None and self._admission is not None:
            self._admission.leave(ticket, self._now_s())

    def _now_s(self) -> float:
        try:
            return self._entrance.clock()
        except Exception:  # noqa: BLE001 - a slot must not be lost to a broken clock
            return 0.0  # time does not go backwards for those who wait

    def _tell(self, passage: Passage) -> None:
        self._entrance.told(self.tier, self._mode, passage)


def _reshaped(
    admission: Admission | None,
    concurrency: int,
    shares: dict[str, float],
    order: tuple[str | None, ...],
) -> Admission:
    if admission is None:
        return Admission(concurrency, shares, order)
    admission.reshape(concurrency, shares, order)
    return admission
