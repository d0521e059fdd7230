"""What is wrong with policies whose every entry has the right shape."""

from __future__ import annotations

import pytest

from budgetware.errors import Problem
from budgetware.policyfile import check

TIERS = "tiers: {free: {budget: 1s}, pro: {budget: 100ms}}\n"


def problems(text: str) -> list[Problem]:
    """Return what is found in *text* after its version."""
    return list(check("version: 1\n" + text).problems)


def found(text: str) -> list[tuple[int, str, str]]:
    """Return line, severity and rule of what is found."""
    return [(problem.line, problem.severity, problem.code) for problem in problems(text)]


CASES = {
    "two equal matches": (
        "routes:\n  a: {match: 'GET /x/{id}'}\n  b: {match: [GET /y, 'GET /x/{name}/']}\n",
        [(4, "error", "unreachable")],
    ),
    "both ways to write the rest": (
        "routes:\n  a: {match: GET /x/**}\n  b: {match: 'GET /x/{rest:path}'}\n",
        [(4, "error", "unreachable")],
    ),
    "one match twice in a route": (
        "routes:\n  a: {match: [GET /x, GET /x]}\n",
        [(3, "error", "unreachable")],
    ),
    "overlapping matches": (
        (
            "routes:\n  a: {match: GET /x/**}\n  b: {match: 'GET /x/{id}'}\n"
            "  c: {match: GET /x/y}\n  d: {match: '* /x/y'}\n"
        ),
        [],
    ),
    "answers for everybody that are each caller's own": (
        (
            "routes:\n  a:\n    match: GET /a\n    answers: [cached]\n"
            "    cache: {fresh: 1s, vary: [Identity], public: true}\n"
        ),
        [(6, "error", "public-and-identity")],
    ),
    "answers for everybody": (
        "routes:\n  a: {match: GET /a, answers: [cached], cache: {fresh: 1s, public: true}}\n",
        [],
    ),
    "clock for writes that has nothing true to say": (
        (
            "mode: enforce\nroutes:\n  a:\n    match: POST /a\n    timer: unsafe\n"
            "    answers: [{static: {status: 200, body: x}}]\n"
        ),
        [(6, "error", "timer-without-accepted"), (6, "note", "timer-needs-asyncio")],
    ),
    "clock for writes with only a rejection": (
        "routes:\n  a: {match: POST /a, answers: [reject], timer: unsafe}\n",
        [(3, "error", "timer-without-accepted")],
    ),
    "clock for writes that tells clients to come back": (
        (
            "routes:\n  a:\n    match: POST /a\n    timer: unsafe\n"
            "    answers: [{static: {status: 202, body: x, headers: {Retry-After: ''}}}]\n"
        ),
        [(5, "error", "timer-without-accepted"), (5, "note", "timer-needs-asyncio")],
    ),
    "clock for writes": (
        (
            "mode: enforce\nroutes:\n  a:\n    match: POST /a\n    timer: unsafe\n"
            "    answers: [{static: {status: 202, body: x}}, reject]\n"
        ),
        [(6, "note", "timer-needs-asyncio")],
    ),
    "writes the clock leaves alone": (
        "mode: enforce\nroutes:\n  a: {match: [POST /a, GET /a], answers: [reject]}\n",
        [(4, "note", "timer-leaves-alone")],
    ),
    "writes that are only measured": (
        "routes:\n  a: {match: [POST /a, GET /a], answers: [reject]}\n",
        [],
    ),
    "timer of a job": (
        "routes:\n  a: {timer: unsafe}\n",
        [(3, "warning", "job-with-response")],
    ),
    "tier nobody is": (
        TIERS + "routes:\n  a: {match: GET /a, budget: {por: 50ms}}\n",
        [(4, "error", "unknown-tier")],
    ),
    "dropping a stage that is not there": (
        "stages: {auth: 1ms}\nroutes:\n  a: {match: GET /a, stages: {atuh: off}}\n",
        [(4, "error", "unknown-stage")],
    ),
    "budget every tier undercuts": (
        TIERS + "routes:\n  a: {match: GET /a, budget: 2s}\n",
        [(4, "warning", "never-in-force")],
    ),
    "budget one tier does not undercut": (
        TIERS + "routes:\n  a: {match: GET /a, budget: 500ms}\n",
        [],
    ),
    "budget one tier has none of": (
        "tiers: {free: {}, pro: {budget: 1s}}\nroutes:\n  a: {match: GET /a, budget: 2s}\n",
        [],
    ),
    "shares of more than all": (
        "concurrency: 8\ntiers:\n  a: {share: 60%}\n  b: {share: 50%}\n",
        [(5, "error", "shares-over-100")],
    ),
    "shares of all": (
        "concurrency: 8\ntiers: {a: {share: 33.3%}, b: {share: 66.7%}}\n",
        [],
    ),
    "share of no limit": (
        "tiers: {a: {share: 50%}}\n",
        [(2, "warning", "share-without-concurrency")],
    ),
    "wait as long as the budget": (
        "concurrency: 8\ntiers: {a: {budget: 1s, queue: 1s}}\n",
        [(3, "warning", "queue-over-budget")],
    ),
    "wait for no limit": (
        "tiers:\n  a: {queue: 0s}\n  b: {queue: 1s}\n  c: {queue: 1s}\n",
        [(4, "warning", "queue-without-concurrency")],
    ),
    "wait for a limit that could not be read": (
        "concurrency: many\ntiers: {a: {queue: 1s}}\n",
        [(2, "error", "bad-value")],
    ),
    "rate of no limit": ("tiers: {a: {rate: 5/s}}\n", []),
    "late worth something in two ways": (
        "tiers:\n  a: {late_worth: 0, confidence: 60%}\n  b: {confidence: 0%}\n",
        [(3, "error", "late-worth-twice")],
    ),
    "ladder that falls": (
        "ladder: {warning: 100%, breach: 90%}\n",
        [(2, "error", "ladder-order")] * 2,
    ),
    "ladder that stands still": (
        "ladder: {warning: 100%}\n",
        [(2, "error", "ladder-order")],
    ),
    "defaults over a tier": (
        TIERS + "stages:\n  a: 60ms\n  b: 50ms\nroutes: {x: {match: GET /x}}\n",
        [(3, "error", "overcommitted")],
    ),
    "reserve over the budget": (
        TIERS + "routes:\n  a: {match: GET /a, reserve: 101ms}\n",
        [(4, "error", "overcommitted")],
    ),
    "percentages over the budget": (
        TIERS + "routes:\n  a: {match: GET /a, reserve: 20%, stages: {x: 50%, y: 31%}}\n",
        [(4, "error", "overcommitted")],
    ),
    "percentages of all": (
        TIERS + "routes:\n  a: {match: GET /a, reserve: 10%, stages: {x: 60%, y: 30%}}\n",
        [],
    ),
    "tenths that are no binary fractions": (
        "tiers: {t: {budget: 300ms}}\nroutes: {a: {match: GET /a, stages: {x: 100ms, y: 200ms}}}\n",
        [],
    ),
    "stages without a total": ("routes: {a: {match: GET /a, stages: {x: 9s}}}\n", []),
    "total without stages": ("routes: {a: {match: GET /a, budget: 1s}}\n", []),
    "only inherited stages": (TIERS + "stages: {x: 1ms}\nroutes: {a: {match: GET /a}}\n", []),
    "margin": (
        TIERS + "routes: {a: {match: GET /a, stages: {x: 90ms}}}\n",
        [(3, "note", "unallocated")],
    ),
    "margin for a stage that is only measured": (
        TIERS + "routes: {a: {match: GET /a, stages: {x: 90ms, y: {}}}}\n",
        [],
    ),
    "percentage of nothing": (
        "routes:\n  a: {match: GET /a, reserve: 5%, stages: {x: 30%, y: {operations: {z: 1%}}}}\n",
        [(3, "error", "share-of-nothing")] * 3,
    ),
    "default percentage of nothing": ("stages: {x: 30%}\n", [(2, "error", "share-of-nothing")]),
    "operation over its stage": (
        "stages:\n  db: {budget: 5ms, operations: {a: 6ms}}\n",
        [(3, "error", "operation-over-stage")],
    ),
    "operations over their stage": (
        "stages:\n  db: {budget: 5ms, operations: {a: 3ms, b: 3ms}}\n",
        [(3, "note", "operations-over-stage")],
    ),
    "falling percentiles": (
        "routes:\n  a: {match: GET /a, objectives: {p95: 20ms, p50: 30ms}}\n",
        [(3, "error", "impossible-objective"), (3, "note", "not-in-this-release")],
    ),
    "falling percentiles of a stage": (
        "stages: {x: {objectives: {p99: 1ms, p99.9: 500us}}}\n",
        [(2, "error", "impossible-objective"), (2, "note", "not-in-this-release")],
    ),
    "falling percentiles of a benchmark": (
        "checks: {benchmarks: {b: {p50: 2ms, p95: 1ms}}}\n",
        [(2, "error", "impossible-objective"), (2, "note", "not-in-this-release")],
    ),
    "objectives over the loosest budget": (
        TIERS + "routes:\n  a: {match: GET /a, objectives: {p50: 2s, average: 3s}}\n",
        [
            *[(4, "warning", "objective-over-budget")] * 2,
            (4, "note", "not-in-this-release"),
        ],
    ),
    "objective between the budgets": (
        TIERS + "routes:\n  a: {match: GET /a, objectives: {p50: 500ms}}\n",
        [(4, "note", "not-in-this-release")],
    ),
    "stage percentiles that do not add up to the route's": (
        (
            "routes:\n  a:\n    match: GET /a\n    stages: {x: {objectives: {p95: 10ms}}, "
            "y: {objectives: {p95: 10ms}}}\n    objectives: {p95: 15ms}\n"
        ),
        [(5, "note", "not-in-this-release")],
    ),
    "stages that miss less often than their route": (
        (
            "tiers: {t: {budget: 20ms}}\nroutes:\n  a:\n    match: GET /a\n    stages:\n"
            "      x: {budget: 10ms, objectives: {p99.9: 10ms}}\n"
            "      y: {budget: 10ms, objectives: {p99.9: 10ms}}\n"
            "    objectives: {within_budget: 99%}\n"
        ),
        [(7, "note", "not-in-this-release")],
    ),
    "stages that miss more often than their route": (
        (
            "tiers: {t: {budget: 20ms}}\nroutes:\n  a:\n    match: GET /a\n    stages:\n"
            "      x: {budget: 10ms, objectives: {p99: 10ms}}\n"
            "      y: {budget: 10ms, objectives: {p99: 10ms}}\n"
            "    objectives: {within_budget: 99%}\n"
        ),
        [(9, "warning", "percentiles-compound"), (7, "note", "not-in-this-release")],
    ),
    "limit on smaller answers without any": (
        "routes:\n  a: {match: GET /a, objectives: {degraded: 0.1%}}\n",
        [(3, "warning", "degraded-without-answers")],
    ),
    "stored answer without a cache": (
        "routes:\n  a: {match: GET /a, answers: [cached]}\n",
        [(3, "warning", "cached-without-cache")],
    ),
    "stored answer in a cache that keeps none": (
        "routes:\n  a: {match: GET /a, answers: [cached], cache: {vary: [tier], fresh: 0s}}\n",
        [(3, "warning", "cached-without-cache")],
    ),
    "stored answer that is only ever stale": (
        "routes:\n  a: {match: GET /a, answers: [cached], cache: {stale: 1m}}\n",
        [],
    ),
    "enforcement that has answers": (
        "mode: enforce\nroutes:\n  a: {match: GET /a, answers: [reject]}\n",
        [],
    ),
    "enforcement of routes without answers": (
        "mode: enforce\nroutes:\n  a: {match: GET /a}\n  b: {match: GET /b}\n",
        [(2, "note", "enforce-without-answers")],
    ),
    "enforcement of one route without answers": (
        "routes:\n  a: {match: GET /a, mode: enforce}\n  b: {match: GET /b}\n",
        [(3, "note", "enforce-without-answers")],
    ),
    "enforcement for a tier, on a route without answers": (
        "tiers: {t: {mode: enforce}, u: {}}\nroutes:\n  a: {match: GET /a}\n",
        [(2, "note", "enforce-without-answers")],
    ),
    "enforcement no tier is subject to": (
        "mode: enforce\ntiers: {t: {mode: shadow}}\nroutes:\n  a: {match: GET /a}\n",
        [],
    ),
    "enforcement of a job": ("mode: enforce\nroutes: {j: {budget: 1m}}\n", []),
    "shadow of a route without answers": ("mode: shadow\nroutes: {a: {match: GET /a}}\n", []),
    "answers in vain": (
        "routes:\n  a: {match: GET /a, answers: [reject, fallback, reject]}\n",
        [(3, "warning", "answer-after-reject"), (3, "warning", "duplicate-answer")],
    ),
    "job with a response": (
        "routes:\n  a: {clock: last_byte, answers: [reject]}\n",
        [(3, "warning", "job-with-response")] * 2,
    ),
    "cancelled write": (
        "routes:\n  a: {match: [GET /a, POST /a], cancel_safe: true, answers: [reject]}\n",
        [(3, "error", "cancel-unsafe"), (3, "note", "timer-needs-asyncio")],
    ),
    "cancelled read": (
        "routes:\n  a: {match: [GET /a, HEAD /a], cancel_safe: true, answers: [reject]}\n",
        [(3, "note", "timer-needs-asyncio")],
    ),
    "nothing to cancel": (
        "routes:\n  a: {match: GET /a, cancel_safe: true}\n",
        [(3, "warning", "cancel-without-answers")],
    ),
    "cancelled job": (
        "routes:\n  a: {cancel_safe: true}\n",
        [(3, "warning", "job-with-response")],
    ),
    "stage that answers": (
        (
            "stages: {x: {on_overrun: answer}}\nroutes:\n  a: {match: GET /a, answers: [reject]}\n"
            "  b: {match: GET /b}\n  c: {match: GET /c, stages: {x: off}}\n"
        ),
        [],
    ),
    "stage that answers with nothing": (
        (
            "routes:\n  a: {match: GET /a, stages: {x: {on_overrun: answer}, y: 1ms}}\n"
            "  b: {match: GET /b, answers: [reject]}\n  c: {stages: {x: {on_overrun: answer}}}\n"
        ),
        [(3, "warning", "overrun-without-answers"), (5, "warning", "overrun-without-answers")],
    ),
    "default that answers with nothing": (
        (
            "stages:\n  x: {on_overrun: answer}\nroutes:\n  a: {match: GET /a, stages: {x: 1ms}}\n"
            "  b: {match: GET /b, stages: {x: {on_overrun: continue}}, answers: [reject]}\n"
        ),
        [(3, "warning", "overrun-without-answers")],
    ),
    "default that would answer if the answers could be read": (
        "stages: {x: {on_overrun: answer}}\nroutes:\n  a: {match: GET /a, answers: [cashed]}\n",
        [(4, "error", "bad-choice")],
    ),
    "asset larger than all": (
        "checks: {assets: {a.js: 2MB, total: 1MB}}\n",
        [(2, "error", "asset-over-total"), (2, "note", "not-in-this-release")],
    ),
    "layer with a slip": (
        TIERS + "environments:\n  dev: {tiers: {fre: {budget: 2s}}}\n",
        [(4, "warning", "new-in-environment")],
    ),
    "layer with something of its own": (
        TIERS + "environments:\n  dev: {tiers: {robots: {budget: 2s}}}\n",
        [],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_policy_gives_exactly_these_findings(name: str) -> None:
    """Each rule speaks where it should, in its place, and nowhere else."""
    text, expected = CASES[name]
    assert sorted(found(text)) == sorted(expected)


def test_overcommitted_names_every_tier_it_does_not_fit() -> None:
    """The worst tier is accounted for, and all that are short are named."""
    (problem,) = problems(
        "tiers: {a: {budget: 1s}, b: {budget: 50ms}, c: {budget: 40ms}}\n"
        "routes: {r: {match: GET /r, stages: {x: {budget: 60ms, optional: true}}}}\n"
    )
    assert problem.message == (
        "the stages of route `r` plan with 60ms of a budget of 40ms: 20ms too much (tier `b`, `c`)"
    )
    assert problem.detail.split("\n") == [
        "x       60ms  line 3, optional",
        "sum     60ms",
        "budget  40ms  line 2",
    ]


def test_a_promise_of_the_route_itself_is_what_its_stages_must_fit() -> None:
    """A route's figure for a tier stands in place of that tier's own, both ways."""
    route = "routes: {r: {match: GET /r, budget: {pro: %s}, stages: {x: 150ms}}}\n"
    assert found("tiers: {pro: {budget: 100ms}}\n" + route % "150ms") == []
    assert found("tiers: {pro: {budget: 1s}}\n" + route % "120ms") == [
        (3, "error", "overcommitted")
    ]


def test_what_could_not_be_read_is_not_judged() -> None:
    """One mistake gives one error, not a second one about its consequences."""
    for text in (
        "tiers: {pro: 5}\nroutes: {a: {match: GET /a, budget: {pro: 1s}}}\n",
        "tiers: {pro: {budget: 5}}\nroutes: {a: {match: GET /a, budget: 2s}}\n",
        "routes: {a: {match: GET /a, answers: [cashed], objectives: {degraded: 1%}}}\n",
        "stages: {auht: {budgte: 1ms}}\nroutes: {a: {match: GET /a, stages: {auth: off}}}\n",
        TIERS + "routes: {a: {match: GET /a, budget: {pro: 2}, stages: {x: 200ms}}}\n",
    ):
        assert [problem.severity for problem in problems(text)] == ["error"], text


def test_a_ladder_says_which_level_is_not_above_which() -> None:
    """The level that stands in the file is named with the one it should be above, and a ladder."""
    (problem,) = problems("ladder: {breach: 100%}\n")
    assert problem.message == "the ladder does not rise: breach is 100%, critical before it 100%"
    assert problem.hint.startswith("warning < critical < breach, such as `ladder: {warning: 80%, ")
    (other,) = problems("ladder: {warning: 120%}\n")
    assert other.path == "ladder.warning"


def test_a_tier_that_says_twice_what_late_is_worth_is_told_the_one_in_the_other() -> None:
    """The error has the same in both notations, where both can be written; layers count."""
    message = "tier `a` has `confidence` and `late_worth`, which are two ways to say the same"
    keep = "keep one of them, the same one in every environment"
    for confidence, same in {
        "95%": ": `confidence: 95%` is `late_worth: -11`",
        "40%": ": `confidence: 40%` is `late_worth: 0`",
        "99.9%": "",
    }.items():
        (problem,) = problems(f"tiers: {{a: {{late_worth: -1, confidence: {confidence}}}}}\n")
        assert (problem.message, problem.hint) == (message, keep + same)
    layered = (
        "version: 1\ntiers: {a: {late_worth: -1}}\n"
        "environments: {dev: {tiers: {a: {confidence: 95%}}}}\n"
    )
    assert check(layered).policy is not None
    (problem,) = check(layered, every_environment=True).problems
    assert problem.message == message + " (in environment `dev`)"
    assert (problem.line, problem.column) == (3, 46)


def test_what_is_enforced_with_nothing_to_give_names_the_routes() -> None:
    """One note for one mode lists the routes without answers, of many only some."""
    routes = "".join(f"  r{i}: {{match: GET /{i}}}\n" for i in range(7))
    (problem,) = problems("mode: enforce\nroutes:\n" + routes)
    assert problem.message == (
        "`mode: enforce` has only the stages' own fallbacks to act with: "
        "no `answers` on `r0`, `r1`, `r2`, `r3`, `r4` and 2 more"
    )


def test_many_notes_are_no_error() -> None:
    """A file may be worth more remarks than are listed and still be valid."""
    routes = "".join(f"  r{i}: {{match: GET /{i}, stages: {{x: 1ms}}}}\n" for i in range(250))
    document = check("version: 1\n" + TIERS + "routes:\n" + routes)
    assert document.policy is not None
    assert {problem.severity for problem in document.problems} == {"note"}
    assert document.problems[-1].code == "too-many-problems"
