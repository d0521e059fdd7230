"""``budget``: the one name most applications import."""

from __future__ import annotations

from typing import TYPE_CHECKING

from budgetware._core.current import CurrentBudget

if TYPE_CHECKING:
    from budgetware.jobs import Job


class BudgetHandle(CurrentBudget):
    """The budget of the running request, and the way to open one where there is no request."""

    __slots__ = ()

    def open(self, name: str, *, tier: str | None = None) -> Job:
        """Open a budget for a job, a consumer or a script.

        ``with budget.open("nightly-export"):`` or ``@budget.open("nightly-export")`` gives the
        same account a request has, with the limits of the route of that name in the policy file.
        A name the file does not list is measured and promises nothing.

        Args:
            name: The route, as the policy file calls it.
            tier: Whose promise counts, when the job works for one tier.

        Raises:
            PolicyError: The policy file cannot be used; raised when the job starts.

        """
        from budgetware.jobs import Job  # noqa: PLC0415 - requests never need it

        return Job(name, tier)


budget = BudgetHandle()
"""The budget of whichever request is running."""
