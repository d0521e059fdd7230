"""One policy file, read: the policy, everything that is wrong, and which line said what."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from budgetware.errors import PolicyError, Problem
from budgetware.policyfile.compile import compile_policy, digest_of
from budgetware.policyfile.extent import is_too_much
from budgetware.policyfile.findings import Findings, Path, Span, suggestion
from budgetware.policyfile.layers import (
    ENVIRONMENTS,
    effective,
    environments_of,
    report_near_misses,
)
from budgetware.policyfile.lint import Case, lint
from budgetware.policyfile.marks import Marks
from budgetware.policyfile.pending import report_pending
from budgetware.policyfile.shape import read_shape
from budgetware.policyfile.source import is_plain, read_text
from budgetware.policyfile.tree import Table, read_tree
from budgetware.units import shown

if TYPE_CHECKING:
    from budgetware._core.policy import Policy

MOST_ENVIRONMENTS: Final = 100
"""Each is judged like a file of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What became of one policy file.

    Attributes:
        file: The file's name as it was given, ``None`` without a file.
        text: What it says; empty when it could not be decoded.
        policy: What was promised; ``None`` when there is any error.
        problems: Errors, warnings and notes, in the order of the file.
        marks: Places of the entries, for one environment.
        environment: The layer that was applied, if any.

    """

    file: str | None = None
    text: str = ""
    policy: Policy | None = None
    problems: tuple[Problem, ...] = ()
    marks: Marks = field(default_factory=Marks)
    environment: str | None = None

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that stop start-up."""
        return tuple(problem for problem in self.problems if problem.severity == "error")

    def require(self) -> Policy:
        """Return the policy.

        Raises:
            PolicyError: There is none; all errors are listed.

        """
        if self.policy is None:
            raise PolicyError(self.errors, self.file)
        return self.policy


def check(
    source: str | bytes,
    *,
    file: str | None = None,
    environment: str | None = None,
    every_environment: bool = False,
) -> Document:
    """Read a policy file's text and say everything that is wrong with it; raises nothing.

    Args:
        source: The text, or the bytes of the file.
        file: The name to report.
        environment: The layer to apply.
        every_environment: Judge the policy of each environment as well.

    """
    found = Findings()
    text = read_text(source, found)
    tree, broken = None, set[Path]()
    if text is not None and is_plain(text, found):
        tree, broken = read_tree(text, found)
    if text is None or tree is None:
        return Document(file=file, text=text or "", problems=found.problems())
    reading = _Reading(tree, broken, found, file)
    reading.check_environment(environment)
    reading.note_what_waits()
    report_near_misses(tree, found)
    policy, marks = reading.judge(environment)
    if every_environment:
        for name in [None, *environments_of(tree)[:MOST_ENVIRONMENTS]]:
            if name != environment:
                found.environment = name
                reading.judge(name)
    problems = found.problems()
    failed = any(problem.severity == "error" for problem in problems)
    return Document(
        file=file,
        text=text,
        policy=None if failed else policy,
        problems=problems,
        marks=marks,
        environment=environment,
    )


class _Reading:
    """One file's tree on its way to a policy, in one environment after the other."""

    def __init__(self, tree: Table, broken: set[Path], found: Findings, file: str | None) -> None:
        self._tree = tree
        self._broken = broken
        self._found = found
        self._file = file
        self._shape = read_shape(tree, found)

    def check_environment(self, environment: str | None) -> None:
        """Report an environment the file does not know."""
        known = environments_of(self._tree)
        if len(known) > MOST_ENVIRONMENTS:
            self._found.report(
                "too-large",
                f"there are {len(known)} environments, of {MOST_ENVIRONMENTS} at most",
                "let environments of one promise have one name",
                at=self._tree.entries[ENVIRONMENTS].key.span,
                path=(ENVIRONMENTS,),
            )
        if environment is not None and environment not in known:
            entry = self._tree.entries.get(ENVIRONMENTS)
            self._found.report(
                "unknown-environment",
                f"unknown environment {shown(environment)}",
                suggestion(environment, known, "environments"),
                at=entry.key.span if entry else Span(1, 1),
                path=(ENVIRONMENTS,) if entry else (),
            )

    def note_what_waits(self) -> None:
        """Note the keys nothing acts on yet."""
        if self._shape.model is not None:
            report_pending(self._shape.model, self._tree, self._found)

    def judge(self, environment: str | None) -> tuple[Policy | None, Marks]:
        """Return the policy of one environment after linting it."""
        tree = effective(self._tree, environment)
        shape = self._shape
        if environment is not None:
            # Whatever has the wrong shape was reported where it stands, in the file or a layer.
            shape = read_shape(tree, Findings())
        marks = Marks(tree, self._broken | shape.damaged)
        if shape.model is None or self._shape.model is None:
            return None, marks
        self._found.span_of = lambda path: marks.span(*path)
        if is_too_much(shape.model, self._found):
            return None, marks
        policy = compile_policy(
            shape.model,
            environment=environment,
            source=self._file,
            digest=digest_of(tree, environment),
        )
        lint(Case(self._shape.model, shape.model, policy, marks, self._found))
        return policy, marks
