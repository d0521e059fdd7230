"""The command line: what it prints and how it exits."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from budgetware.cli import main

POLICIES = Path(__file__).parent / "fixtures" / "policies"
TRADING = str(POLICIES / "trading.yaml")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BUDGETWARE_POLICY", raising=False)
    monkeypatch.delenv("BUDGETWARE_ENV", raising=False)


def run(*arguments: str) -> Result:
    """Run one command in this process."""
    # click before 8.2 mixes both outputs unless it is told not to, and since then cannot be told.
    apart: dict[str, Any] = {"mix_stderr": False}
    told = "mix_stderr" in signature(CliRunner).parameters
    return CliRunner(**(apart if told else {})).invoke(main, arguments)


def test_a_valid_file_exits_with_0() -> None:
    """Notes do not fail a file, not even a strict check."""
    result = run("validate", TRADING)
    assert result.exit_code == 0
    assert result.output.endswith("trading.yaml: valid; 3 tiers, 2 routes; 3 notes\n")
    assert run("validate", "--strict", TRADING).exit_code == 0


def test_errors_exit_with_2() -> None:
    """A file with an error is a policy error."""
    result = run("validate", str(POLICIES / "seed_001.yaml"))
    assert result.exit_code == 2
    assert "error[overcommitted]: the stages of route `transaction`" in result.output


def test_warnings_only_fail_a_strict_check() -> None:
    """Warnings are reported and pass, unless asked otherwise."""
    path = str(POLICIES / "seed_003.yaml")
    assert run("validate", path).exit_code == 0
    assert run("validate", path, "--strict").exit_code == 2


def test_validate_finds_the_file_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a name the file is found as a service finds it."""
    (tmp_path / "budgetware.yaml").write_text("version: 1\n")
    assert run("validate").output == "budgetware.yaml: valid\n"
    monkeypatch.setenv("BUDGETWARE_POLICY", "gone.yaml")
    gone = run("validate")
    assert (gone.exit_code, "no such file" in gone.output) == (2, True)


def test_no_file_at_all_is_a_usage_error() -> None:
    """There is nothing to validate or to explain, and the message says how to name it."""
    for command in ("validate", "explain"):
        result = run(command)
        assert result.exit_code == 2
        assert result.stderr.startswith("error: there is no policy file: name one, set BUDGETWARE")


def test_a_broken_pyproject_is_a_policy_error(tmp_path: Path) -> None:
    """What names the file has to be readable."""
    (tmp_path / "pyproject.toml").write_text("[tool")
    result = run("validate")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: pyproject.toml: this cannot be read")


def test_environments_are_judged_all_or_one(tmp_path: Path) -> None:
    """Without --env each environment is checked; with it, only that one."""
    (tmp_path / "b.yaml").write_text(
        "version: 1\ntiers: {t: {budget: 1s}}\nroutes: {r: {match: GET /r, stages: {db: 50ms}}}\n"
        "environments: {dev: {}, prod: {tiers: {t: {budget: 10ms}}}}\n"
    )
    assert run("validate", "b.yaml").exit_code == 2
    assert run("validate", "b.yaml", "--env", "dev").exit_code == 0
    assert run("validate", "b.yaml", "--env", "prod").exit_code == 2
    unknown = run("validate", "b.yaml", "--env", "prd")
    assert (unknown.exit_code, "did you mean `prod`?" in unknown.output) == (2, True)


@pytest.mark.parametrize("form", ["json", "sarif"])
def test_formats_for_programs_are_json(form: str) -> None:
    """Nothing but one JSON document is printed, and the exit code is the same."""
    result = run("validate", str(POLICIES / "seed_000.yaml"), "--format", form)
    assert result.exit_code == 2
    assert isinstance(json.loads(result.stdout), dict)


def test_github_format_prints_workflow_commands() -> None:
    """Each problem becomes an annotation at its line."""
    result = run("validate", str(POLICIES / "seed_004.yaml"), "--format", "github")
    assert result.exit_code == 0
    assert "::notice file=" in result.stdout
    assert ",line=16,col=5,endColumn=11,title=unallocated::1ms of the budget" in result.stdout


def test_output_is_the_same_every_time() -> None:
    """Two runs in two processes print the same bytes."""
    command = [sys.executable, "-m", "budgetware.cli", "validate", str(POLICIES / "seed_000.yaml")]
    outputs = {
        subprocess.run(
            command,
            capture_output=True,
            check=False,
            env={"PATH": os.environ["PATH"], "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert b"error[overcommitted]" in outputs.pop()


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_colour_is_for_terminals_that_want_it(no_color: str, coloured: bool) -> None:  # noqa: FBT001
    """A terminal gets colour unless NO_COLOR is set; a pipe never does."""
    command = [sys.executable, "-m", "budgetware.cli", "validate", str(POLICIES / "seed_001.yaml")]
    environment = {"PATH": os.environ["PATH"], "NO_COLOR": no_color}
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdout=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        while b"3 notes" not in shown:
            shown += os.read(ours, 65536)
        assert process.wait(10) == 2
    os.close(ours)
    assert (b"\x1b[" in shown) is coloured
    piped = subprocess.run(command, capture_output=True, check=False, env=environment).stdout
    assert b"\x1b[" not in piped


def test_schema_prints_the_schema_and_the_page() -> None:
    """What editors and people read comes from the same place."""
    assert json.loads(run("schema").stdout)["title"] == "budgetware.yaml"
    assert run("schema", "--format", "markdown").stdout.startswith("# The policy file\n")


def test_explain_says_which_line_promises_what() -> None:
    """A request's route, the budget in force, its stages and what is left, each with its line."""
    result = run(
        "explain", "get", "/signals/EURUSD?x=1", "--tier", "enterprise", "--policy", TRADING
    )
    assert result.exit_code == 0
    assert (
        result.stdout
        == f"""\
GET /signals/EURUSD
  route signals: GET /signals/{{symbol}}  ({TRADING}:20)
  mode observe, clock first_byte

  tier enterprise: 30ms, from tiers.enterprise.budget (line 11)
    gateway       2ms  line 14, inherited
    auth          1ms  line 15, inherited
    response      2ms  line 16, inherited
    bridge        3ms  line 23
    db            5ms  line 24
    ml            8ms  line 25, optional
    trading       4ms  line 26, optional
    hub           2ms  line 27
    reserve       3ms  line 21
    sum          30ms
    unallocated    0s

note: `objectives` has no effect in this release, except a route's `degraded`  ({TRADING}:30)
note: `checks` has no effect in this release  ({TRADING}:36)
"""
    )


def test_explain_shows_what_is_not_in_force() -> None:
    """A route's own figure for a tier outranks the tier's, and both are shown."""
    result = run("explain", "GET", "/reports/2026", "--tier", "pro", "--policy", TRADING)
    assert "tier pro: 2s, from routes.report.budget.pro (line 33)" in result.stdout
    assert "not in force: 100ms from tiers.pro.budget (line 10)" in result.stdout
    assert "clock last_byte" in result.stdout


def test_explain_covers_requests_no_route_matches() -> None:
    """Unmatched requests have the tiers' budgets and the inherited stages."""
    result = run("explain", "DELETE", "/nothing", "--tier", "free", "--policy", TRADING)
    assert result.exit_code == 0
    assert "_unmatched: no route matches" in result.stdout
    assert "tier free: 1s, from tiers.free.budget (line 9)" in result.stdout


def test_explain_names_the_line_of_the_match_that_fits(tmp_path: Path) -> None:
    """Of several matches the one that is meant is shown with its own line."""
    (tmp_path / "budgetware.yaml").write_text(
        "version: 1\nroutes:\n  a:\n    match:\n      - GET /a\n      - POST /b/**\n"
    )
    assert "route a: POST /b/**  (budgetware.yaml:6)" in run("explain", "POST", "/b/c").stdout


def test_explain_covers_jobs_and_stages_that_are_only_measured(tmp_path: Path) -> None:
    """A job is explained by its name; what has no budget says so."""
    (tmp_path / "budgetware.yaml").write_text(
        "version: 1\nroutes:\n  export: {budget: 10m, stages: {load: {}}}\n"
        "  free: {match: GET /f}\n"
    )
    job = run("explain", "--route", "export").stdout
    assert job.startswith("export\n  export  (budgetware.yaml:3)\n")
    assert "every caller: 10m, from routes.export.budget (line 3)" in job
    assert "line 3, only measured" in job
    everything = run("explain").stdout
    assert "\n\nfree\n" in everything
    assert "every caller: no budget, only measured" in everything


def test_explain_says_how_far_each_tier_may_go(tmp_path: Path) -> None:
    """A tier with a mode of its own is shown with the one in force for it."""
    (tmp_path / "budgetware.yaml").write_text(
        "version: 1\nmode: enforce\ntiers: {a: {budget: 1s}, b: {budget: 1s, mode: shadow}}\n"
        "routes: {r: {match: GET /r, answers: [reject]}}\n"
    )
    told = run("explain", "GET", "/r")
    assert told.stdout.splitlines()[2] == "  mode enforce, clock first_byte"
    first, _, second = told.stdout.partition("tier b")
    assert ("    mode" in first, "    mode shadow" in second) == (False, True)
    (request,) = json.loads(run("explain", "GET", "/r", "--format", "json").stdout)["requests"]
    assert [tier["mode"] for tier in request["tiers"]] == ["enforce", "shadow"]


def test_explain_has_a_form_for_programs() -> None:
    """Durations are seconds; the environment layer is applied."""
    result = run(
        "explain", "GET", "/signals/X", "--policy", TRADING, "--env", "staging", "--format", "json"
    )
    told = json.loads(result.stdout)
    (request,) = told["requests"]
    assert [note["path"] for note in told["notes"]] == [
        "routes.signals.objectives",
        "checks",
    ]
    assert {note["code"] for note in told["notes"]} == {"not-in-this-release"}
    assert (request["route"], request["match"], request["line"]) == (
        "signals",
        "GET /signals/{symbol}",
        20,
    )
    enterprise = request["tiers"][2]
    assert (enterprise["budget_s"], enterprise["line"]) == (0.06, 43)
    assert enterprise["planned_s"] == 0.03
    assert enterprise["unallocated_s"] == 0.03
    assert enterprise["stages"][0] == {
        "name": "gateway",
        "budget_s": 0.002,
        "line": 14,
        "inherited": True,
        "optional": False,
    }


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["GET"], "give METHOD and PATH"),
        (["GET", "/a", "--route", "b"], "give METHOD and PATH"),
        (["GET", "/a", "--tier", "fre"], "did you mean `free`?"),
        (["--route", "signal"], "did you mean `signals`?"),
        (["GET", "items/7"], "a path starts with a slash: did you mean `/items/7`?"),
        (["GET", "http://localhost:80/items/7?a=b"], "did you mean `/items/7?a=b`?"),
    ],
)
def test_explain_says_what_cannot_be_asked(arguments: list[str], fragment: str) -> None:
    """Questions about what is not there exit with 2 and say what is."""
    result = run("explain", *arguments, "--policy", TRADING)
    assert (result.exit_code, fragment in result.stderr) == (2, True)


def test_explain_of_a_broken_policy_lists_its_errors() -> None:
    """There is nothing to explain until the policy is right."""
    result = run("explain", "GET", "/a", "--policy", str(POLICIES / "seed_001.yaml"))
    assert (result.exit_code, result.stdout) == (2, "")
    assert "error[overcommitted]" in result.stderr
