"""Which line said so? Places of the entries a policy was made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from budgetware.policyfile.findings import NOWHERE, Path, Span
from budgetware.policyfile.shape import span_at

if TYPE_CHECKING:
    from collections.abc import Iterable

    from budgetware._core.policy import Policy, Route
    from budgetware.policyfile.tree import Table


class Marks:
    """Places in one file, for one environment; without a tree nothing has a place."""

    def __init__(self, tree: Table | None = None, damaged: Iterable[Path] = ()) -> None:
        self._tree = tree
        self._damaged = frozenset(damaged)
        self._around = {path[:end] for path in self._damaged for end in range(len(path))}

    def span(self, *path: str | int) -> Span:
        """Return where the entry is: its value, or its key when the value is a structure."""
        return NOWHERE if self._tree is None else span_at(self._tree, path)

    def has(self, *path: str | int) -> bool:
        """Whether the file itself says this, rather than a default."""
        return self._tree is not None and span_at(self._tree, path, exact=True) != NOWHERE

    def intact(self, *path: str | int) -> bool:
        """Whether everything at and below *path* could be read."""
        above = (path[:end] for end in range(len(path) + 1))
        return path not in self._around and self._damaged.isdisjoint(above)

    def stage(self, route: str | None, stage: str) -> Path:
        """Return the path of a route's stage: its own, or the one it inherits."""
        if route is not None and self.has("routes", route, "stages", stage):
            return ("routes", route, "stages", stage)
        return ("stages", stage)


def limit_path(policy: Policy, route: Route | None, tier: str | None) -> Path | None:
    """Return the path of the entry that sets the limit, ``None`` when nothing does."""
    if route is not None and tier is not None and tier in route.tier_budgets:
        return ("routes", route.name, "budget", tier)
    of_route = None if route is None else route.budget
    of_tier = policy.tiers[tier].budget if tier is not None and tier in policy.tiers else None
    if route is not None and of_route is not None and (of_tier is None or of_route <= of_tier):
        return ("routes", route.name, "budget")
    return None if tier is None or of_tier is None else ("tiers", tier, "budget")


def tiers_of(policy: Policy, route: Route | None) -> list[str | None]:
    """Return the tiers *route* is asked for; ``None`` where there is no tier.

    A job has no caller, so only the tiers it names itself matter to it.
    """
    if route is not None and not route.match:
        return [None, *route.tier_budgets]
    return list(policy.tiers) or [None]
