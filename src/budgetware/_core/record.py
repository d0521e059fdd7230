"""What happened: the frozen facts of a finished request, and the accounting that makes them.

One rule divides a request's time among its stages: *each instant belongs to the stage that was
opened last and is still open*. For nested stages that is the innermost one; for parallel stages
nothing is counted twice. What no stage claims is unattributed, so for any tree of stages
``sum(exclusive) + unattributed == elapsed``.

Times here are seconds on the request's own clock, waits for the client left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from budgetware._core.policy import Ladder


class Level(StrEnum):
    """How far over the ladder's rungs something went."""

    WARNING = "warning"
    CRITICAL = "critical"
    BREACH = "breach"


class Outcome(StrEnum):
    """How a request ended, by its budget."""

    MET = "met"
    WARNING = "warning"
    EXCEEDED = "exceeded"
    BREACHED = "breached"
    UNBUDGETED = "unbudgeted"
    CLIENT_GONE = "client_gone"
    DEGRADED = "degraded"
    REJECTED = "rejected"


REJECTION = "reject"
"""The answer that says no."""


class Ending(StrEnum):
    """How a stage was closed."""

    CLOSED = "closed"
    FAILED = "failed"
    ABANDONED = "abandoned"


def level_of(spent: float, limit: float, ladder: Ladder) -> Level | None:
    """Return the highest rung of *ladder* that *spent* is strictly above, out of *limit*.

    Exactly at a rung is still below it, so a request that takes its whole budget has met it.
    """
    if spent > limit * ladder.breach:
        return Level.BREACH
    if spent > limit * ladder.critical:
        return Level.CRITICAL
    if spent > limit * ladder.warning:
        return Level.WARNING
    return None


def outcome_of(
    elapsed_s: float, limit_s: float, ladder: Ladder, answer: str | None = None
) -> Outcome:
    """Return the outcome of a request that took *elapsed_s* out of *limit_s*.

    The ladder says what deserves attention; whether the promise was kept depends on the limit
    alone. A request within its budget is never exceeded, wherever ``critical`` begins. In time
    with a smaller *answer* is not met: it is degraded, or rejected.
    """
    if answer is not None and elapsed_s <= limit_s:
        return Outcome.REJECTED if answer == REJECTION else Outcome.DEGRADED
    if limit_s == inf:
        return Outcome.UNBUDGETED
    return next(outcome for outcome, rung_s in rungs_s(limit_s, ladder) if elapsed_s <= rung_s)


def rungs_s(limit_s: float, ladder: Ladder) -> tuple[tuple[Outcome, float], ...]:
    """Return the outcomes of a limit in rising order, each with the most seconds it takes."""
    return (
        (Outcome.MET, limit_s * min(ladder.warning, 1.0)),
        (Outcome.WARNING, limit_s),
        (Outcome.EXCEEDED, limit_s * max(ladder.breach, 1.0)),
        (Outcome.BREACHED, inf),
    )


class StageRecord(NamedTuple):
    """One opening of a stage.

    Attributes:
        name: The stage.
        operation: The stage's operation, if one was named.
        start_s: Seconds after the request's start.
        duration_s: Seconds it was open.
        ending: Whether it was closed, failed with an exception, or had to be closed for it.
        error: The exception type's name when it failed.

    """

    name: str
    operation: str | None
    start_s: float
    duration_s: float
    ending: Ending
    error: str | None = None


class StageTotal(NamedTuple):
    """All of one stage, or of one operation of it, in one request.

    Attributes:
        name: The stage.
        operation: The operation, or ``None`` for the whole stage.
        limit_s: Its allocation, ``inf`` when it has none.
        spent_s: Seconds during which it was open at least once.
        exclusive_s: Seconds that belong to it alone; 0 for an operation's total.
        calls: How often it was opened.
        calls_limit: How often it may be opened, ``inf`` when that is not limited.
        level: The rung it went over, ``None`` when it stayed below.
        overage_s: Seconds above its allocation; 0 when within it.

    """

    name: str
    operation: str | None = None
    limit_s: float = inf
    spent_s: float = 0.0
    exclusive_s: float = 0.0
    calls: int = 0
    calls_limit: float = inf
    level: Level | None = None
    overage_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """A finished request or job.

    Attributes:
        route: The route's name, ``_unmatched`` for requests outside the policy.
        tier: The caller's tier, ``None`` where there are no tiers.
        limit_s: The budget in force, ``inf`` when nothing was promised.
        reserve_s: The part of it no stage may plan with.
        elapsed_s: Seconds the budget is judged by: to the first or the last byte.
        first_byte_s: Seconds to the first byte, ``None`` when the client was sent no response.
        duration_s: Seconds to the last byte, or to the end of the job.
        waited_s: Seconds spent waiting for the client; part of no other figure.
        outcome: How it ended.
        level: The rung the whole request went over.
        overage_s: Seconds above the budget; 0 when within it.
        stages: Totals by stage, then by operation.
        openings: Every opening of a stage that was kept.
        unattributed_s: Seconds of ``duration_s`` that belong to no stage.
        pool_s: Seconds of the budget nobody had a claim on: what the policy left over, and the
            allocations of optional stages that were not opened.
        status: The status code of what the client was sent: of the smaller answer where there was
            one, else of the application's response. ``None`` for jobs, for clients that have left,
            and where the application raised before its response had begun: what a server, or an
            error middleware further out, makes of that, 500 as a rule, is not seen here. Under WSGI
            a response begins with the first byte of its body, not with ``start_response``.
        error: The name of the exception type that left the application.
        policy: The digest of the policy that was in force.
        answer: What was sent instead of the full response, ``None`` when that was sent.
        reason: Why it was.

    """

    route: str
    tier: str | None
    limit_s: float
    reserve_s: float
    elapsed_s: float
    first_byte_s: float | None
    duration_s: float
    waited_s: float
    outcome: Outcome
    level: Level | None
    overage_s: float
    stages: tuple[StageTotal, ...]
    openings: tuple[StageRecord, ...]
    unattributed_s: float
    pool_s: float
    status: int | None
    error: str | None
    policy: str
    violations: tuple[StageTotal, ...] = field(default=())
    answer: str | None = None
    reason: str | None = None


class Interval(NamedTuple):
    """One opening of a stage as the accounting sees it."""

    name: str
    operation: str | None
    start: float
    end: float


class Share(NamedTuple):
    """What one stage had of a stretch of time."""

    spent: float
    exclusive: float


Key = tuple[str, str | None]

_start = attrgetter("start")


def settle(intervals: Sequence[Interval], since: float, until: float) -> dict[Key, Share]:
    """Divide the time from *since* to *until* among *intervals*.

    Stages are keyed ``(name, None)`` and carry their union and their exclusive time; operations
    are keyed ``(name, operation)`` and carry their union only, their stage has the exclusive time.

    The sum of all exclusive times is the length of the union of all intervals, up to rounding.
    """
    clipped = _clipped(intervals, since, until)
    in_sequence = _in_sequence(clipped)
    if in_sequence is not None:
        return in_sequence
    # In the order they were opened, which clipping would hide.
    clipped = _clipped(sorted(intervals, key=_start), since, until)
    spent = _unions(clipped)
    exclusive = _exclusive(clipped)
    return {
        key: Share(total, exclusive.get(key[0], 0.0) if key[1] is None else 0.0)
        for key, total in spent.items()
    }


def _clipped(intervals: Iterable[Interval], since: float, until: float) -> list[Interval]:
    return [
        Interval(name, operation, max(start, since), min(end, until))
        for name, operation, start, end in intervals
    ]


def _in_sequence(intervals: Sequence[Interval]) -> dict[Key, Share] | None:
    """Divide the time among stages that came one after the other, as most do; else ``None``."""
    shares: dict[Key, Share] = {}
    reached = -inf
    for name, operation, start, end in intervals:
        if start < reached or end < start:
            return None
        reached = end
        duration = end - start
        spent, exclusive = shares.get((name, None), _NO_SHARE)
        shares[name, None] = Share(spent + duration, exclusive + duration)
        if operation is not None:
            spent, exclusive = shares.get((name, operation), _NO_SHARE)
            shares[name, operation] = Share(spent + duration, 0.0)
    return shares


_NO_SHARE = Share(0.0, 0.0)


def union_length(spans: Iterable[tuple[float, float]]) -> float:
    """Return the length of the union of *spans*, each a start and an end."""
    total = 0.0
    covered_to = -inf
    for start, end in sorted(spans):
        if end > covered_to:
            total += end - max(start, covered_to)
            covered_to = end
    return total


def _unions(intervals: Sequence[Interval]) -> dict[Key, float]:
    spans: dict[Key, list[tuple[float, float]]] = {}
    for name, operation, start, end in intervals:
        span = (start, max(start, end))
        spans.setdefault((name, None), []).append(span)
        if operation is not None:
            spans.setdefault((name, operation), []).append(span)
    return {key: union_length(found) for key, found in spans.items()}


def _exclusive(intervals: Sequence[Interval]) -> dict[str, float]:
    """Sweep through time; of the intervals, sorted by start, the last open one takes each instant.

    As they are taken up in the order of their starts, a stack has the one opened last on top.
    """
    owned: dict[str, float] = {}
    open_now: list[Interval] = []
    position = 0
    now = -inf
    while position < len(intervals) or open_now:
        while open_now and open_now[-1].end <= now:
            open_now.pop()
        upcoming = intervals[position].start if position < len(intervals) else inf
        if open_now:
            owner = open_now[-1]
            until = min(owner.end, upcoming)
            owned[owner.name] = owned.get(owner.name, 0.0) + (until - now)
            now = until
        elif upcoming < inf:
            now = upcoming
        while position < len(intervals) and intervals[position].start <= now:
            open_now.append(intervals[position])
            position += 1
    return owned


class Observer(Protocol):
    """A callable of one finished request; it runs after the answer has left."""

    def __call__(self, record: RequestRecord, /) -> None:
        """Take note of *record*."""
