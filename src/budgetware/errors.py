"""What can be said to be wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


class BudgetwareError(Exception):
    """The root of every error budgetware raises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong with a policy file, and where.

    Attributes:
        message: What is wrong, with the offending text.
        hint: What would be right; empty when the message says it all.
        line: One-based line, or 0 when the problem has no place in the text.
        column: One-based column, or 0 likewise.
        path: The dotted path of the entry, such as ``routes.signals.stages.db``.
        code: A stable, short name of the rule, such as ``duplicate-key``.
        severity: An ``error`` stops start-up; a ``warning`` is only reported; a ``note`` is worth
            knowing and never wrong.
        length: How many characters of the line are meant, from the column on.
        detail: Lines that show how it comes about, such as a table of who uses what.

    """

    message: str
    hint: str = ""
    line: int = 0
    column: int = 0
    path: str = ""
    code: str = "invalid"
    severity: Literal["error", "warning", "note"] = "error"
    length: int = 1
    detail: str = ""


class PolicyError(BudgetwareError):
    """The policy cannot be used; every problem found is listed.

    Attributes:
        file: The policy file's name as it was given, or ``None`` for a policy built in code.
        line: The first problem's line.
        column: The first problem's column.
        problems: All of them, in the order of the file.

    """

    def __init__(self, problems: tuple[Problem, ...], file: str | None = None) -> None:
        self.file = file
        self.problems = problems
        self.line = problems[0].line if problems else 0
        self.column = problems[0].column if problems else 0
        super().__init__("\n".join(self._describe(problem) for problem in problems))

    def __reduce__(self) -> tuple[object, ...]:
        """Have a copy made of what it was made of."""
        return type(self), (self.problems, self.file)

    def _describe(self, problem: Problem) -> str:
        place = self.file or "policy"
        if problem.line:
            place = f"{place}:{problem.line}:{problem.column}"
        hint = f" ({problem.hint})" if problem.hint else ""
        return f"{place}: {problem.message}{hint}"


class MissingExtra(BudgetwareError, ImportError):  # noqa: N818 - named for what it tells the reader
    """A part of budgetware needs a package that is not installed."""

    def __init__(self, extra: str, package: str) -> None:
        self.extra = extra
        self.package = package
        super().__init__(f"{package} is not installed; pip install 'budgetware[{extra}]'")

    def __reduce__(self) -> tuple[object, ...]:
        """Have a copy made of what it was made of."""
        return type(self), (self.extra, self.package)
