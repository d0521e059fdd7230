"""Who plans to use what of one budget."""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum, inf
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from budgetware._core.policy import Plan, Policy, Route
    from budgetware.policyfile.marks import Marks

SLACK_S: Final = 1e-9
"""Sums of seconds this close are equal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One line of the plan: a stage, or the reserve.

    Attributes:
        name: The stage's name, or ``reserve``.
        seconds: What it may use, ``inf`` when it is only measured.
        line: Where that is written, 0 without a file.
        inherited: Whether it comes from the file's own ``stages``.
        optional: Whether a request may do without it.

    """

    name: str
    seconds: float
    line: int = 0
    inherited: bool = False
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Spending:
    """What one route plans to use of one tier's budget, in seconds."""

    plan: Plan
    reserve_s: float
    used_s: float

    @classmethod
    def of(cls, policy: Policy, route: Route | None, tier: str | None) -> Spending:
        """Add up the plan of *route* for *tier*; the whole reserve, even where it does not fit."""
        plan = policy.plan(route, tier)
        limits = [stage.limit_s for stage in plan.stages.values() if stage.limit_s < inf]
        reserve_s = plan.reserve_s
        if route is not None and route.reserve is not None:
            reserve_s = route.reserve.of(plan.limit_s)
        planned_s = reserve_s if reserve_s < inf else 0.0
        return cls(plan, reserve_s, fsum([*limits, planned_s]))

    @property
    def left_s(self) -> float:
        """Seconds nobody plans with; negative when too much is planned."""
        left_s = self.plan.limit_s - self.used_s
        return 0.0 if abs(left_s) < SLACK_S else left_s

    def items(self, policy: Policy, marks: Marks, route: Route | None) -> list[Item]:
        """Return the plan line by line, in its own order and the reserve last."""
        name = None if route is None else route.name
        items: list[Item] = []
        for stage in policy.plan(route, self.plan.tier).stages.values():
            path = marks.stage(name, stage.name)
            items.append(
                Item(
                    name=stage.name,
                    seconds=stage.limit_s,
                    line=marks.span(*path).line,
                    inherited=name is not None and path[0] == "stages",
                    optional=stage.optional,
                )
            )
        if route is not None and route.reserve is not None:
            line = marks.span("routes", route.name, "reserve").line
            items.append(Item(name="reserve", seconds=self.reserve_s, line=line))
        return items


def table(rows: Sequence[tuple[str, str, str]]) -> str:
    """Return rows of name, amount and remark as aligned lines."""
    names, amounts = (max((len(row[column]) for row in rows), default=0) for column in (0, 1))
    return "\n".join(
        f"{name:<{names}}  {amount:>{amounts}}  {remark}".rstrip() for name, amount, remark in rows
    )
