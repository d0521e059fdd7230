"""From a valid file to a policy: numbers, inheritance, layers, digest."""

from __future__ import annotations

from pathlib import Path

import pytest

from budgetware._core.decide import DEGRADED_WORTH, enough
from budgetware._core.policy import Amount, Clock, Ladder, Match, Mode, Policy, StaticAnswer
from budgetware.policyfile import check

TRADING = (Path(__file__).parent.parent / "fixtures" / "policies" / "trading.yaml").read_bytes()


def compiled(text: str | bytes, environment: str | None = None) -> Policy:
    """Return the policy of a valid text."""
    return check(text, file="budgetware.yaml", environment=environment).require()


def test_the_example_becomes_numbers() -> None:
    """Every value of the example arrives in seconds, fractions, rates and bytes."""
    policy = compiled(TRADING)
    assert (policy.service, policy.mode, policy.concurrency) == ("trading-api", Mode.OBSERVE, 64)
    assert policy.ladder == Ladder(warning=0.8, critical=1.0, breach=1.5)
    assert list(policy.tiers) == ["free", "pro", "enterprise"]
    assert policy.default_tier == "free"
    pro, enterprise = policy.tiers["pro"], policy.tiers["enterprise"]
    assert (pro.budget, pro.rate, pro.queue, pro.late_worth) == (0.1, 10.0, 0.02, -0.5)
    assert (enterprise.share, enterprise.late_worth) == (0.5, -1.0)
    signals = policy.routes["signals"]
    assert signals.match == (Match("GET", "/signals/{symbol}"),)
    assert signals.reserve == Amount(seconds=0.003)
    assert list(signals.stages) == [
        "gateway", "auth", "response", "bridge", "db", "ml", "trading", "hub",
    ]  # fmt: skip
    database = signals.stages["db"]
    assert (database.budget, database.calls) == (Amount(seconds=0.005), 50)
    assert database.operations["clickhouse"] == Amount(seconds=0.003)
    assert signals.stages["ml"].optional
    assert signals.answers == ("cached", "fallback", "reject")
    assert signals.cache is not None
    assert (signals.cache.fresh, signals.cache.stale, signals.cache.vary) == (
        1.0,
        60.0,
        ("identity",),
    )
    assert signals.objectives is not None
    assert signals.objectives.percentiles == {0.5: 0.015, 0.95: 0.025, 0.99: 0.03}
    assert (signals.objectives.within_budget, signals.objectives.degraded) == (0.99, 0.001)
    report = policy.routes["report"]
    assert report.clock is Clock.LAST_BYTE
    assert policy.limit_s(report, "enterprise") == 2.0
    assert policy.checks == {
        "benchmarks": {"schema_validator": {"percentiles": {0.95: 0.05}, "memory": 10_000_000}},
        "assets": {"dist/*.js": 200_000, "dist/*.css": 50_000, "total": 850_000},
        "load": {"users": 500, "duration": 120.0, "min_rate": 100.0},
    }


def test_a_compiled_policy_cannot_be_changed() -> None:
    """What was loaded stays as it was loaded."""
    policy = compiled(TRADING)
    with pytest.raises(TypeError):
        policy.tiers["gold"] = policy.tiers["pro"]  # type: ignore[index]
    with pytest.raises(TypeError):
        policy.routes["signals"].stages["db"] = policy.stages["auth"]  # type: ignore[index]


def test_a_layer_lies_over_the_file_key_by_key() -> None:
    """A layer changes what it names and leaves the rest, in its order."""
    policy = compiled(TRADING, "staging")
    assert policy.environment == "staging"
    assert policy.tiers["enterprise"].budget == 0.06
    assert policy.tiers["enterprise"].rate == 50.0
    assert list(policy.tiers) == ["free", "pro", "enterprise"]


def test_a_layer_can_add_to_a_stage_in_its_short_form() -> None:
    """`db: 5ms` under `db: {optional: true}` keeps its 5ms."""
    text = """\
version: 1
stages: {db: 5ms}
routes: {a: {match: GET /a, stages: {ml: 8ms, hub: 1ms}}}
environments:
  dev:
    stages: {db: {optional: true}}
    routes: {a: {stages: {ml: {calls: 3}, hub: off}, match: [GET /b, GET /c]}}
"""
    policy = compiled(text, "dev")
    assert policy.stages["db"].budget == Amount(seconds=0.005)
    assert policy.stages["db"].optional
    route = policy.routes["a"]
    assert route.stages["ml"].budget == Amount(seconds=0.008)
    assert route.stages["ml"].calls == 3
    assert list(route.stages) == ["db", "ml"]
    assert [match.template for match in route.match] == ["/b", "/c"]


def test_route_stages_lie_over_the_inherited_ones() -> None:
    """A route's keys win, the others are inherited, `off` and nothing drop a stage."""
    policy = compiled("""\
version: 1
stages:
  auth: 1ms
  hub: 1ms
  db: {budget: 5ms, calls: 50, operations: {read: 2ms}}
routes:
  a:
    match: GET /a
    stages:
      db: 8ms
      auth: off
      hub:
""")
    stages = policy.routes["a"].stages
    assert list(stages) == ["db"]
    assert stages["db"].budget == Amount(seconds=0.008)
    assert stages["db"].calls == 50
    assert stages["db"].operations == {"read": Amount(seconds=0.002)}


def test_a_job_inherits_no_stages_and_may_run_for_days() -> None:
    """A job has no gateway; its budget is its own and no tier's."""
    policy = compiled("""\
version: 1
tiers: {free: {budget: 1s}}
stages: {gateway: 2ms}
routes:
  nightly-export: {budget: 48h, stages: {extract: 50%}}
""")
    job = policy.routes["nightly-export"]
    assert (job.match, list(job.stages)) == ((), ["extract"])
    assert policy.limit_s(job, None) == 48 * 3600.0
    assert policy.plan(job, None).stages["extract"].limit_s == 24 * 3600.0


def test_percentages_are_of_the_budget_of_each_tier() -> None:
    """A share of the whole is another duration for every tier."""
    policy = compiled("""\
version: 1
tiers: {free: {budget: 1s}, pro: {budget: 100ms}}
routes: {a: {match: GET /a, reserve: 10%, stages: {db: {budget: 30%, operations: {read: 20%}}}}}
""")
    plan = policy.plan(policy.routes["a"], "pro")
    assert plan.stages["db"].limit_s == pytest.approx(0.03)
    assert plan.stages["db"].operations["read"] == pytest.approx(0.02)
    assert plan.reserve_s == pytest.approx(0.01)


def test_a_confidence_is_what_a_late_answer_is_worth() -> None:
    """It arrives as the worth that has the same effect; a promised late rate as a share."""
    policy = compiled("""\
version: 1
tiers:
  plain: {}
  sure: {confidence: 95%, max_late_rate: 0.5%}
  any: {confidence: 0%}
  most: {confidence: 99.999999999999%}
""")
    plans = {name: policy.plan(None, name) for name in policy.tiers}
    assert (plans["plain"].late_worth, plans["plain"].max_late) == (0.0, None)
    assert plans["sure"].late_worth == pytest.approx(-11.0)
    assert plans["sure"].max_late == 0.005
    assert plans["any"].late_worth == DEGRADED_WORTH
    for name, confidence in {"sure": 0.95, "any": 0.0, "most": 1 - 1e-14}.items():
        assert enough(plans[name].late_worth, DEGRADED_WORTH) == pytest.approx(confidence)


def test_a_stage_that_answers_is_inherited_and_can_be_told_to_go_on() -> None:
    """`on_overrun` lies over what is inherited like every key of a stage."""
    text = """\
version: 1
stages: {db: {on_overrun: answer}, hub: 1ms}
routes:
  a: {match: GET /a, answers: [reject], stages: {db: 5ms, hub: {on_overrun: answer}}}
  b: {match: GET /b, stages: {db: {on_overrun: continue}}}
environments: {dev: {stages: {db: {on_overrun: continue}}}}
"""
    policy = compiled(text)
    plans = [policy.plan(policy.routes[name], None).stages for name in ("a", "b")]
    assert [plan["db"].answers for plan in plans] == [True, False]
    assert [plan["hub"].answers for plan in plans] == [True, False]
    assert plans[0]["db"].limit_s == 0.005
    assert not compiled(text, "dev").routes["a"].stages["db"].answers


def test_static_answers_are_kept_as_written() -> None:
    """A response in the file arrives with its status, body and headers."""
    policy = compiled("""\
version: 1
routes:
  a:
    match: GET /a
    answers:
      - static: {status: 203, body: '{"signals": []}', headers: {content-type: application/json}}
      - reject
""")
    route = policy.routes["a"]
    assert route.answers == ("static", "reject")
    assert route.static == StaticAnswer(
        status=203, body='{"signals": []}', headers={"content-type": "application/json"}
    )


def test_fractional_percentiles_and_stage_objectives_are_read() -> None:
    """`p99.9` is a percentile, and stages may have objectives of their own."""
    policy = compiled("""\
version: 1
stages: {db: {objectives: {p99.9: 5ms, average: 1ms, availability: 99.95%}}}
""")
    objectives = policy.stages["db"].objectives
    assert objectives is not None
    assert objectives.percentiles == {0.999: 0.005}
    assert (objectives.average, objectives.availability) == (0.001, 0.9995)


def test_the_digest_is_of_the_content_in_one_environment() -> None:
    """Comments and layout do not count; values, order of tiers and the environment do."""
    plain = "version: 1\ntiers: {a: {budget: 1s}, b: {budget: 2s}}\nenvironments: {dev: {}}\n"
    spaced = "# hi\nversion: 1\n\ntiers:\n  a: {budget: 1s}\n  b:\n    budget: 2s\n"
    turned = "version: 1\ntiers: {b: {budget: 2s}, a: {budget: 1s}}\n"
    digest = compiled(plain).digest
    assert len(digest) == 12
    assert compiled(spaced).digest == digest
    assert compiled(turned).digest != digest
    assert compiled(plain, "dev").digest != digest
    assert compiled(plain.replace("2s", "3s")).digest != digest


def test_an_unknown_environment_lists_the_known_ones() -> None:
    """Asking for an environment the file does not have is an error."""
    document = check(TRADING, environment="stagin")
    assert document.policy is None
    assert document.errors[0].message == "unknown environment `stagin`"
    assert document.errors[0].hint == "did you mean `staging`?"
    assert document.errors[0].line == 42
    bare = check("version: 1\n", environment="prod").errors[0]
    assert (bare.line, bare.hint) == (1, "there are no environments")


def test_every_mode_is_taken_at_every_place() -> None:
    """The file, an environment, a tier and a route may each have any of the three modes."""
    for mode in Mode:
        text = (
            f"version: 1\nmode: {mode}\nservice: s\n"
            f"tiers: {{t: {{mode: {mode}}}}}\nroutes: {{r: {{match: GET /r, mode: {mode}}}}}\n"
            f"environments: {{dev: {{mode: {mode}}}}}\n"
        )
        for environment in (None, "dev"):
            policy = compiled(text, environment)
            given = (policy.mode, policy.tiers["t"].mode, policy.routes["r"].mode)
            assert given == (mode, mode, mode)


def test_every_environment_can_be_judged_at_once() -> None:
    """What only one environment breaks is found, once, and named after it."""
    text = """\
version: 1
tiers: {t: {budget: 100ms}}
routes: {a: {match: GET /a, stages: {db: 80ms}}}
environments:
  dev: {tiers: {t: {budget: 50ms}}}
  ci: {routes: {a: {stages: {db: 70ms}}}}
"""
    assert check(text).policy is not None
    (error,) = check(text, every_environment=True).errors
    assert error.code == "overcommitted"
    assert error.message.endswith("(tier `t`) (in environment `dev`)")


def test_a_thousand_routes_are_all_there() -> None:
    """How long that takes is told by ``benchmarks/run.py --only reload``."""
    routes = "".join(
        f"  r{i}:\n    match: GET /r{i}/{{x}}\n    stages: {{db: 5ms, ml: {{budget: 8ms}}}}\n"
        for i in range(1000)
    )
    text = "version: 1\ntiers: {a: {budget: 1s}, b: {budget: 60ms}}\nroutes:\n" + routes
    assert list(compiled(text).routes) == [f"r{i}" for i in range(1000)]
