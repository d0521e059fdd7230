"""A tier that becomes known inside a WSGI application: its promise, its answers, its cache."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from tests.doors.fault_points import Broken
from tests.doors.steered_play import SIGNALS
from tests.doors.test_wsgi_keeping import kept
from tests.doors.wsgi_play import Wire
from tests.doors.wsgi_steered_play import HEADERS, Stand

from budgetware import budget
from budgetware._core.interrupt import AnswerNow
from budgetware._core.policy import Mode, Policy, TierPolicy
from budgetware.names import TIER_KEY
from budgetware.testing import deciding
from budgetware.wsgi import StartResponse

Env = dict[str, Any]
POLICY = Policy(
    mode=Mode.ENFORCE,
    tiers={
        "free": TierPolicy(budget=1.0),
        "pro": TierPolicy(budget=0.1),
        "guest": TierPolicy(budget=1.0, mode=Mode.OBSERVE),
        "staff": TierPolicy(),
    },
    routes={"signals": SIGNALS},
)
GUESTS = replace(POLICY, tiers={"guest": POLICY.tiers["guest"], "pro": POLICY.tiers["pro"]})


def learns(tier: str) -> Any:
    """Return an application that finds out that its caller is of *tier*."""

    def app(_: Env, start_response: StartResponse) -> Iterable[bytes]:
        budget.tier = tier
        start_response("200 OK", HEADERS)
        return [b"for " + tier.encode()]

    return app


def test_what_is_kept_is_for_callers_of_the_tier_that_was_found_out() -> None:
    """Nobody of the tier that was believed first ever sees it."""
    stand = Stand(learns("pro"), policy=POLICY)

    stand.ask()

    assert kept(stand, **{TIER_KEY: "pro"}) == b"for pro"
    assert kept(stand) is None
    assert stand.records[0].tier == "pro"
    stand.check()


@pytest.mark.parametrize("policy", [POLICY, GUESTS])
def test_the_new_tiers_promise_is_decided_on(policy: Policy) -> None:
    """Another decision, its own answers, and the account is that tier's: from any tier."""
    stand = Stand(learns("pro"), policy=policy)

    with pytest.MonkeyPatch.context() as patch, deciding("answer"):
        patch.setattr("budgetware.wsgi.steered.SteeredExchange.at_once", lambda _: None)
        got = stand.ask()

    assert (got.body, got.kind) == (b"static", "static")
    assert [(record.tier, record.answer) for record in stand.records] == [("pro", "static")]
    stand.check()


@pytest.mark.parametrize("policy", [POLICY, GUESTS])
def test_a_tier_that_is_late_by_now_has_its_request_answered(policy: Policy) -> None:
    """What is left under the shorter promise is what the decision is about."""
    seconds = 0.0

    def app(_: Env, start_response: StartResponse) -> Iterable[bytes]:
        stand.time.now += 0.05
        budget.tier = "pro"
        stand.time.now += seconds
        start_response("200 OK", HEADERS)
        return [b"full"]

    stand = Stand(app, policy=policy)
    seconds = 0.5
    kinds = [stand.ask().kind for _ in range(40)]

    assert kinds.count("cached") > 20
    assert {record.tier for record in stand.records} == {"pro"}
    stand.check()


@pytest.mark.parametrize("tier", ["guest", "staff"])
def test_a_tier_nothing_is_decided_for_is_only_measured(tier: str) -> None:
    """It can ask for nothing smaller, nothing is kept of it, and its course is over."""

    def app(_: Env, start_response: StartResponse) -> Iterable[bytes]:
        budget.tier = tier
        budget.degrade("nothing happens")
        assert budget.affords("ml")
        start_response("200 OK", HEADERS)
        return [b"full"]

    stand = Stand(app, policy=POLICY)

    assert stand.ask().body == b"full"
    assert len(stand.door._helm()._cache.memory) == 0
    assert stand.records[0].tier == tier
    stand.check()


@pytest.mark.parametrize("tiers", [["guest"], ["pro"], ["guest", "pro"]])
def test_a_stage_left_out_before_the_tier_was_known_still_counts(tiers: list[str]) -> None:
    """For the totals and for the cache, whatever is found out; a tier only measured has no way."""

    @budget.stage("ml", fallback=lambda: b"cheap")
    def ml() -> bytes:
        return b"dear"

    def app(_: Env, start_response: StartResponse) -> Iterable[bytes]:
        with deciding("skip"):
            body = ml()
        for tier in tiers:
            budget.tier = tier
        if tiers == ["guest"]:
            budget.degrade("nothing happens")
        start_response("200 OK", HEADERS)
        return [body]

    stand = Stand(app, policy=POLICY)

    assert stand.ask().body == b"cheap"
    assert [(record.tier, record.answer) for record in stand.records] == [(tiers[-1], "partial")]
    assert len(stand.door._helm()._cache.memory) == 0
    stand.check()


def test_tiers_may_change_to_and_fro() -> None:
    """The last one said holds."""

    def app(_: Env, start_response: StartResponse) -> Iterable[bytes]:
        for tier in ("guest", "pro", "staff", "free", "pro", "pro"):
            budget.tier = tier
        start_response("200 OK", HEADERS)
        return [b"full"]

    for policy in (POLICY, replace(GUESTS, tiers={**GUESTS.tiers, **POLICY.tiers})):
        stand = Stand(app, policy=policy)
        stand.ask()
        assert kept(stand, **{TIER_KEY: "pro"}) == b"full"
        assert stand.outcomes == {"met": 1, "degraded": 1}
        stand.check()


def test_a_tier_found_out_once_the_response_has_begun_keeps_nothing_and_raises_nothing() -> None:
    """What follows may be for that tier alone."""

    def app(_: Env, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", HEADERS)
        budget.tier = "pro"
        yield b"for pro"

    stand = Stand(app, policy=POLICY)
    with pytest.MonkeyPatch.context() as patch, deciding("answer"):
        patch.setattr("budgetware.wsgi.steered.SteeredExchange.at_once", lambda _: None)
        assert stand.ask().body == b"for pro"

    assert len(stand.door._helm()._cache.memory) == 0
    assert stand.records[0].tier == "pro"
    stand.check()


def test_shadow_changes_nothing() -> None:
    """The decision is counted, once: enforced, the request would have been answered by then."""
    stand = Stand(learns("pro"), policy=replace(POLICY, mode=Mode.SHADOW))

    with deciding("answer"):
        assert stand.ask().body == b"for pro"

    assert sum(stand.door._engine.tally.decisions.values()) == 1
    stand.check()


def test_a_fault_in_planning_anew_is_not_the_applications(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is counted, and nothing is kept for a tier that may be the wrong one."""

    def fail(*_: Any) -> Any:
        raise Broken

    monkeypatch.setattr("budgetware.wsgi.steered.SteeredExchange._replanned", fail)
    stand = Stand(learns("pro"), policy=POLICY)

    assert stand.ask().body == b"for pro"
    assert stand.door._engine.tally.faults == {"replan": 1}
    assert len(stand.door._helm()._cache.memory) == 0
    assert stand.door._engine._traffic.now == 0


def test_a_plain_request_is_left_plain() -> None:
    """Where no tier of the route is decided on, nothing is looked at."""
    policy = replace(POLICY, routes={**POLICY.routes, "plain": replace(
        SIGNALS, name="plain", match=(replace(SIGNALS.match[0], template="/plain"),),
        mode=Mode.OBSERVE)})  # fmt: skip
    stand = Stand(learns("pro"), policy=policy)
    helm = stand.door._helm()
    served: list[object] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(helm, "serve", lambda *_: served.append(1))
        assert stand.ask("/plain").body == b"for pro"

    assert served == []
    stand.check()


def test_the_turn_of_a_tier_passes_through_handlers_of_exceptions() -> None:
    """An application that handles its own failures does not take it for one."""
    reasons: list[str] = []

    def app(_: Env, __: StartResponse) -> Iterable[bytes]:
        try:
            budget.tier = "pro"
        except Exception:  # noqa: BLE001 - it is none
            pytest.fail("caught")
        except AnswerNow as turn:
            reasons.append(turn.reason)
            raise
        return []

    stand = Stand(app, policy=POLICY)
    with pytest.MonkeyPatch.context() as patch, deciding("answer"):
        patch.setattr("budgetware.wsgi.steered.SteeredExchange.at_once", lambda _: None)
        assert stand.ask(wire=Wire()).body == b"static"
    assert reasons == ["forced"]
    stand.check()
