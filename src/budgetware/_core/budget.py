"""One request's account: when it began, when it must end, which stages it opened.

A budget belongs to its request alone but may be used from many tasks and threads at once, so it
is only ever appended to or replaced whole. Finished, it is inert: it keeps its figures and no
more stages.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Final

from budgetware._core.lane import Lane, label, labels
from budgetware._core.record import Interval, Key, Share, settle
from budgetware._core.stage import Clock, Stage
from budgetware.names import OTHER

if TYPE_CHECKING:
    from budgetware._core.course import Course
    from budgetware._core.entrance import Visit
    from budgetware._core.policy import StagePlan

MOST_STAGES: Final = 256
"""Openings one request keeps one by one; older ones are then settled into totals."""

MOST_NAMES: Final = 64
"""Distinct stage names one request's settled totals keep; the rest are ``_OTHER``."""

_settling = threading.Lock()

# Held for the moment in which openings change hands. Re-entrant: the garbage collector may finish
# an abandoned request of the same thread.
_handing_over = threading.RLock()


class Settled:
    """What was already accounted for when a request had too many stages to keep them all.

    Attributes:
        since: Up to when.
        declared: The stages that have a place of their own however many names there are.
        shares: What each stage and operation has had.
        calls: How often each was opened and closed.

    """

    __slots__ = ("calls", "declared", "shares", "since")

    def __init__(self, since: float, declared: Mapping[str, StagePlan]) -> None:
        self.since = since
        self.declared = declared
        self.shares: dict[Key, Share] = {}
        self.calls: dict[Key, int] = {}

    def copy(self) -> Settled:
        """Return the same figures in an object of their own."""
        copied = Settled(self.since, self.declared)
        copied.shares = self.shares.copy()
        copied.calls = self.calls.copy()
        return copied

    def key(self, name: str, operation: str | None) -> Key:
        """Return what *operation* of *name* is accounted under, and make a place for it.

        Once there are too many names, an operation is only part of its stage and a stage only
        part of ``_OTHER``, unless the policy lists it.
        """
        stage = self.declared.get(name)
        if stage is None and not self._has_room((name, None)):
            name, operation = OTHER, None
        self.shares.setdefault((name, None), _NOTHING)
        if operation is None:
            return name, None
        listed = stage is not None and operation in stage.operations
        if not listed and not self._has_room((name, operation)):
            return name, None
        self.shares.setdefault((name, operation), _NOTHING)
        return name, operation

    def add(self, shares: Mapping[Key, Share], until: float) -> None:
        """Add *shares* of the time up to *until*."""
        self.since = until
        for key, share in shares.items():
            had = self.shares[key]
            self.shares[key] = Share(had.spent + share.spent, had.exclusive + share.exclusive)

    def count(self, key: Key, calls: int) -> None:
        """Count *calls* openings of what is accounted under *key*."""
        for counted in {(key[0], None), key}:
            self.calls[counted] = self.calls.get(counted, 0) + calls

    def _has_room(self, key: Key) -> bool:
        return key in self.shares or len(self.shares) < MOST_NAMES


_NOTHING: Final = Share(0.0, 0.0)


class Budget(list[Stage]):
    """The account of one request or job: the list of its openings so far, and what they mean.

    It is the list itself because a stage that appends to its budget, and not to an attribute of
    it, is cheaper by a tenth. Like any object with a life of its own it equals only itself.

    Attributes:
        lane: What is promised and where the totals go.
        clock: The monotonic clock it is timed by, in seconds.
        opens: The class of its stages.
        start: When it began, on the lane's clock.
        room: How many openings fit before the older ones are settled; none once it has ended.
        end: When it ended, ``None`` while it is open.
        odd: Whether the first three of what follows may be set.

    These are unset until there is something to say:
        course: The way the request takes through its decisions.
        visit: What it holds of the process's limits.
        settled: What was settled; ``None`` once that was told.
        first_byte_at: When the response's first byte was sent, if that was not the last one.
        trailers: Whether the response ends with trailers and not with its body.
        untold: The openings of an ended budget that somebody has still to be told of.
        notable: Whether anything may have gone over a rung; set together with ``untold``.
        status: The status code of the response that was begun; ``None`` once it is known that the
            client will never see it.
        error: The exception type that left the application.
        failed: That the request was counted as failed.
        waited_s: Seconds the client kept the application waiting.
        paused_to: Up to when waits for the client were left out.

    """

    __slots__ = (
        "__weakref__",
        "clock",
        "course",
        "end",
        "error",
        "failed",
        "first_byte_at",
        "lane",
        "notable",
        "odd",
        "opens",
        "paused_to",
        "room",
        "settled",
        "start",
        "status",
        "trailers",
        "untold",
        "visit",
        "waited_s",
    )

    lane: Lane
    clock: Clock
    opens: type[Stage]
    start: float
    room: int
    end: float | None
    odd: bool
    course: Course
    visit: Visit
    settled: Settled | None
    first_byte_at: float
    trailers: bool
    untold: Sequence[Stage]
    notable: bool
    status: int | None
    error: type[BaseException]
    failed: bool
    waited_s: float
    paused_to: float

    __eq__ = object.__eq__
    __hash__ = object.__hash__  # type: ignore[assignment]

    @property
    def deadline(self) -> float:
        """When it must end; ``inf`` without a limit."""
        return self.start + self.lane.limit_s

    def replan(self, lane: Lane) -> None:
        """Go on under the promise of *lane*, another tier of the same route, from the same start.

        Raises:
            AnswerNow: Under that promise it is better answered with something smaller.

        """
        self.lane = lane

    @property
    def shielded(self) -> bool:
        """Whether the request is at something that has to be finished first."""
        return False

    def shield(self) -> None:
        """Have nothing else answer or end the request until ``unshield`` was called as often."""

    def unshield(self) -> None:
        """End one ``shield``."""

    def turn(self, reason: str) -> None:
        """Note that the application is left for a smaller answer, for *reason*."""

    def hold(self) -> Visit | None:
        """Return another hold on its slot, for a thread that may outlive it; to be left like it."""
        visit = getattr(self, "visit", None)
        return None if visit is None else visit.share()

    def remaining(self) -> float:
        """Return the seconds left, negative when overdrawn; fixed once the budget has ended.

        While the clock fails, nothing limits the request.
        """
        try:
            return self.deadline - (self.clock() if self.end is None else self.end)
        except Exception:  # noqa: BLE001 - the clock has been told of
            return inf

    def elapsed(self) -> float:
        """Return the seconds used, waits for the client left out; fixed once ended.

        None while the clock fails.
        """
        try:
            return max(0.0, (self.clock() if self.end is None else self.end) - self.start)
        except Exception:  # noqa: BLE001 - the clock has been told of
            return 0.0

    def pool(self) -> float:
        """Return the seconds nobody has a claim on: what is left beyond reserve and claims.

        Stages that must still run claim their allocations; an opened stage claims what it has
        not used yet. An optional stage claims nothing until it is opened. While the clock fails,
        nothing limits the request.
        """
        plan = self.lane.plan
        if plan.limit_s == inf:
            return inf
        try:
            now = self.clock() if self.end is None else self.end
        except Exception:  # noqa: BLE001 - the clock has been told of
            return inf
        # Before what was settled: stages that are in both are clipped, in neither they were lost.
        stages = self[:]
        settled = getattr(self, "settled", None)
        since = self.start
        spent: dict[str, float] = {}
        if settled is not None:
            since = settled.since
            shares = settled.shares.items()
            spent = {name: share.spent for (name, part), share in shares if part is None}
        intervals = [
            Interval(label(stage.name), None, stage.start, getattr(stage, "end", now))
            for stage in stages
            if stage.start is not None
        ]
        for (name, _), share in settle(intervals, since, now).items():
            spent[name] = spent.get(name, 0.0) + share.spent
        claims = sum(
            max(0.0, stage.limit_s - spent.get(name, 0.0))
            for name, stage in plan.stages.items()
            if stage.limit_s < inf and (name in spent or not stage.optional)
        )
        return self.deadline - now - plan.reserve_s - claims

    def answering(self, now: float) -> None:
        """Note *now* as the moment of the response's first byte, unless that was noted."""
        if not hasattr(self, "first_byte_at"):
            self.odd = True
            self.first_byte_at = now

    def pause(self, waited_s: float) -> None:
        """Leave out *waited_s* seconds that have just been spent waiting for the client.

        Everything noted so far moves forward by the wait, as if the clock had stood still; what
        was noted during the wait moves to its end. Waits that overlap are left out once.
        """
        if self.end is not None or waited_s <= 0:
            return
        now = self.clock()
        waited_s -= max(0.0, getattr(self, "paused_to", -inf) - (now - waited_s))
        self.paused_to = now
        if waited_s <= 0:
            return
        self.waited_s = getattr(self, "waited_s", 0.0) + waited_s
        self.start = min(self.start + waited_s, now)
        course = getattr(self, "course", None)
        if course is not None:
            course.pause(waited_s)
        if self.odd:
            self._move_odd(waited_s, now)
        for stage in self:
            if stage.start is not None:
                stage.start = min(stage.start + waited_s, now)
                if hasattr(stage, "end"):
                    stage.end = min(stage.end + waited_s, now)

    def close(self, end: float) -> list[Stage]:
        """End an open budget and return its openings; what is opened from here on is not kept."""
        self.end = end
        if self.odd:
            self.claim()
        stages = self[:]
        self.clear()
        self.room = 0
        return stages

    def claim(self) -> None:
        """Make the openings of a budget that has just ended its owner's alone.

        Who is settling them has handed over what is left after this, or leaves them as they are.
        """
        with _handing_over:
            pass

    def settle(self) -> None:
        """Account for everything up to now, and keep only the stages that are still open."""
        # Never waiting: whoever comes while another is at it has a next stage to do it at.
        if not _settling.acquire(blocking=False):
            return
        try:
            if self.end is None and not hasattr(self, "settled"):
                # Before looking at the openings: whoever ends the budget meanwhile sees by this
                # that they may be somebody else's, too.
                self.odd = True
                self.settled = Settled(self.start, self.lane.plan.stages)
            if self.room == 0:
                self.clear()  # ended and accounted for: whatever came later is nobody's
            elif len(self) >= self.room:
                self._settle(self.clock())
        except Exception:  # noqa: BLE001 - called by the application, which must not notice
            self.lane.fault("settle")
        finally:
            _settling.release()

    def _move_odd(self, waited_s: float, now: float) -> None:
        if hasattr(self, "first_byte_at"):
            self.first_byte_at = min(self.first_byte_at + waited_s, now)
        settled = getattr(self, "settled", None)
        if settled is not None:
            settled.since = min(settled.since + waited_s, now)

    def _settle(self, now: float) -> None:
        seen = self[:]
        noted = [
            (stage, labels(stage), getattr(stage, "end", inf))
            for stage in seen
            if stage.start is not None
        ]
        # What another thread has opened or closed after *now* is left for the next time.
        still_open = [stage for stage, _, end in noted if end > now]
        closed = [stage for stage, _, end in noted if end <= now]
        had: Settled | None = getattr(self, "settled", None)
        settled = Settled(self.start, self.lane.plan.stages) if had is None else had.copy()
        try:
            keys = {names: settled.key(*names) for names in dict.fromkeys(one[1] for one in noted)}
            intervals = [
                Interval(*keys[names], stage.start, end)  # type: ignore[arg-type]
                for stage, names, end in noted
            ]
            settled.add(settle(intervals, settled.since, now), now)
            calls = Counter(names for _, names, end in noted if end <= now)
            for names, count in calls.items():
                settled.count(keys[names], count)
        except Exception:
            self._hand_over(len(seen), still_open, had)
            raise
        if self._hand_over(len(seen), still_open, settled):
            self.lane.keep(closed)

    def _hand_over(self, seen: int, rest: list[Stage], settled: Settled | None) -> bool:
        """Put *rest* in place of what was *seen*; not when the budget has ended meanwhile.

        Whatever other threads append stands behind what was looked at. Never empty, so that who
        ends the budget sees that there was something.
        """
        with _handing_over:
            if self.end is not None:
                return False
            self.settled = settled
            self.room = max(MOST_STAGES, 2 * len(rest))
            self[:seen] = rest or [_NO_STAGE]
            return True


def _no_stage() -> Stage:
    stage = Stage()
    stage.name, stage.start = OTHER, None
    return stage


_NO_STAGE: Final = _no_stage()


def _renew_locks() -> None:
    # A thread of the parent may have held one at the moment of the fork.
    global _settling, _handing_over  # noqa: PLW0603 - for what happens once in 256 stages
    _settling = threading.Lock()
    _handing_over = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
