"""The five documents the project grew from, as policy files: what is wrong with their budgets."""

from __future__ import annotations

from pathlib import Path

import pytest

from budgetware.policyfile import check

POLICIES = Path(__file__).parent.parent / "fixtures" / "policies"

FINDINGS = {
    "seed_000.yaml": [
        (12, 5, "note", "not-in-this-release"),
        (21, 5, "note", "unallocated"),
        (27, 5, "warning", "percentiles-compound"),
        (27, 23, "warning", "percentiles-added"),
        (30, 5, "error", "overcommitted"),
        (34, 5, "error", "overcommitted"),
        (41, 9, "note", "operations-over-stage"),
        (43, 1, "note", "not-in-this-release"),
    ],
    "seed_001.yaml": [
        (9, 5, "error", "overcommitted"),
        (10, 35, "note", "not-in-this-release"),
        (14, 5, "warning", "percentiles-compound"),
        (18, 5, "note", "unallocated"),
        (26, 5, "error", "overcommitted"),
        (34, 1, "note", "not-in-this-release"),
    ],
    "seed_002.yaml": [
        (10, 1, "note", "not-in-this-release"),
    ],
    "seed_003.yaml": [
        (11, 5, "note", "not-in-this-release"),
        (14, 23, "warning", "objective-over-budget"),
        (17, 23, "warning", "objective-over-budget"),
        (17, 39, "warning", "objective-over-budget"),
        (19, 1, "note", "not-in-this-release"),
    ],
    "seed_004.yaml": [
        (16, 5, "note", "unallocated"),
        (17, 34, "note", "not-in-this-release"),
        (21, 9, "note", "operations-over-stage"),
    ],
}


def messages(name: str, code: str) -> list[str]:
    """Return what one rule says about one of the files."""
    problems = check((POLICIES / name).read_bytes()).problems
    return [problem.message for problem in problems if problem.code == code]


@pytest.mark.parametrize("name", FINDINGS)
def test_each_document_has_exactly_these_findings(name: str) -> None:
    """The linter finds what is wrong, where it is, and nothing else."""
    problems = check((POLICIES / name).read_bytes()).problems
    found = [(problem.line, problem.column, problem.severity, problem.code) for problem in problems]
    assert found == FINDINGS[name]


def test_a_path_across_services_does_not_fit() -> None:
    """Gateway, auth and the called service together are over what the API promises."""
    assert messages("seed_000.yaml", "overcommitted") == [
        (
            "the stages of route `question` plan with 110ms of a budget of 100ms: 10ms too much "
            "(tier `everyone`)"
        ),
        (
            "the stages of route `family` plan with 130ms of a budget of 100ms: 30ms too much "
            "(tier `everyone`)"
        ),
    ]


def test_totals_that_were_never_added_up() -> None:
    """Both critical paths plan with more than their total, one leaves some unsaid."""
    assert messages("seed_001.yaml", "overcommitted") == [
        "the stages of route `transaction` plan with 14.1s of a budget of 10s: 4.1s too much",
        "the stages of route `provisioning` plan with 307s of a budget of 5m: 7s too much",
    ]
    assert messages("seed_001.yaml", "unallocated") == [
        "800ms of the budget of 2s is not allocated"
    ]


def test_the_account_shows_who_uses_what_and_where_it_is_written() -> None:
    """An overcommitted route comes with its stages, their lines, the sum and the budget."""
    first = check((POLICIES / "seed_000.yaml").read_bytes()).errors[0]
    assert first.detail.split("\n") == [
        "gateway   20ms  line 9, inherited",
        "auth      30ms  line 13, inherited",
        "sapiens   60ms  line 31",
        "sum      110ms",
        "budget   100ms  line 6",
    ]


def test_percentiles_were_added_up_as_if_they_were_limits() -> None:
    """A total percentile that is the sum of its parts' is called out, with the parts."""
    assert messages("seed_000.yaml", "percentiles-added") == [
        "p95 of 100ms is the sum of the stages' p95, and percentiles do not add up"
    ]
    assert messages("seed_001.yaml", "percentiles-compound") == [
        (
            "the stages of `transaction` may miss their allocations in up to 20% of requests, "
            "the route its budget in 5%"
        )
    ]


def test_the_table_in_the_code_lacks_a_stage() -> None:
    """The dictionary adds up to 29 of the 30 milliseconds the picture has."""
    assert messages("seed_004.yaml", "unallocated") == [
        "1ms of the budget of 30ms is not allocated for tier `enterprise`"
    ]


def test_the_example_of_the_documentation_is_valid() -> None:
    """The trading example has no error and no warning in any environment."""
    document = check((POLICIES / "trading.yaml").read_bytes(), every_environment=True)
    assert document.policy is not None
    assert [(problem.line, problem.severity, problem.code) for problem in document.problems] == [
        (24, "note", "operations-over-stage"),
        (30, "note", "not-in-this-release"),
        (36, "note", "not-in-this-release"),
    ]
