"""Problems where code is reviewed: GitHub annotations and SARIF."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from budgetware._version import __version__
from budgetware.policyfile.render import name_of, summary
from budgetware.policyfile.rules import RULES

if TYPE_CHECKING:
    from budgetware.errors import Problem
    from budgetware.policyfile.document import Document

_GITHUB: Final = {"error": "error", "warning": "warning", "note": "notice"}

SARIF_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"


def as_github(document: Document) -> str:
    """Return one workflow command per problem, and a summary line.

    GitHub shows ten annotations of each kind per step; the log keeps all of them.
    """
    file = name_of(document)
    return "\n".join(
        [*(_command(problem, file) for problem in document.problems), summary(document)]
    )


def as_sarif(document: Document) -> str:
    """Return a SARIF 2.1.0 log with one result per problem."""
    codes = sorted({problem.code for problem in document.problems})
    driver = {
        "name": "budgetware",
        "semanticVersion": __version__,
        "rules": [
            {"id": code, "shortDescription": {"text": RULES.get(code, code)}} for code in codes
        ],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [
            _result(problem, codes.index(problem.code), name_of(document))
            for problem in document.problems
        ],
    }
    log = {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=2, ensure_ascii=False)


def _command(problem: Problem, file: str) -> str:
    properties = {"file": file}
    if problem.line:
        properties |= {
            "line": str(problem.line),
            "col": str(problem.column),
            "endColumn": str(problem.column + problem.length),
        }
    properties["title"] = problem.code
    listed = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    return f"::{_GITHUB[problem.severity]} {listed}::{_data(_told(problem))}"


def _result(problem: Problem, rule: int, file: str) -> dict[str, object]:
    place: dict[str, object] = {"artifactLocation": {"uri": quote(file.replace("\\", "/"))}}
    if problem.line:
        place["region"] = {
            "startLine": problem.line,
            "startColumn": problem.column,
            "endColumn": problem.column + problem.length,
        }
    return {
        "ruleId": problem.code,
        "ruleIndex": rule,
        "level": problem.severity,
        "message": {"text": _told(problem)},
        "locations": [{"physicalLocation": place}],
    }


def _told(problem: Problem) -> str:
    hint = f" ({problem.hint})" if problem.hint else ""
    detail = f"\n{problem.detail}" if problem.detail else ""
    return f"{problem.message}{hint}{detail}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
