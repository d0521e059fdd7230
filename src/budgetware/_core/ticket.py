"""Where does one request stand? The ticket it holds, and the slots and the queue of its tier."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from enum import StrEnum
from math import inf


class State(StrEnum):
    """Where a ticket stands; only ``admitted`` may run."""

    ADMITTED = "admitted"
    QUEUED = "queued"
    REFUSED = "refused"
    EXPIRED = "expired"
    LEFT = "left"


class TierSlots:
    """One tier's slots and its queue.

    Attributes:
        guaranteed: Slots that are its share.
        in_use: Slots it has taken.
        kept: Free slots that no other tier may take.
        waiting: Its queue, oldest first.
        newest_first: Whether the newest is to be served first.

    """

    __slots__ = ("guaranteed", "in_use", "kept", "newest_first", "waiting")

    def __init__(self) -> None:
        self.guaranteed = 0
        self.in_use = 0
        self.kept = 0
        self.waiting: OrderedDict[Ticket, None] = OrderedDict()
        self.newest_first = False


class Ticket:
    """One request's place, from ``Admission.enter`` until ``Admission.leave``.

    Attributes:
        state: Where it stands now.
        waited_s: Seconds it was queued before it was admitted.
        tier: Its tier's slots.
        epoch: Which process's it is, counted in forks.
        slot: The ticket whose slot it shares, ``None`` when it has its own.
        holders: How many tickets share its slot.
        lent: Whether its slot was given to others while its request waits for its client.
        entered_s: When it was queued.
        expires_s: Until when it may wait.
        wake: What to call when its wait is over.

    """

    __slots__ = (
        "entered_s", "epoch", "expires_s", "holders", "lent", "slot", "state", "tier", "waited_s",
        "wake",
    )  # fmt: skip

    def __init__(self, tier: TierSlots, epoch: int, state: State) -> None:
        self.state = state
        self.waited_s = 0.0
        self.tier = tier
        self.epoch = epoch
        self.slot: Ticket | None = None
        self.holders = 1
        self.lent = False
        self.entered_s = 0.0
        self.expires_s = inf
        self.wake: Callable[[], object] | None = None

    @property
    def admitted(self) -> bool:
        """Whether it holds a slot."""
        return self.state is State.ADMITTED
