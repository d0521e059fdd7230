"""Problems for people at a terminal and for programs: text and JSON."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Final

from budgetware.policyfile.source import lines_of, visible

if TYPE_CHECKING:
    from budgetware.errors import Problem
    from budgetware.policyfile.document import Document

_WIDEST: Final = 100
_BEFORE: Final = 60
_COLOURS: Final = {"error": "\x1b[1;31m", "warning": "\x1b[1;33m", "note": "\x1b[1;36m"}
_BOLD: Final = "\x1b[1m"
_RESET: Final = "\x1b[0m"


def name_of(document: Document) -> str:
    """Return the document's file name, or what stands for one."""
    return document.file or "<policy>"


def as_text(document: Document, *, colour: bool = False) -> str:
    """Return all problems with the lines they are about, and a summary."""
    lines = lines_of(document.text) if document.text else []
    blocks = [_block(problem, name_of(document), lines, colour) for problem in document.problems]
    return "\n".join([*blocks, summary(document)])


def as_json(document: Document) -> str:
    """Return the result as one JSON object."""
    content = {
        "file": document.file,
        "valid": document.policy is not None,
        "environment": document.environment,
        "digest": document.policy.digest if document.policy else None,
        "problems": [plain(problem) for problem in document.problems],
    }
    return json.dumps(content, indent=2, ensure_ascii=False)


def plain(problem: Problem) -> dict[str, object]:
    """Return *problem* as data for programs."""
    return {
        "severity": problem.severity,
        "code": problem.code,
        "message": problem.message,
        "hint": problem.hint,
        "detail": problem.detail,
        "path": problem.path,
        "line": problem.line,
        "column": problem.column,
        "length": problem.length,
    }


def summary(document: Document) -> str:
    """Return one line that says how many problems there are, or what is promised."""
    counts = Counter(problem.severity for problem in document.problems)
    found = ", ".join(
        f"{counts[kind]} {kind}{'s' if counts[kind] > 1 else ''}"
        for kind in ("error", "warning", "note")
        if counts[kind]
    )
    if document.policy is None:
        return f"{name_of(document)}: {found}"
    policy = document.policy
    routes = [route for route in policy.routes.values() if route.match]
    content = [
        (len(policy.tiers), "tier"),
        (len(routes), "route"),
        (len(policy.routes) - len(routes), "job"),
    ]
    has = ", ".join(f"{count} {name}{'s' if count > 1 else ''}" for count, name in content if count)
    return f"{name_of(document)}: valid" + "".join(f"; {part}" for part in (has, found) if part)


def _block(problem: Problem, file: str, lines: list[str], colour: bool) -> str:  # noqa: FBT001
    """Return one problem in the way compilers show it."""
    paint, bold, plain = (_COLOURS[problem.severity], _BOLD, _RESET) if colour else ("", "", "")
    title = f"{paint}{problem.severity}[{problem.code}]{plain}{bold}: {problem.message}{plain}"
    if not 0 < problem.line <= len(lines):
        place = f"{file}:{problem.line}:{problem.column}" if problem.line else file
        rows = [title, f"  --> {place}"]
        gutter = "   "
    else:
        number = str(problem.line)
        gutter = " " * (len(number) + 2)
        excerpt, offset = _excerpt(lines[problem.line - 1], problem.column)
        width = max(min(problem.length, len(excerpt) - offset), 1)
        rows = [
            title,
            f"{gutter[:-1]}--> {file}:{problem.line}:{problem.column}",
            f"{gutter}|",
            f" {number} | {excerpt}",
            f"{gutter}| {' ' * offset}{paint}{'^' * width}{plain}",
        ]
    if problem.detail:
        rows += [f"{gutter}| {row}".rstrip() for row in ("", *problem.detail.split("\n"), "")]
    if problem.hint:
        rows.append(f"{gutter}= help: {problem.hint}")
    return "\n".join([*rows, ""])


def _excerpt(line: str, column: int) -> tuple[str, int]:
    """Return the part of *line* around *column*, and where in it the column is."""
    offset = column - 1
    start = max(min(offset - _BEFORE, len(line) - _WIDEST), 0)
    return visible(line[start : start + _WIDEST]), offset - start
