"""A latency budget inside every request: stages, limits and tiers from one policy file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from budgetware._version import __version__
from budgetware.errors import BudgetwareError, MissingExtra, PolicyError
from budgetware.handle import budget

if TYPE_CHECKING:
    from budgetware._core.policy import Policy
    from budgetware.asgi import BudgetMiddleware

__all__ = [
    "BudgetMiddleware",
    "BudgetwareError",
    "MissingExtra",
    "Policy",
    "PolicyError",
    "__version__",
    "budget",
]


def __getattr__(name: str) -> object:
    """Import the parts that weigh something on first use."""
    if name == "BudgetMiddleware":
        from budgetware.asgi import BudgetMiddleware  # noqa: PLC0415 - see above

        return BudgetMiddleware
    if name == "Policy":
        from budgetware._core.policy import Policy  # noqa: PLC0415 - see above

        return Policy
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
