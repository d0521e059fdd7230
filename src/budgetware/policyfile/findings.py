"""What was found wrong so far, and where."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from difflib import get_close_matches
from heapq import nsmallest
from typing import TYPE_CHECKING, Final, Literal

from budgetware.errors import Problem
from budgetware.units import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Path = tuple[str | int, ...]
"""Where an entry is in the file's structure: ``("routes", "signals", "answers", 0)``."""

MOST_PROBLEMS: Final = 200
"""Of errors, warnings and notes so many each; a file with more is not listed to the end."""

Severity = Literal["error", "warning", "note"]

_MOST_LISTED: Final = 12
_LONGEST_NAME: Final = 200
_LONGEST_HINT: Final = 600

# Comparing two words takes the square of their length, or worse.
_MOST_COMPARED: Final = 50
_LONGEST_COMPARED: Final = 64

_SEVERITIES: Final[tuple[Severity, ...]] = ("error", "warning", "note")


@dataclass(frozen=True, slots=True)
class Span:
    """Part of a line: one-based line and column, and how many characters."""

    line: int
    column: int
    length: int = 1


NOWHERE: Final = Span(0, 0, 0)


class FieldError(ValueError):
    """A value that cannot be used; carries what would be right and the rule's name."""

    def __init__(self, message: str, hint: str = "", code: str = "bad-value") -> None:
        self.message = message
        self.hint = hint
        self.code = code
        super().__init__(message)


class Findings:
    """Collects problems, each once, up to a limit; hands them out in the file's order."""

    def __init__(self) -> None:
        self._problems: dict[tuple[int, int, str, str], Problem] = {}
        self._counts: Counter[Severity] = Counter()
        self._left_out: set[Severity] = set()
        self.span_of: Callable[[Path], Span] = lambda _: NOWHERE
        self.environment: str | None = None
        """While set, problems not met before are said to be of this layer; notes are not taken."""

    @property
    def full(self) -> bool:
        """Whether there are more errors than are listed, so that looking for more is in vain."""
        return "error" in self._left_out

    def report(  # noqa: PLR0913 - a problem has this many parts
        self,
        code: str,
        message: str,
        hint: str | Callable[[], str] = "",
        *,
        at: Span | None = None,
        path: Path = (),
        severity: Severity = "error",
        detail: str = "",
    ) -> None:
        """Take one problem, unless the same is known already; without *at*, it is at *path*.

        A *hint* that takes time to find is a function, called when the problem is taken.
        """
        at = self.span_of(path) if at is None else at
        key = (at.line, at.column, code, message)
        if key in self._problems or (self.environment and severity == "note"):
            return
        if self._counts[severity] >= MOST_PROBLEMS:
            self._left_out.add(severity)
            return
        self._counts[severity] += 1
        layer = f" (in environment {shown(self.environment)})" if self.environment else ""
        self._problems[key] = Problem(
            message=message + layer,
            hint=_cut(hint if isinstance(hint, str) else hint(), _LONGEST_HINT),
            line=at.line,
            column=at.column,
            path=dotted(path),
            code=code,
            severity=severity,
            length=at.length,
            detail=detail,
        )

    def problems(self) -> tuple[Problem, ...]:
        """Return everything found, in the order of the file."""
        found = sorted(self._problems.values(), key=lambda problem: (problem.line, problem.column))
        found += [
            Problem(
                message=f"there are more {severity}s than the {MOST_PROBLEMS} listed here",
                code="too-many-problems",
                severity=severity,
            )
            for severity in _SEVERITIES
            if severity in self._left_out
        ]
        return tuple(found)


def dotted(path: Path) -> str:
    """Return *path* as people write it: ``routes.signals.answers[0]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{_cut(part, _LONGEST_NAME)}"
    return text.removeprefix(".")


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}..."


def suggestion(wrong: str, known: Iterable[str], kind: str) -> str:
    """Return the hint for an unknown name: the one probably meant, or all there are."""
    names = list(known)
    if close := closest(wrong, names):
        return f"did you mean `{close}`?"
    if not names:
        return f"there are no {kind}"
    listed = ", ".join(_cut(name, _LONGEST_NAME) for name in names[:_MOST_LISTED])
    return f"the {kind} are {listed}" + (", ..." if len(names) > _MOST_LISTED else "")


def closest(wrong: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return which of *known* was probably meant; of many, those of about the length count."""
    lowered = {name.lower(): name for name in known if len(name) <= _LONGEST_COMPARED}
    meant = wrong[:_LONGEST_COMPARED].lower()
    near = nsmallest(_MOST_COMPARED, lowered, key=lambda name: abs(len(name) - len(meant)))
    close = get_close_matches(meant, near, n=1, cutoff=cutoff)
    return lowered[close[0]] if close else None
