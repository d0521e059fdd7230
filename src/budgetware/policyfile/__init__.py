"""The policy file: YAML text to a :class:`~budgetware.Policy`, and everything wrong with it.

``load`` is what a service calls at start-up, ``check`` what tools call. Importing this package
imports a YAML parser and pydantic; importing ``budgetware`` does not.
"""

from __future__ import annotations

from budgetware.policyfile.discover import find, load, read
from budgetware.policyfile.document import Document, check
from budgetware.policyfile.findings import Span
from budgetware.policyfile.marks import Marks
from budgetware.policyfile.reload import PolicyWatch

__all__ = ["Document", "Marks", "PolicyWatch", "Span", "check", "find", "load", "read"]
