"""The routes: can each be reached, and is everything it refers to there."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from budgetware._core.routes import Shape, shape
from budgetware.http import SAFE_METHODS
from budgetware.policyfile.findings import suggestion
from budgetware.units import LONGEST_REQUEST_S, format_duration, shown

if TYPE_CHECKING:
    from budgetware.policyfile.findings import Path
    from budgetware.policyfile.lint.case import Case


def _unreachable(case: Case) -> None:
    """Find the second of two equal matches: no request gets there."""
    first: dict[tuple[str, Shape], Path] = {}
    for name, route in case.policy.routes.items():
        if not case.marks.intact("routes", name, "match"):
            continue
        listed = case.marks.has("routes", name, "match", 0)
        for index, match in enumerate(route.match):
            path: Path = ("routes", name, "match", *((index,) if listed else ()))
            earlier = first.setdefault((match.method, shape(match.template)), path)
            if earlier != path:
                case.found.report(
                    "unreachable",
                    f"{shown(f'{match.method} {match.template}')} never gets a request",
                    f"route {shown(str(earlier[1]))} on line {case.marks.span(*earlier).line} "
                    "matches the same ones",
                    path=path,
                )


def _unknown_tiers(case: Case) -> None:
    """Find budgets of a route for tiers that are not there."""
    if not case.marks.intact("tiers"):
        return
    for name, route in case.policy.routes.items():
        for tier in route.tier_budgets:
            if tier not in case.policy.tiers:
                path = ("routes", name, "budget", tier)
                case.found.report(
                    "unknown-tier",
                    f"unknown tier {shown(tier)}",
                    partial(suggestion, tier, case.policy.tiers, "tiers"),
                    path=path,
                )


def _unknown_stages(case: Case) -> None:
    """Find stages a route drops that it does not inherit, nor has in the file under a layer."""
    if not case.marks.intact("stages"):
        return
    for name, route in case.model.routes.items():
        below = case.file.routes.get(name)
        own = below.stages if below else {}
        for stage, entry in route.stages.items():
            if entry is None and stage not in case.policy.stages and own.get(stage) is None:
                case.found.report(
                    "unknown-stage",
                    f"there is no stage {shown(stage)} to drop",
                    partial(suggestion, stage, case.policy.stages, "inherited stages"),
                    path=("routes", name, "stages", stage),
                )


def _budget_in_force(case: Case) -> None:
    """Find a route's budget that every tier's own undercuts."""
    of_tiers = [tier.budget for tier in case.policy.tiers.values()]
    if not of_tiers or not case.marks.intact("tiers"):
        return
    for name, route in case.policy.routes.items():
        if not route.match or route.budget is None or None in of_tiers:
            continue
        if all(budget is not None and route.budget > budget for budget in of_tiers):
            written = format_duration(route.budget)
            tier = next(iter(case.policy.tiers))
            case.found.report(
                "never-in-force",
                f"the budget of {written} is never in force: every tier's own is shorter",
                f"to promise it in place of a tier's own, write `budget: {{{tier}: {written}}}`",
                path=("routes", name, "budget"),
                severity="warning",
            )


def _too_long(case: Case) -> None:
    """Find requests that run for days; only jobs do."""
    for name, route in case.policy.routes.items():
        if route.match and route.budget is not None and route.budget > LONGEST_REQUEST_S:
            case.found.report(
                "out-of-range",
                f"{format_duration(route.budget)} is too long for a request",
                f"at most {format_duration(LONGEST_REQUEST_S)}; a job, without `match`, may run "
                "longer",
                path=("routes", name, "budget"),
            )


def _cancelled_writes(case: Case) -> None:
    """Find work that changes something and would be cancelled half-way."""
    for name, route in case.policy.routes.items():
        unsafe = sorted({match.method for match in route.match} - SAFE_METHODS)
        if route.cancel_safe and unsafe:
            methods = ", ".join(unsafe)
            case.found.report(
                "cancel-unsafe",
                f"`cancel_safe` on a route for {methods}: work that changes something is never "
                "cancelled",
                "remove it, or give the safe methods a route of their own",
                path=("routes", name, "cancel_safe"),
            )


RULES = (
    _unreachable,
    _unknown_tiers,
    _unknown_stages,
    _budget_in_force,
    _too_long,
    _cancelled_writes,
)
