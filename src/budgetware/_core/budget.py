"""One request's account: when it began, when it must end, which stages it opened.

A budget belongs to its request alone but may be used from many tasks and threads at once, so it
is only ever appended to or replaced whole. Finished, it is inert: it keeps its figures and takes
no more stages.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from math import inf
from typing import Final

from budgetware._core.lane import Lane
from budgetware._core.policy import OTHER
from budgetware._core.record import Interval, Key, Share, settle
from budgetware._core.stage import Clock, Stage

MOST_STAGES: Final = 256
"""Openings one request keeps one by one; older ones are then settled into totals."""

MOST_NAMES: Final = 64
"""Distinct stage names one request's settled totals keep; the rest are ``_OTHER``."""

_settling = threading.RLock()

INERT: Final[deque[Stage]] = deque(maxlen=0)
"""The openings of a budget that has ended: takes whatever is appended and keeps nothing."""


class Settled:
    """What was already accounted for when a request had too many stages to keep them all."""

    __slots__ = ("calls", "shares", "since")

    def __init__(self, since: float) -> None:
        self.since = since
        self.shares: dict[Key, Share] = {}
        self.calls: dict[Key, int] = {}

    def key(self, key: Key) -> Key:
        """Return *key*, or that of ``_OTHER`` once there are too many names."""
        if key in self.shares or len(self.shares) < MOST_NAMES:
            return key
        return (OTHER, None)

    def add(self, key: Key, share: Share, calls: int) -> None:
        """Add *share* and *calls* to what *key* had."""
        key = self.key(key)
        had = self.shares.get(key, Share(0.0, 0.0))
        self.shares[key] = Share(had.spent + share.spent, had.exclusive + share.exclusive)
        self.calls[key] = self.calls.get(key, 0) + calls


class Budget:
    """The account of one request or job.

    Attributes:
        lane: What is promised and where the totals go.
        clock: The monotonic clock it is timed by, in seconds.
        opens: The class of its stages.
        start: When it began, on the lane's clock.
        stages: Every opening so far.
        room: How many openings fit before the older ones are settled.
        settled: What was settled, ``None`` as long as all openings are kept.
        end: When it ended, ``None`` while it is open.
        first_byte_at: When the response's first byte was sent, if that was not the last one.
        trailers: Whether the response ends with trailers and not with its body.

    These are unset until there is something to say:
        untold: The openings of an ended budget that somebody has still to be told of.
        notable: Whether anything may have gone over a rung; set together with ``untold``.
        status: The response's status code.
        error: The exception type that left the application.
        failed: That the request was counted as failed.
        waited_s: Seconds the client kept the application waiting.

    """

    __slots__ = (
        "__weakref__",
        "clock",
        "end",
        "error",
        "failed",
        "first_byte_at",
        "lane",
        "notable",
        "opens",
        "room",
        "settled",
        "stages",
        "start",
        "status",
        "trailers",
        "untold",
        "waited_s",
    )

    lane: Lane
    clock: Clock
    opens: type[Stage]
    start: float
    stages: list[Stage] | deque[Stage]
    room: int
    settled: Settled | None
    end: float | None
    first_byte_at: float | None
    trailers: bool
    untold: Sequence[Stage]
    notable: bool
    status: int
    error: type[BaseException]
    failed: bool
    waited_s: float

    @property
    def deadline(self) -> float:
        """When it must end; ``inf`` without a limit."""
        return self.start + self.lane.limit_s

    def remaining(self) -> float:
        """Return the seconds left, negative when overdrawn; fixed once the budget has ended."""
        return self.deadline - (self.clock() if self.end is None else self.end)

    def elapsed(self) -> float:
        """Return the seconds used, waits for the client left out; fixed once ended."""
        return (self.clock() if self.end is None else self.end) - self.start

    def pool(self) -> float:
        """Return the seconds nobody has a claim on: what is left beyond reserve and claims.

        Stages that must still run claim their allocations; an opened stage claims what it has
        not used yet. An optional stage claims nothing until it is opened.
        """
        plan = self.lane.plan
        if plan.limit_s == inf:
            return inf
        now = self.clock() if self.end is None else self.end
        spent: dict[str, float] = {}
        if self.settled is not None:
            spent = {name: share.spent for (name, _), share in self.settled.shares.items()}
        for stage in list(self.stages):
            if stage.start is not None:
                end = getattr(stage, "end", now)
                spent[stage.name] = spent.get(stage.name, 0.0) + end - stage.start
        claims = sum(
            max(0.0, stage.limit_s - spent.get(name, 0.0))
            for name, stage in plan.stages.items()
            if stage.limit_s < inf and (name in spent or not stage.optional)
        )
        return self.deadline - now - plan.reserve_s - claims

    def pause(self, waited_s: float) -> None:
        """Leave out *waited_s* seconds that have just been spent waiting for the client.

        Everything noted so far moves forward by the wait, as if the clock had stood still.
        """
        if self.end is not None or waited_s <= 0:
            return
        self.waited_s = getattr(self, "waited_s", 0.0) + waited_s
        self.start += waited_s
        if self.first_byte_at is not None:
            self.first_byte_at += waited_s
        if self.settled is not None:
            self.settled.since += waited_s
        for stage in self.stages:
            if stage.start is not None:
                stage.start += waited_s
                if hasattr(stage, "end"):
                    stage.end += waited_s

    def close(self, end: float) -> Sequence[Stage]:
        """End an open budget and return its openings; what is opened from here on is not kept."""
        self.end = end
        stages, self.stages = self.stages, INERT
        return stages

    def settle(self) -> None:
        """Account for everything up to now, and keep only the stages that are still open."""
        with _settling:
            stages = self.stages
            if not isinstance(stages, list) or len(stages) < self.room:
                return
            kept = stages[:]
            still_open = [stage for stage in kept if not hasattr(stage, "end")]
            self.room = max(MOST_STAGES, 2 * len(still_open))
            # Whatever other threads append meanwhile stands behind what was copied.
            stages[: len(kept)] = still_open
            try:
                self._settle(kept, self.clock())
            except Exception:  # noqa: BLE001 - called by the application, which must not notice
                self.lane.fault("settle")

    def _settle(self, stages: list[Stage], now: float) -> None:
        settled = self.settled or Settled(self.start)
        intervals = [
            Interval(
                *settled.key((stage.name, stage.operation)),
                stage.start,
                getattr(stage, "end", now),
            )
            for stage in stages
            if stage.start is not None
        ]
        for key, share in settle(intervals, settled.since, now).items():
            settled.add(key, share, 0)
        for stage in stages:
            if stage.start is not None and hasattr(stage, "end"):
                for key in {(stage.name, None), (stage.name, stage.operation)}:
                    settled.add(key, Share(0.0, 0.0), 1)
        settled.since = now
        self.settled = settled
        self.lane.keep(stage for stage in stages if hasattr(stage, "end"))


def opened(lane: Lane, clock: Clock, opens: type[Stage]) -> Budget:
    """Return a budget that begins now.

    A function and not ``__init__``: Python calls a function at half the price of a class that
    has one.
    """
    budget = Budget()
    budget.lane = lane
    budget.clock = clock
    budget.opens = opens
    budget.stages = []
    budget.room = MOST_STAGES
    budget.settled = None
    budget.end = None
    budget.first_byte_at = None
    budget.trailers = False
    budget.start = clock()
    return budget
