"""What is wrong with a policy whose every entry has the right shape."""

from __future__ import annotations

from budgetware.policyfile.lint import allocations, answers, modes, objectives, routes, tiers
from budgetware.policyfile.lint.case import Case

__all__ = ["Case", "lint"]

_RULES = (
    *modes.RULES,
    *tiers.RULES,
    *routes.RULES,
    *allocations.RULES,
    *objectives.RULES,
    *answers.RULES,
)


def lint(case: Case) -> None:
    """Ask every rule about *case*; what it finds goes to its findings.

    Entries that could not be read are left out, and no rule judges a part that lacks some.
    """
    for rule in _RULES:
        rule(case)
