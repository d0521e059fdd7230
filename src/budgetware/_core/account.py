"""The full account of a finished budget: from openings to one frozen record."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf

from budgetware._core.budget import MOST_NAMES, Budget, Settled
from budgetware._core.lane import labels
from budgetware._core.policy import Ladder, Plan
from budgetware._core.record import (
    Ending,
    Interval,
    Key,
    Level,
    Outcome,
    RequestRecord,
    Share,
    StageRecord,
    StageTotal,
    level_of,
    outcome_of,
    settle,
)
from budgetware._core.stage import Stage

PARTIAL = "partial"
"""The answer of an application that has left out a stage because it would not have fitted."""

_NO_SHARE = Share(0.0, 0.0)
_SEVERITY = {None: 0, Level.WARNING: 1, Level.CRITICAL: 2, Level.BREACH: 3}


def account(
    budget: Budget,
    stages: Sequence[Stage],
    *,
    client_gone: bool = False,
    answer: str | None = None,
    reason: str | None = None,
) -> RequestRecord:
    """Return the record of *budget*, which has ended, with the openings it had kept.

    Stages that were never left end with the budget and are marked abandoned. A request whose
    client left has no level: nobody was there to be late for. With *answer*, that was sent in
    place of the full response, for *reason*. A clock that has gone back makes no time negative.
    """
    plan = budget.lane.plan
    if answer is None and not client_gone:
        reason = skipped(budget)
        answer = None if reason is None else PARTIAL
    end = max(budget.start, budget.clock() if budget.end is None else budget.end)
    duration_s = end - budget.start
    status: int | None = getattr(budget, "status", None)
    first_byte_s = None
    if hasattr(budget, "first_byte_at"):
        first_byte_s = min(max(0.0, budget.first_byte_at - budget.start), duration_s)
    elif status is not None:  # the only byte was the last one
        first_byte_s = duration_s
    elapsed_s = duration_s if budget.lane.judges_last_byte or first_byte_s is None else first_byte_s
    openings = tuple(_openings(stages, budget.start, end))
    totals = tuple(
        _totals(openings, _settled(budget, len(openings)), budget.start, duration_s, plan)
    )
    error = getattr(budget, "error", None)
    # A smaller answer is sent late on purpose, and in time.
    in_time = client_gone or (answer is not None and elapsed_s <= plan.limit_s)
    level = None if in_time else level_of(elapsed_s, plan.limit_s, plan.ladder)
    return RequestRecord(
        route=plan.route,
        tier=plan.tier,
        limit_s=plan.limit_s,
        reserve_s=plan.reserve_s,
        elapsed_s=elapsed_s,
        first_byte_s=first_byte_s,
        duration_s=duration_s,
        waited_s=getattr(budget, "waited_s", 0.0),
        outcome=(
            Outcome.CLIENT_GONE
            if client_gone
            else outcome_of(elapsed_s, plan.limit_s, plan.ladder, answer)
        ),
        level=level,
        overage_s=max(0.0, elapsed_s - plan.limit_s),
        stages=totals,
        openings=openings,
        unattributed_s=duration_s - sum(total.exclusive_s for total in totals),
        pool_s=_pool(plan, {total.name for total in totals}),
        status=status,
        error=None if error is None else error.__name__,
        policy=budget.lane.policy,
        violations=(
            () if client_gone else tuple(total for total in totals if total.level is not None)
        ),
        answer=answer,
        reason=reason,
    )


def skipped(budget: Budget) -> str | None:
    """Return why a stage of *budget*'s full response was left out, ``None`` if none was."""
    course = getattr(budget, "course", None)
    return None if course is None or course.smaller else course.skipped


def _openings(stages: Iterable[Stage], start: float, end: float) -> Iterable[StageRecord]:
    for stage in stages:
        if stage.start is None:
            continue
        left = getattr(stage, "end", None)
        error = getattr(stage, "error", None)
        ending = Ending.CLOSED if error is None else Ending.FAILED
        if left is None or left > end:  # a thread may leave it before anybody asks
            ending, left, error = Ending.ABANDONED, end, None
        name, operation = labels(stage)
        opened = max(start, min(stage.start, left))
        yield StageRecord(
            name,
            operation,
            opened - start,
            max(0.0, left - opened),
            ending,
            None if error is None else error.__name__,
        )


def _settled(budget: Budget, more: int) -> Settled | None:
    """Return a copy of what was settled, to find a place for *more* openings in."""
    settled: Settled | None = getattr(budget, "settled", None)
    if settled is not None:
        return settled.copy()
    return Settled(budget.start, budget.lane.plan.stages) if more > MOST_NAMES else None


def _totals(
    openings: Sequence[StageRecord],
    settled: Settled | None,
    start: float,
    duration_s: float,
    plan: Plan,
) -> Iterable[StageTotal]:
    calls: dict[Key, int] = {} if settled is None else dict(settled.calls)
    intervals: list[Interval] = []
    for name, operation, start_s, lasted_s, _, _ in openings:
        key: Key = (name, operation) if settled is None else settled.key(name, operation)
        intervals.append(Interval(*key, start_s, start_s + lasted_s))
        calls[key] = calls.get(key, 0) + 1
        if key[1] is not None:
            whole = (key[0], None)
            calls[whole] = calls.get(whole, 0) + 1
    shares = settle(intervals, 0.0 if settled is None else settled.since - start, duration_s)
    if settled is not None:
        for key, had in settled.shares.items():
            share = shares.get(key, _NO_SHARE)
            shares[key] = Share(had.spent + share.spent, had.exclusive + share.exclusive)
    ladder = plan.ladder
    operations: list[StageTotal] = []
    for (name, operation), share in shares.items():
        stage = plan.stages.get(name)
        if operation is not None:
            limit_s = inf if stage is None else stage.operations.get(operation, inf)
            count = calls.get((name, operation), 0)
            operations.append(_total(name, operation, limit_s, share, count, inf, ladder))
            continue
        limit_s, most = (inf, inf) if stage is None else (stage.limit_s, stage.calls)
        yield _total(name, None, limit_s, share, calls.get((name, None), 0), most, ladder)
    yield from operations


def _total(  # noqa: PLR0913, PLR0917 - called for every stage of a notable request, by position
    name: str,
    operation: str | None,
    limit_s: float,
    share: Share,
    calls: int,
    calls_limit: float,
    ladder: Ladder,
) -> StageTotal:
    spent_s, exclusive_s = share
    level = level_of(spent_s, limit_s, ladder)
    if calls > calls_limit:
        # A count has no "nearly": the 40th of 50 calls is not worth a line in the log.
        by_calls = Level.BREACH if calls > calls_limit * ladder.breach else Level.CRITICAL
        if _SEVERITY[by_calls] > _SEVERITY[level]:
            level = by_calls
    overage_s = spent_s - limit_s if spent_s > limit_s else 0.0
    return StageTotal(
        name, operation, limit_s, spent_s, exclusive_s, calls, calls_limit, level, overage_s
    )


def _pool(plan: Plan, opened: set[str]) -> float:
    claims = sum(
        stage.limit_s
        for name, stage in plan.stages.items()
        if stage.limit_s < inf and (name in opened or not stage.optional)
    )
    return plan.limit_s - plan.reserve_s - claims
