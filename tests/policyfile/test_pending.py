"""Keys that validate and do not act yet: said once each, and only to people who ask."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import structlog
from click.testing import CliRunner

from budgetware.cli import main
from budgetware.policyfile import check, json_schema, load
from budgetware.policyfile.pending import CODE, PENDING
from budgetware.policyfile.reference import reference_page
from budgetware.runtime import Runtime

TRADING = Path(__file__).parent.parent / "fixtures" / "policies" / "trading.yaml"

ACTING = """\
version: 1
service: s
mode: enforce
ladder: {warning: 80%}
concurrency: 8
tiers:
  t: {budget: 1s, late_worth: -1, mode: shadow, rate: 5/s, queue: 10ms, share: 50%}
  u: {budget: 1s, confidence: 60%, max_late_rate: 1%}
stages: {db: {budget: 5ms, optional: true, operations: {read: 2ms}, calls: 3}}
routes:
  r:
    match: GET /r
    budget: {t: 1s}
    reserve: 10%
    stages: {ml: {budget: 5ms, on_overrun: answer}}
    cancel_safe: true
    clock: last_byte
    mode: enforce
    answers: [cached, {static: {status: 200, body: x, headers: {a: b}}}, reject]
    cache: {fresh: 1s, stale: 2s, vary: [tier]}
    objectives: {degraded: 1%}
environments: {dev: {routes: {r: {objectives: {degraded: 2%}}}}}
"""


def pending(text: str) -> dict[str, tuple[int, int, str]]:
    """Return the notes about *text* after its version: path, line, column and message."""
    problems = check("version: 1\n" + text, every_environment=True).problems
    notes = [problem for problem in problems if problem.code == CODE]
    assert {note.severity for note in notes} <= {"note"}
    return {note.path: (note.line, note.column, note.message) for note in notes}


def test_the_table_is_what_this_release_does_not_do() -> None:
    """The keys nothing acts on, all of them and no others."""
    assert set(PENDING) == {"objectives", "checks"}


def test_keys_that_act_are_not_noted() -> None:
    """Modes, answers, admission, what late is worth and a route's `degraded` have effects."""
    document = check(ACTING, every_environment=True)
    assert document.policy is not None
    assert CODE not in {problem.code for problem in document.problems}


def test_a_key_is_noted_once_with_its_first_place_and_how_often_it_is_there() -> None:
    """Three objectives are one note at the first; those of environments count as well."""
    text = (
        "stages:\n  a: {objectives: {p95: 1ms}}\n  b: {objectives: {p95: 2ms}}\n"
        "environments: {dev: {stages: {b: {objectives: {p95: 3ms}}}}}\n"
    )
    message = (
        "`objectives` has no effect in this release, except a route's `degraded` "
        "(here first, 3 times in all)"
    )
    assert pending(text) == {"stages.a.objectives": (3, 7, message)}


def test_a_key_only_an_environment_has_is_noted_there() -> None:
    """What stands once carries no count."""
    text = "environments:\n  dev: {checks: {assets: {total: 1MB}}}\n"
    message = "`checks` has no effect in this release"
    assert pending(text) == {"environments.dev.checks": (3, 9, message)}


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("checks: {load: {users: 1, min_rate: 5/s}}", ["checks"]),
        ("routes: {r: {match: GET /r, objectives: {p95: 5ms}}}", ["routes.r.objectives"]),
        (
            "routes: {r: {match: GET /r, objectives: {degraded: 1%, error_rate: 1%}}}",
            ["routes.r.objectives"],
        ),
        ("stages: {db: {objectives: {degraded: 1%}}}", ["stages.db.objectives"]),
        (
            "routes: {r: {match: GET /r, stages: {db: {objectives: {degraded: 1%}}}}}",
            ["routes.r.stages.db.objectives"],
        ),
    ],
)
def test_each_pending_key_is_noted_in_its_place(text: str, paths: list[str]) -> None:
    """Of a pending part the part is noted; `degraded` only acts where it is a route's."""
    assert list(pending(text + "\n")) == paths


def test_names_that_read_like_pending_keys_are_no_keys() -> None:
    """A stage, a tier or a header may be called `checks` or `objectives`."""
    text = (
        "tiers: {checks: {budget: 1s}}\nstages: {objectives: {operations: {checks: 1ms}}}\n"
        "routes:\n  checks: {match: GET /c, answers: [{static: {headers: {checks: a}}}]}\n"
    )
    assert pending(text) == {}


def test_notes_have_no_effect_on_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`validate` passes, strict or not, and `explain` ends with the notes."""
    monkeypatch.chdir(tmp_path)
    text = "version: 1\nchecks: {assets: {total: 1MB}}\nroutes: {j: {}}\n"
    (tmp_path / "budgetware.yaml").write_text(text)
    for arguments in (["validate"], ["validate", "--strict"], ["explain"]):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0
        assert result.stdout.count("`checks` has no effect in this release") == 1


def test_the_runtime_never_speaks_of_it(caplog: pytest.LogCaptureFixture) -> None:
    """A service that starts with such a file logs and warns of nothing."""
    caplog.set_level(logging.DEBUG)
    with structlog.testing.capture_logs() as events, Runtime.lent(policy=load(TRADING)):
        pass
    assert CODE not in caplog.text
    assert "no effect" not in caplog.text
    assert events == []


def test_the_schema_and_the_page_mark_what_waits() -> None:
    """Every key of the table, and no other, says so where editors and readers look it up."""
    schema = json_schema.json_schema()
    marked = {
        key
        for part in (schema, *schema["$defs"].values())
        for key, field in part["properties"].items()
        if "Not in this release" in field["description"]
    }
    assert marked == set(PENDING)
    page = reference_page()
    for key, waiting in PENDING.items():
        rows = [row for row in page.splitlines() if row.startswith(f"| `{key}` |")]
        assert rows
        assert all(f"it waits for {waiting.actor}." in row for row in rows)
