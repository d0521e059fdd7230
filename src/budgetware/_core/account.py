"""The full account of a finished budget: from openings to one frozen record."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf

from budgetware._core.budget import Budget
from budgetware._core.policy import Plan, StagePlan
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

_SEVERITY = {None: 0, Level.WARNING: 1, Level.CRITICAL: 2, Level.BREACH: 3}


def account(budget: Budget, stages: Sequence[Stage], *, client_gone: bool = False) -> RequestRecord:
    """Return the record of *budget*, which has ended, with the openings it had kept.

    Stages that were never left end with the budget and are marked abandoned. A request whose
    client left has no level: nobody was there to be late for.
    """
    plan = budget.lane.plan
    end = budget.clock() if budget.end is None else budget.end
    duration_s = end - budget.start
    status: int | None = getattr(budget, "status", None)
    first_byte_s = None
    if budget.first_byte_at is not None:
        first_byte_s = budget.first_byte_at - budget.start
    elif status is not None:  # the only byte was the last one
        first_byte_s = duration_s
    elapsed_s = duration_s if budget.lane.judges_last_byte or first_byte_s is None else first_byte_s
    openings = tuple(_openings(stages, budget.start, end))
    totals = tuple(_totals(budget, openings, plan))
    error = getattr(budget, "error", None)
    level = None if client_gone else level_of(elapsed_s, plan.limit_s, plan.ladder)
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
            Outcome.CLIENT_GONE if client_gone else outcome_of(elapsed_s, plan.limit_s, plan.ladder)
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
    )


def _openings(stages: Iterable[Stage], start: float, end: float) -> Iterable[StageRecord]:
    for stage in stages:
        if stage.start is None:
            continue
        left = getattr(stage, "end", None)
        error = getattr(stage, "error", None)
        ending = Ending.FAILED if error is not None else Ending.CLOSED
        yield StageRecord(
            name=stage.name,
            operation=stage.operation,
            start_s=stage.start - start,
            duration_s=(end if left is None else left) - stage.start,
            ending=Ending.ABANDONED if left is None else ending,
            error=None if error is None else error.__name__,
        )


def _totals(
    budget: Budget,
    openings: Sequence[StageRecord],
    plan: Plan,
) -> Iterable[StageTotal]:
    end = budget.clock() if budget.end is None else budget.end
    settled = budget.settled
    shares: dict[Key, Share] = {} if settled is None else dict(settled.shares)
    calls: dict[Key, int] = {} if settled is None else dict(settled.calls)
    since = 0.0 if settled is None else settled.since - budget.start
    named: list[Interval] = []
    for one in openings:
        key: Key = (one.name, one.operation)
        if settled is not None:
            key = settled.key(key)
        named.append(Interval(*key, one.start_s, one.start_s + one.duration_s))
        for counted in {(key[0], None), key}:
            calls[counted] = calls.get(counted, 0) + 1
    for key, share in settle(named, since, end - budget.start).items():
        had = shares.get(key, Share(0.0, 0.0))
        shares[key] = Share(had.spent + share.spent, had.exclusive + share.exclusive)
    for key, share in sorted(shares.items(), key=lambda item: item[0][1] is not None):
        yield _total(key, share, calls.get(key, 0), plan)


def _total(key: Key, share: Share, calls: int, plan: Plan) -> StageTotal:
    name, operation = key
    stage = plan.stages.get(name) or StagePlan(name=name)
    limit_s = stage.limit_s if operation is None else stage.operations.get(operation, inf)
    calls_limit = stage.calls if operation is None else inf
    by_time = level_of(share.spent, limit_s, plan.ladder)
    by_calls = level_of(calls, calls_limit, plan.ladder)
    # A count has no "nearly": the 40th of 50 calls is not worth a line in the log.
    if by_calls is Level.WARNING:
        by_calls = None
    return StageTotal(
        name=name,
        operation=operation,
        limit_s=limit_s,
        spent_s=share.spent,
        exclusive_s=share.exclusive,
        calls=calls,
        calls_limit=calls_limit,
        level=max(by_time, by_calls, key=_SEVERITY.__getitem__),
        overage_s=max(0.0, share.spent - limit_s),
    )


def _pool(plan: Plan, opened: set[str]) -> float:
    claims = sum(
        stage.limit_s
        for name, stage in plan.stages.items()
        if stage.limit_s < inf and (name in opened or not stage.optional)
    )
    return plan.limit_s - plan.reserve_s - claims
