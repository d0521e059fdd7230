"""A latency budget inside every request: stages, limits and tiers from one policy file."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from budgetware._version import __version__
from budgetware.errors import BudgetwareError, MissingExtra, PolicyError
from budgetware.handle import budget

if TYPE_CHECKING:
    from budgetware._core.policy import Policy
    from budgetware._core.record import Level, Outcome, RequestRecord, StageRecord, StageTotal
    from budgetware.asgi import BudgetMiddleware

__all__ = [
    "BudgetMiddleware",
    "BudgetwareError",
    "Level",
    "MissingExtra",
    "Outcome",
    "Policy",
    "PolicyError",
    "RequestRecord",
    "StageRecord",
    "StageTotal",
    "__version__",
    "budget",
]

# What weighs something, or is needed by few, is imported when it is first asked for.
_LATER = {
    "BudgetMiddleware": "budgetware.asgi",
    "Policy": "budgetware._core.policy",
    "Level": "budgetware._core.record",
    "Outcome": "budgetware._core.record",
    "RequestRecord": "budgetware._core.record",
    "StageRecord": "budgetware._core.record",
    "StageTotal": "budgetware._core.record",
}


def __getattr__(name: str) -> object:
    """Import a part of the front door on first use."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER[name]), name)
