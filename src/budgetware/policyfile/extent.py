"""How much would come of a file? A short one can multiply into more than a process should hold.

Every tier has a plan of every route, with the stages the route inherits; a few thousand short
lines of each would be billions of entries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from budgetware.policyfile.parts import StagePart

if TYPE_CHECKING:
    from budgetware._core.policy import Amount
    from budgetware.policyfile.findings import Findings
    from budgetware.policyfile.schema import PolicyFile

MOST_PLANNED: Final = 30_000
"""Stages and operations, each counted once for every route and tier that plans with it."""


def is_too_much(model: PolicyFile, found: Findings) -> bool:
    """Tell, and report to *found*, whether *model* plans with more than ``MOST_PLANNED``."""
    inherited = {name: _size(entry) for name, entry in model.stages.items()}
    shared = 1 + sum(inherited.values())
    planned = shared  # by requests that match no route
    for route in model.routes.values():
        below = inherited if route.match else {}
        planned += shared if route.match else 1
        for name, entry in route.stages.items():
            planned += (0 if entry is None else _size(entry)) - below.get(name, 0)
    planned *= max(len(model.tiers), 1)
    if planned <= MOST_PLANNED:
        return False
    found.report(
        "too-large",
        f"{len(model.tiers)} tiers, {len(model.routes)} routes and {len(model.stages)} shared "
        f"stages come to {planned} plans for a stage, of {MOST_PLANNED} at most",
        "fewer of either will do; a stage of some routes can be listed under them",
        path=("routes",) if model.routes else ("tiers",),
    )
    return True


def _size(entry: Amount | StagePart) -> int:
    return 1 + len(entry.operations) if isinstance(entry, StagePart) else 1
