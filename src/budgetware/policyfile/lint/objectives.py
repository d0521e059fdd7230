"""The objectives: can a distribution look like that, and is nothing added up that does not add.

An allocation is kept by every request, so allocations add up. A percentile is kept by most, and
the ones that miss it in one stage need not be those that miss it in another.
"""

from __future__ import annotations

from itertools import pairwise
from math import fsum, inf
from typing import TYPE_CHECKING

from budgetware.policyfile.marks import tiers_of
from budgetware.units import format_duration, format_percent, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from budgetware._core.policy import Objectives, Plan, Policy, Route
    from budgetware.policyfile.findings import Path
    from budgetware.policyfile.lint.case import Case
    from budgetware.policyfile.marks import Marks

_SLACK = 1e-9


def percentile_name(percentile: float) -> str:
    """Return ``p95`` for 0.95."""
    return "p" + format_percent(percentile).removesuffix("%")


def _stated(policy: Policy) -> Iterator[tuple[Path, Mapping[float, float]]]:
    """Go through everything that has percentiles, with its path."""
    for stage_name, stage in policy.stages.items():
        if stage.objectives:
            yield ("stages", stage_name, "objectives"), stage.objectives.percentiles
    for name, route in policy.routes.items():
        if route.objectives:
            yield ("routes", name, "objectives"), route.objectives.percentiles
        for stage_name, stage in route.stages.items():
            if stage.objectives:
                path = ("routes", name, "stages", stage_name, "objectives")
                yield path, stage.objectives.percentiles
    benchmarks: Mapping[str, Mapping[str, Mapping[float, float]]]
    benchmarks = policy.checks.get("benchmarks", {})  # type: ignore[assignment]
    for name, benchmark in benchmarks.items():
        yield ("checks", "benchmarks", name), benchmark["percentiles"]


def _rising(case: Case) -> None:
    """Find percentiles that fall: no distribution has them."""
    for path, percentiles in _stated(case.policy):
        for (low, low_s), (high, high_s) in pairwise(percentiles.items()):
            if low_s > high_s and case.marks.has(*path, percentile_name(low)):
                case.found.report(
                    "impossible-objective",
                    f"{percentile_name(low)} of {format_duration(low_s)} is over "
                    f"{percentile_name(high)} of {format_duration(high_s)}",
                    "a higher percentile is never shorter",
                    path=(*path, percentile_name(low)),
                )


def _over_budget(case: Case) -> None:
    """Find objectives that are looser than every budget they are about."""
    for route, objectives, loosest_s in _promises(case.policy, case.marks):
        path: Path = ("routes", route.name, "objectives")
        given = {percentile_name(key): value for key, value in objectives.percentiles.items()}
        if objectives.average is not None:
            given["average"] = objectives.average
        for name, seconds in given.items():
            if seconds > loosest_s + _SLACK:
                case.found.report(
                    "objective-over-budget",
                    f"{name} of {format_duration(seconds)} is over the budget of "
                    f"{format_duration(loosest_s)}",
                    "an objective that matters is at most the budget",
                    path=(*path, name),
                    severity="warning",
                )


def _added(case: Case) -> None:
    """Find a route's percentile that is the sum of its stages' own."""
    for route, objectives, _ in _promises(case.policy, case.marks):
        for percentile, whole_s in objectives.percentiles.items():
            parts = {
                name: stage.objectives.percentiles[percentile]
                for name, stage in route.stages.items()
                if stage.objectives and percentile in stage.objectives.percentiles
            }
            if len(parts) > 1 and abs(fsum(parts.values()) - whole_s) < _SLACK:
                name = percentile_name(percentile)
                case.found.report(
                    "percentiles-added",
                    f"{name} of {format_duration(whole_s)} is the sum of the stages' {name}, and "
                    "percentiles do not add up",
                    "measure the whole for its own objective; what does add up is a stage's "
                    "`budget`",
                    path=("routes", route.name, "objectives", name),
                    severity="warning",
                    detail="\n".join(
                        f"{stage}  {format_duration(seconds)}" for stage, seconds in parts.items()
                    ),
                )


def _compounded(case: Case) -> None:
    """Find stages that together may miss more often than their route.

    Each of them may overrun its allocation in some requests. Where nothing is left over, those
    requests miss the route's budget, and at worst no two stages miss in the same request.
    """
    for route, objectives, loosest_s in _promises(case.policy, case.marks):
        allowed = _misses(objectives, loosest_s)
        if allowed is None or not case.marks.intact("stages"):
            continue
        plan = _tightest(case.policy, route)
        if fsum(stage.limit_s for stage in plan.stages.values()) < plan.limit_s - _SLACK:
            continue
        missing = {
            name: share
            for name, stage in route.stages.items()
            if stage.objectives
            and (share := _misses(stage.objectives, plan.stages[name].limit_s)) is not None
        }
        total = min(fsum(missing.values()), 1.0)
        if len(missing) > 1 and total > allowed + _SLACK:
            path = ("routes", route.name, "objectives")
            case.found.report(
                "percentiles-compound",
                f"the stages of {shown(route.name)} may miss their allocations in up to "
                f"{format_percent(total)} of requests, the route its budget in "
                f"{format_percent(allowed)}",
                "percentiles do not add up: ask more of the stages, or leave a `reserve`",
                path=path,
                severity="warning",
                detail="\n".join(
                    f"{stage}  {format_percent(share)}" for stage, share in missing.items()
                ),
            )


def _tightest(policy: Policy, route: Route) -> Plan:
    plans = [policy.plan(route, tier) for tier in tiers_of(policy, route)]
    return min(plans, key=lambda plan: plan.limit_s)


def _misses(objectives: Objectives, limit_s: float) -> float | None:
    """Return the share of requests that may be over *limit_s*, ``None`` when nothing is said."""
    kept = [share for share, seconds in objectives.percentiles.items() if seconds <= limit_s]
    if objectives.within_budget is not None:
        kept.append(objectives.within_budget)
    return 1 - max(kept) if kept and limit_s < inf else None


def _promises(policy: Policy, marks: Marks) -> Iterator[tuple[Route, Objectives, float]]:
    """Go through the routes with objectives, each with the loosest budget it has, in seconds."""
    for name, route in policy.routes.items():
        if route.objectives and marks.intact("routes", name) and marks.intact("tiers"):
            limits = [policy.limit_s(route, tier) for tier in tiers_of(policy, route)]
            yield route, route.objectives, max(limits)


RULES = (_rising, _over_budget, _added, _compounded)
