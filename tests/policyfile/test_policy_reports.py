"""How problems are shown: for people, programs, GitHub and code scanning."""

from __future__ import annotations

import json

from budgetware.errors import Problem
from budgetware.policyfile import Document, check
from budgetware.policyfile.annotate import as_github, as_sarif
from budgetware.policyfile.render import as_json, as_text

BAD = """\
version: 1
tiers:
  free: {budget: 30}
  pro: {budget: 100ms}
stages:
  db: 120ms
"""


def test_text_shows_the_line_and_what_would_be_right() -> None:
    """A report reads like a compiler's: what, where, the line, a caret, help."""
    assert (
        as_text(check(BAD, file="budgetware.yaml"))
        == """\
error[missing-unit]: `30` has no unit
  --> budgetware.yaml:3:18
   |
 3 |   free: {budget: 30}
   |                  ^^
   = help: did you mean 30ms or 30s?

budgetware.yaml: 1 error"""
    )


def test_text_shows_the_account_of_an_overcommitted_budget() -> None:
    """A table stands between the line and the help."""
    text = as_text(check(BAD.replace("30}", "1s}"), file="b.yaml"))
    assert text.split("\n")[3:10] == [
        " 5 | stages:",
        "   | ^^^^^^",
        "   |",
        "   | db      120ms  line 6",
        "   | sum     120ms",
        "   | budget  100ms  line 4",
        "   |",
    ]


def test_text_of_a_valid_file_is_one_line() -> None:
    """There is nothing to show but what the file has."""
    text = "version: 1\ntiers: {a: {}}\nroutes: {b: {}, c: {match: GET /c}}\n"
    assert as_text(check(text, file="b.yaml")) == "b.yaml: valid; 1 tier, 1 route, 1 job"


def test_long_lines_are_cut_around_the_place() -> None:
    """A line of a thousand characters is shown where it matters."""
    text = (
        "version: 1\ntiers: {" + "".join(f"t{i}: {{}}, " for i in range(200)) + "x: {budget: 5}}\n"
    )
    rows = as_text(check(text)).split("\n")
    assert len(rows[3]) < 120
    assert rows[3][rows[4].index("^")] == "5"


def test_colour_only_wraps_the_text() -> None:
    """Coloured output says the same with escape sequences around it."""
    document = check(BAD, file="b.yaml")
    coloured = as_text(document, colour=True)
    assert "\x1b[1;31m" in coloured
    plain = coloured
    for code in ("\x1b[1;31m", "\x1b[1m", "\x1b[0m"):
        plain = plain.replace(code, "")
    assert plain == as_text(document)


def test_a_problem_without_a_place_names_the_file() -> None:
    """What has no line is shown without one."""
    document = Document(file="b.yaml", problems=(Problem(message="gone", code="no-file"),))
    assert as_text(document) == "error[no-file]: gone\n  --> b.yaml\n\nb.yaml: 1 error"


def test_json_has_every_part_of_every_problem() -> None:
    """Programs get the same as people, in fields."""
    content = json.loads(as_json(check(BAD, file="b.yaml")))
    assert (content["file"], content["valid"], content["digest"]) == ("b.yaml", False, None)
    assert content["problems"] == [
        {
            "severity": "error",
            "code": "missing-unit",
            "message": "`30` has no unit",
            "hint": "did you mean 30ms or 30s?",
            "detail": "",
            "path": "tiers.free.budget",
            "line": 3,
            "column": 18,
            "length": 2,
        }
    ]
    assert len(json.loads(as_json(check("version: 1\n")))["digest"]) == 12


def test_github_commands_are_escaped() -> None:
    """Percent signs and line ends of messages, and colons and commas of properties, are coded."""
    problems = (
        Problem(message="a%b\nc:d,e", line=2, column=3, length=4, code="x"),
        Problem(message="m", hint="h", severity="note", code="x:y"),
    )
    first, second, summary = as_github(Document(file="a,b:c.yaml", problems=problems)).split("\n")
    assert first == ("::error file=a%2Cb%3Ac.yaml,line=2,col=3,endColumn=7,title=x::a%25b%0Ac:d,e")
    assert second == "::notice file=a%2Cb%3Ac.yaml,title=x%3Ay::m (h)"
    assert summary == "a,b:c.yaml: 1 error, 1 note"


def test_sarif_has_the_structure_of_2_1_0() -> None:
    """One run, its rules, and one result per problem with level, message and region."""
    log = json.loads(as_sarif(check(BAD + "zzz: 1\n", file="my policies/b.yaml")))
    assert set(log) == {"$schema", "version", "runs"}
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    assert set(run) == {"tool", "columnKind", "results"}
    assert run["columnKind"] == "unicodeCodePoints"
    driver = run["tool"]["driver"]
    assert driver["name"] == "budgetware"
    rules = [rule["id"] for rule in driver["rules"]]
    assert rules == ["missing-unit", "unknown-key"]
    assert all(rule["shortDescription"]["text"] for rule in driver["rules"])
    for result, line in zip(run["results"], (3, 7), strict=True):
        assert set(result) == {"ruleId", "ruleIndex", "level", "message", "locations"}
        assert rules[result["ruleIndex"]] == result["ruleId"]
        assert result["level"] == "error"
        assert result["message"]["text"]
        (location,) = result["locations"]
        place = location["physicalLocation"]
        assert place["artifactLocation"] == {"uri": "my%20policies/b.yaml"}
        assert place["region"]["startLine"] == line
        assert place["region"]["endColumn"] > place["region"]["startColumn"] >= 1


def test_sarif_of_a_problem_without_a_place_has_no_region() -> None:
    """Line zero does not exist in SARIF, so it is left out."""
    document = Document(file="b.yaml", problems=(Problem(message="gone", code="no-file"),))
    (result,) = json.loads(as_sarif(document))["runs"][0]["results"]
    assert "region" not in result["locations"][0]["physicalLocation"]
