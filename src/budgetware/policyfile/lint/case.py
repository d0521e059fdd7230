"""What a rule looks at: one file, as it was written and as a policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from budgetware._core.policy import Policy
    from budgetware.policyfile.findings import Findings
    from budgetware.policyfile.marks import Marks
    from budgetware.policyfile.schema import PolicyFile


@dataclass(frozen=True, slots=True)
class Case:
    """One policy under examination.

    Attributes:
        file: The file as it was written, environments and all.
        model: What it says in the environment that is examined.
        policy: That, compiled.
        marks: Where its entries are.
        found: Where findings go.

    """

    file: PolicyFile
    model: PolicyFile
    policy: Policy
    marks: Marks
    found: Findings
