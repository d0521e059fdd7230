"""What was promised: limits by route and tier, and the plans made of them."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from math import inf
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgetware._core.policy import (
    UNMATCHED,
    Amount,
    Clock,
    Ladder,
    Mode,
    Policy,
    Route,
    StagePolicy,
    TierPolicy,
)

POLICY = Policy(
    tiers={"free": TierPolicy(budget=1.0), "pro": TierPolicy(budget=0.1), "beta": TierPolicy()},
    stages={"gateway": StagePolicy(budget=Amount(0.002))},
)

budgets = st.none() | st.sampled_from([0.01, 0.1, 1.0])


@given(of_route=budgets, of_tier=budgets, of_both=budgets)
def test_neither_route_nor_tier_lengthens_the_other(
    of_route: float | None,
    of_tier: float | None,
    of_both: float | None,
) -> None:
    """The shorter of both is in force, unless the route promises this very tier something."""
    own = {} if of_both is None else {"pro": of_both}
    route = Route(name="signals", budget=of_route, tier_budgets=own)
    policy = Policy(tiers={"pro": TierPolicy(budget=of_tier)}, routes={"signals": route})

    limit_s = policy.limit_s(route, "pro")

    if of_both is not None:
        assert limit_s == of_both
    else:
        assert limit_s == min(of_route or inf, of_tier or inf)


def test_the_first_tier_is_that_of_unknown_callers() -> None:
    """The file's order says who is the default; without tiers there is none."""
    assert POLICY.default_tier == "free"
    assert Policy().default_tier is None


@pytest.mark.parametrize("tier", [None, "gold", "beta"])
def test_a_tier_that_promises_nothing_has_no_limit(tier: str | None) -> None:
    """No tier, an unknown one and one without a budget leave it to the route."""
    assert POLICY.limit_s(None, tier) == inf
    assert POLICY.limit_s(Route(name="report", budget=2.0), tier) == 2.0


def test_an_amount_is_seconds_or_a_share() -> None:
    """A share is taken of the whole budget; a share of no limit is none either."""
    assert Amount(0.005).of(1.0) == 0.005
    assert Amount(share=0.25).of(2.0) == 0.5
    assert Amount(share=0.25).of(inf) == inf
    assert Amount().of(1.0) == inf


def test_requests_outside_the_policy_have_a_plan_too() -> None:
    """They are unmatched, have the tier's budget and the stages every route inherits."""
    plan = POLICY.plan(None, "pro")

    assert (plan.route, plan.tier, plan.limit_s, plan.reserve_s) == (UNMATCHED, "pro", 0.1, 0.0)
    assert plan.stages["gateway"].limit_s == 0.002
    assert plan.clock is Clock.FIRST_BYTE


def test_a_plan_has_everything_in_seconds() -> None:
    """Shares of the total are worked out for the tier at hand, operations included."""
    route = Route(
        name="signals",
        reserve=Amount(share=0.1),
        clock=Clock.LAST_BYTE,
        stages={
            "db": StagePolicy(
                budget=Amount(share=0.5),
                operations={"select": Amount(0.01), "insert": Amount(share=0.25)},
                calls=3,
            ),
            "ml": StagePolicy(optional=True),
        },
    )

    plan = POLICY.plan(route, "pro")

    assert plan.reserve_s == pytest.approx(0.01)
    assert plan.clock is Clock.LAST_BYTE
    assert plan.stages["db"].limit_s == 0.05
    assert plan.stages["db"].operations == {"select": 0.01, "insert": 0.025}
    assert plan.stages["db"].calls == 3
    assert (plan.stages["ml"].limit_s, plan.stages["ml"].optional) == (inf, True)
    assert plan.stages["ml"].calls == inf


def test_a_plan_has_what_its_tier_makes_of_lateness() -> None:
    """Each tier's own; outside any tier, and for an unknown one, nothing is said."""
    policy = Policy(tiers={"pro": TierPolicy(late_worth=-0.5, max_late_rate=0.01)})
    plans = [policy.plan(None, tier) for tier in ("pro", None, "gold")]

    assert [(plan.late_worth, plan.max_late) for plan in plans] == [
        (-0.5, 0.01),
        (0.0, None),
        (0.0, None),
    ]


def test_a_plan_says_which_stages_answer() -> None:
    """No stage does unless it says so."""
    stages = {"db": StagePolicy(answers=True), "ml": StagePolicy()}
    plan = POLICY.plan(Route(name="signals", stages=stages), "pro")

    assert [stage.answers for stage in plan.stages.values()] == [True, False]


def test_a_reserve_is_at_most_the_whole_budget() -> None:
    """There is no more to keep back than there is."""
    route = Route(name="signals", reserve=Amount(5.0))

    assert POLICY.plan(route, "pro").reserve_s == 0.1
    assert POLICY.plan(route, None).reserve_s == 5.0


def test_policies_and_plans_are_frozen() -> None:
    """A reload swaps the whole; nothing in it can be changed."""
    plan = POLICY.plan(None, "pro")

    for frozen in (POLICY, plan, Ladder(), Amount(1.0)):
        name = frozen.__slots__[0]
        with pytest.raises(FrozenInstanceError):
            setattr(frozen, name, None)
    with pytest.raises(TypeError):
        plan.stages["gateway"] = None  # type: ignore[index]


def test_observe_is_the_default() -> None:
    """A policy that does not say otherwise only measures."""
    assert Policy().mode is Mode.OBSERVE


def test_a_share_of_no_limit_reserves_nothing() -> None:
    """For a tier without a budget there is nothing to put aside, and shares are no limits."""
    route = Route(
        name="x",
        reserve=Amount(share=0.1),
        stages={
            "db": StagePolicy(budget=Amount(share=0.5)),
            "ml": StagePolicy(budget=Amount(share=0.0)),
        },
    )
    plans = [POLICY.plan(route, tier) for tier in ("free", "beta")]

    assert [plan.reserve_s for plan in plans] == [0.1, 0.0]
    assert [one.limit_s for one in plans[0].stages.values()] == [0.5, 0.0]
    assert [one.limit_s for one in plans[1].stages.values()] == [inf, inf]


def test_a_policy_that_decides_anywhere_decides() -> None:
    """By its own mode, a tier's or a route's."""
    assert not Policy().decides
    assert not Policy(tiers={"pro": TierPolicy(mode=Mode.OBSERVE)}).decides
    for mode in (Mode.SHADOW, Mode.ENFORCE):
        assert Policy(mode=mode).decides
        assert Policy(tiers={"pro": TierPolicy(mode=mode)}).decides
        assert Policy(routes={"a": Route(name="a", mode=mode)}).decides


def test_a_policy_is_read_where_people_look_for_it(tmp_path: Path) -> None:
    """At the class, from a file or from its text."""
    text = "version: 1\nservice: s\nroutes: {a: {match: GET /a, budget: 300ms}}\n"
    (tmp_path / "policy.yaml").write_text(text)

    loaded, parsed = Policy.load(tmp_path / "policy.yaml"), Policy.parse(text)

    assert loaded.routes == parsed.routes
    assert loaded.digest == parsed.digest
    assert parsed.source is None
