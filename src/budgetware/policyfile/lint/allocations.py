"""The allocations: does what the stages may use fit into what was promised.

Allocations are hard limits of one request, so they add up; with the reserve they may not come to
more than the budget of any tier.
"""

from __future__ import annotations

from math import fsum, inf
from typing import TYPE_CHECKING, Final

from budgetware.policyfile.marks import limit_path, tiers_of
from budgetware.policyfile.spending import SLACK_S, Item, Spending, table
from budgetware.units import format_duration, format_percent, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from budgetware._core.policy import Route, StagePlan, StagePolicy
    from budgetware.policyfile.findings import Findings, Path
    from budgetware.policyfile.lint.case import Case
    from budgetware.policyfile.marks import Marks

_MOST_NAMED: Final = 5


def _overcommitted(case: Case) -> None:
    """Find stages and reserves that do not fit into a tier's budget."""
    for route in (None, *case.policy.routes.values()):
        if not _known(case.marks, route) or not _plans_itself(case.marks, route):
            continue
        plans = [Spending.of(case.policy, route, tier) for tier in tiers_of(case.policy, route)]
        over = [spending for spending in plans if spending.left_s < 0]
        if not over:
            continue
        worst = min(over, key=lambda spending: spending.left_s)
        limit, lack = format_duration(worst.plan.limit_s), format_duration(-worst.left_s)
        who = "requests that match no route" if route is None else f"route {shown(route.name)}"
        tiers = [shown(spending.plan.tier) for spending in over if spending.plan.tier]
        more = f" and {len(tiers) - _MOST_NAMED} more" if len(tiers) > _MOST_NAMED else ""
        of = f" (tier {', '.join(tiers[:_MOST_NAMED])}{more})" if tiers else ""
        path: Path = ("stages",) if route is None else ("routes", route.name)
        inner = (*path, "stages") if case.marks.has(*path, "stages") else path
        case.found.report(
            "overcommitted",
            f"the stages of {who} plan with {format_duration(worst.used_s)} of a budget of "
            f"{limit}: {lack} too much{of}",
            f"take {lack} from a stage, or promise {format_duration(worst.used_s)}; stages that "
            "run side by side can be operations of one stage",
            path=inner,
            detail=_account(case, route, worst),
        )


def _plans_itself(marks: Marks, route: Route | None) -> bool:
    """Whether the route adds anything to what all of them inherit."""
    keys = ("stages", "reserve", "budget")
    return route is None or any(marks.has("routes", route.name, key) for key in keys)


def _account(case: Case, route: Route | None, spending: Spending) -> str:
    """Return who uses what, line by line."""
    rows = [
        (item.name, format_duration(item.seconds), _noted(item))
        for item in spending.items(case.policy, case.marks, route)
        if item.seconds < inf
    ]
    limit = limit_path(case.policy, route, spending.plan.tier) or ()
    rows.append(("sum", format_duration(spending.used_s), ""))
    rows.append(
        (
            "budget",
            format_duration(spending.plan.limit_s),
            f"line {case.marks.span(*limit).line}",
        )
    )
    return table(rows)


def _noted(item: Item) -> str:
    inherited = ", inherited" if item.inherited else ""
    return f"line {item.line}{inherited}{', optional' if item.optional else ''}"


def _unallocated(case: Case) -> None:
    """Say what is left when every stage of a route has its part."""
    for name, route in case.policy.routes.items():
        own = [stage for stage in route.stages if case.marks.has("routes", name, "stages", stage)]
        budgets = [stage.budget for stage in route.stages.values()]
        if not own or None in budgets or not _known(case.marks, route):
            continue
        plans = [Spending.of(case.policy, route, tier) for tier in tiers_of(case.policy, route)]
        tightest = min(plans, key=lambda spending: spending.plan.limit_s)
        if 0 < tightest.left_s < inf:
            of = f" for tier {shown(tightest.plan.tier)}" if tightest.plan.tier else ""
            path = ("routes", name, "stages")
            case.found.report(
                "unallocated",
                f"{format_duration(tightest.left_s)} of the budget of "
                f"{format_duration(tightest.plan.limit_s)} is not allocated{of}",
                "fine as a margin; a margin that is meant can be a `reserve`",
                path=path,
                severity="note",
            )


def _shares_of_nothing(case: Case) -> None:
    """Find percentages of a budget that nobody promised."""
    for route in (None, *case.policy.routes.values()):
        if not _known(case.marks, route):
            continue
        if any(case.policy.limit_s(route, tier) < inf for tier in tiers_of(case.policy, route)):
            continue
        stages = case.policy.stages if route is None else route.stages
        for path, share in _shares(case.marks, route, stages):
            case.found.report(
                "share-of-nothing",
                f"{format_percent(share)} of nothing: no budget is promised here",
                "write a duration, or give the route or the tiers a `budget`",
                path=path,
            )


def _shares(
    marks: Marks, route: Route | None, stages: Mapping[str, StagePolicy]
) -> list[tuple[Path, float]]:
    name = None if route is None else route.name
    found: list[tuple[Path, float]] = []
    if route is not None and route.reserve is not None and route.reserve.share is not None:
        found.append((("routes", route.name, "reserve"), route.reserve.share))
    for stage_name, stage in stages.items():
        path = marks.stage(name, stage_name)
        if stage.budget is not None and stage.budget.share is not None:
            found.append((path, stage.budget.share))
        for operation, amount in stage.operations.items():
            if amount.share is not None:
                found.append(((*path, "operations", operation), amount.share))
    return found


def _operations(case: Case) -> None:
    """Find operations that have more than their stage: one alone never may."""
    for route in (None, *case.policy.routes.values()):
        if not _known(case.marks, route):
            continue
        name = None if route is None else route.name
        for plan in [case.policy.plan(route, tier) for tier in tiers_of(case.policy, route)]:
            for stage in plan.stages.values():
                path = case.marks.stage(name, stage.name)
                if stage.limit_s < inf and (name is None or path[0] == "routes"):
                    _operations_of(stage, path, case.found)


def _operations_of(stage: StagePlan, path: Path, found: Findings) -> None:
    limits = {name: limit_s for name, limit_s in stage.operations.items() if limit_s < inf}
    limit = format_duration(stage.limit_s)
    for operation, limit_s in limits.items():
        if limit_s > stage.limit_s + SLACK_S:
            found.report(
                "operation-over-stage",
                f"the operation {shown(operation)} may take {format_duration(limit_s)}, "
                f"its whole stage {limit}",
                f"at most {limit}",
                path=(*path, "operations", operation),
            )
            return
    total_s = fsum(limits.values())
    if total_s > stage.limit_s + SLACK_S:
        found.report(
            "operations-over-stage",
            f"the operations of {shown(stage.name)} add up to {format_duration(total_s)}, "
            f"the stage has {limit}",
            "fine as long as no request runs all of them",
            path=(*path, "operations"),
            severity="note",
        )


def _known(marks: Marks, route: Route | None) -> bool:
    """Whether everything that enters the sums could be read."""
    own = route is None or marks.intact("routes", route.name)
    return own and marks.intact("stages") and marks.intact("tiers")


RULES = (_overcommitted, _unallocated, _shares_of_nothing, _operations)
