"""What to do: worked cases, and what must hold for any facts."""

from __future__ import annotations

from math import inf, isnan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgetware._core.decide import (
    RUN,
    Action,
    Facts,
    Reason,
    decide,
    enough,
    late_worth_of,
    worth_of_going_on,
)
from budgetware._core.outlook import LEAST_SEEN

ENTERPRISE = Facts(
    remaining_s=0.02, limit_s=0.03, fits=0.5, seen=100, answer_cost_s=0.0005, late_worth=-1.0
)


def verdict(facts: Facts, **changes: Any) -> tuple[Action, Reason]:
    """Return what is decided on *facts* with some of them changed."""
    decision = decide(facts._replace(**changes))
    return decision.action, decision.reason


@pytest.mark.parametrize(
    ("late_worth", "least"), [(0.0, 0.4), (-0.5, 0.6), (-1.0, 0.7), (-9.0, 0.94)]
)
def test_how_sure_it_wants_to_be_follows_from_what_late_is_worth(
    late_worth: float, least: float
) -> None:
    """The thresholds of the tiers are those of the method's table."""
    assert enough(late_worth, 0.4) == pytest.approx(least)
    above = verdict(ENTERPRISE, late_worth=late_worth, fits=least + 0.001)
    below = verdict(ENTERPRISE, late_worth=late_worth, fits=least - 0.001)

    assert above == (Action.RUN, Reason.FITS)
    assert below == (Action.ANSWER, Reason.UNLIKELY)


@given(st.floats(0.4, 0.99))
def test_a_confidence_is_another_way_to_say_what_late_is_worth(confidence: float) -> None:
    """The worth derived from a confidence asks for exactly that confidence."""
    assert enough(late_worth_of(confidence), 0.4) == pytest.approx(confidence)


@pytest.mark.parametrize("confidence", [-0.1, 1.0, 70.0])
def test_an_impossible_confidence_is_refused(confidence: float) -> None:
    """Nobody is ever surer than sure."""
    with pytest.raises(ValueError, match="confidence"):
        late_worth_of(confidence)


def test_where_late_is_as_good_as_in_time_nothing_is_ever_enough() -> None:
    """That tier is for ``decide``, which lets it run."""
    assert enough(1.0, 0.4) == inf
    assert verdict(ENTERPRISE, late_worth=1.0, fits=0.0)[0] is Action.RUN


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"fits": 0.9}, (Action.RUN, Reason.FITS)),
        ({}, (Action.ANSWER, Reason.UNLIKELY)),
        ({"remaining_s": 0.0005}, (Action.ANSWER, Reason.LAST_EXIT)),
        ({"remaining_s": -1.0, "seen": 0}, (Action.ANSWER, Reason.LAST_EXIT)),
        ({"seen": LEAST_SEEN - 1, "fits": 0.0}, (Action.RUN, Reason.COLD)),
        ({"has_answer": False}, (Action.RUN, Reason.NO_ALTERNATIVE)),
        ({"has_answer": False, "remaining_s": -1.0}, (Action.RUN, Reason.NO_ALTERNATIVE)),
        ({"has_answer": False, "may_reject": True}, (Action.RUN, Reason.FITS)),
        ({"has_answer": False, "may_reject": True, "fits": 0.4}, (Action.REJECT, Reason.UNLIKELY)),
        (
            {"has_answer": False, "may_reject": True, "remaining_s": 0.0},
            (Action.REJECT, Reason.LAST_EXIT),
        ),
        ({"fits": 0.72, "caution": 0.1}, (Action.ANSWER, Reason.UNLIKELY)),
        ({"fits": 0.65, "caution": -0.2}, (Action.RUN, Reason.FITS)),
        ({"degraded_worth": 0.9, "fits": 0.9}, (Action.ANSWER, Reason.UNLIKELY)),
        ({"degraded_enough": True}, (Action.RUN, Reason.DEGRADED_ENOUGH)),
        ({"degraded_enough": True, "remaining_s": 0.0}, (Action.RUN, Reason.DEGRADED_ENOUGH)),
        ({"degraded_enough": True, "probe_due": True, "behind": True},
         (Action.RUN, Reason.DEGRADED_ENOUGH)),
        ({"probing": True, "fits": 0.0}, (Action.RUN, Reason.PROBE_DUE)),
        ({"probing": True, "remaining_s": 0.0}, (Action.ANSWER, Reason.LAST_EXIT)),
    ],
)  # fmt: skip
def test_each_way_has_its_reason(
    changes: dict[str, object], expected: tuple[Action, Reason]
) -> None:
    """Every combination that matters leads where the rule says."""
    assert verdict(ENTERPRISE, **changes) == expected


def test_a_later_exit_is_worth_something() -> None:
    """What may be given up later is not given up now, unless that may be too late."""
    later = {"leg_fits": 0.99, "leg_s": 0.001}

    assert verdict(ENTERPRISE, **later) == (Action.RUN, Reason.LATER)
    assert verdict(ENTERPRISE, leg_fits=0.6, leg_s=0.001) == (Action.ANSWER, Reason.UNLIKELY)
    assert verdict(ENTERPRISE, leg_fits=0.3) == (Action.ANSWER, Reason.UNLIKELY)


def test_a_later_exit_is_worth_nothing_when_load_is_what_slows() -> None:
    """Under overload whoever would only wait for a later exit leaves at once."""
    later = {"leg_fits": 0.99, "leg_s": 0.001}

    assert verdict(ENTERPRISE, **later, load_effect=0.3)[0] is Action.ANSWER
    assert verdict(ENTERPRISE, **later, load_effect=-0.3)[0] is Action.RUN


def test_wasted_work_has_a_price() -> None:
    """A later exit that costs most of the budget to reach is not waited for."""
    assert verdict(ENTERPRISE, leg_fits=0.8, leg_s=0.001)[0] is Action.RUN
    assert verdict(ENTERPRISE, leg_fits=0.8, leg_s=0.03)[0] is Action.ANSWER


def test_a_race_keeps_the_exit_open() -> None:
    """With a timer the answer can always be given later; only hopeless work is not begun."""
    raced = {"raced": True, "rest_s": 0.02}

    assert verdict(ENTERPRISE, **raced) == (Action.RUN, Reason.LATER)
    assert verdict(ENTERPRISE, **raced, fits=0.1)[0] is Action.ANSWER
    assert verdict(ENTERPRISE, **raced, load_effect=0.3)[0] is Action.ANSWER


def test_a_stage_is_left_out_where_that_saves_the_request() -> None:
    """Its own fallback goes before the whole route's answer if it is worth more and will fit."""
    own = {"fallback_s": 0.001, "fallback_worth": 0.8, "sequel_fits": 1.0}

    assert verdict(ENTERPRISE, **own) == (Action.SKIP, Reason.OWN_FALLBACK)
    assert verdict(ENTERPRISE, **own, fits=0.75) == (Action.RUN, Reason.FITS)
    assert verdict(ENTERPRISE, **{**own, "sequel_fits": 0.5})[0] is Action.ANSWER
    assert verdict(ENTERPRISE, **{**own, "fallback_s": 0.03})[0] is Action.ANSWER
    assert verdict(ENTERPRISE, **own, has_answer=False)[0] is Action.SKIP
    assert verdict(ENTERPRISE, **own, has_answer=False, remaining_s=0.0)[0] is Action.RUN
    assert verdict(ENTERPRISE, **own, has_answer=False, fits=0.99)[0] is Action.RUN


def test_a_probe_goes_behind_the_answer_or_in_front_of_the_user() -> None:
    """What must not run unseen is tried in the open; there is no probe of what runs anyway."""
    own = {"fallback_s": 0.001, "fallback_worth": 0.8}

    assert verdict(ENTERPRISE, probe_due=True, behind=True) == (Action.PROBE, Reason.PROBE_DUE)
    assert verdict(ENTERPRISE, probe_due=True) == (Action.RUN, Reason.PROBE_DUE)
    assert verdict(ENTERPRISE, probe_due=True, fits=0.9) == (Action.RUN, Reason.FITS)
    assert verdict(ENTERPRISE, probe_due=True, remaining_s=0.0)[1] is Reason.LAST_EXIT
    assert verdict(ENTERPRISE, probe_due=True, behind=True, **own)[0] is Action.PROBE
    assert verdict(ENTERPRISE, probe_due=True, behind=True, **own, has_answer=False) == (
        Action.RUN,
        Reason.PROBE_DUE,
    )


def test_the_numbers_are_those_it_was_decided_by() -> None:
    """A decision carries what is needed to check it."""
    decision = decide(ENTERPRISE._replace(caution=0.05))

    assert decision.fits == 0.5
    assert decision.worth == pytest.approx(0.0)
    assert decision.bar == pytest.approx(0.45)
    assert decision.remaining_s == 0.02
    assert RUN[:2] == (Action.RUN, Reason.FITS)


shares = st.floats(0, 1)
some_facts = st.builds(
    Facts,
    remaining_s=st.floats(-1, 2),
    limit_s=st.floats(0.001, 2),
    fits=shares,
    seen=st.integers(0, 10),
    leg_fits=st.none() | shares,
    leg_s=st.floats(0, 3),
    rest_s=st.floats(0, 3),
    raced=st.booleans(),
    load_effect=st.floats(-3, 3),
    answer_cost_s=st.floats(0, 0.1),
    has_answer=st.booleans(),
    may_reject=st.booleans(),
    late_worth=st.floats(-10, 0),
    degraded_worth=shares,
    rejected_worth=shares,
    caution=st.floats(-0.2, 0.4),
    fallback_s=st.none() | st.floats(0, 1),
    fallback_worth=shares,
    sequel_fits=shares,
    degraded_enough=st.booleans(),
    probe_due=st.booleans(),
    behind=st.booleans(),
    probing=st.booleans(),
)


@given(some_facts)
def test_nothing_is_done_that_cannot_be_done(facts: Facts) -> None:
    """No answer, refusal, fallback or work behind an answer where there is none to be had."""
    decision = decide(facts)

    assert decision == decide(facts)
    assert decision.action is not Action.ANSWER or facts.has_answer
    assert decision.action is not Action.REJECT or (facts.may_reject and not facts.has_answer)
    assert decision.action is not Action.SKIP or (
        facts.fallback_s is not None and facts.remaining_s > facts.fallback_s
    )
    assert decision.action is not Action.PROBE or (facts.behind and facts.probe_due)
    if facts.degraded_enough:
        assert decision.action in {Action.RUN, Action.REJECT, Action.PROBE}
    assert not isnan(decision.worth)


@given(some_facts)
def test_the_short_way_is_the_long_way(facts: Facts) -> None:
    """Whoever has found ``enough`` and goes on would have been told to."""
    facts = facts._replace(has_answer=True)
    bar = facts.degraded_worth + facts.caution
    if facts.remaining_s > facts.answer_cost_s and facts.fits >= enough(facts.late_worth, bar):
        # Exactly at the bar the two differ by rounding.
        facts = facts._replace(fits=min(1.0, facts.fits + 1e-9))
        if facts.fits < 1.0 or bar <= 1.0:
            assert decide(facts).action is Action.RUN


@given(some_facts, st.floats(0, 1))
def test_more_time_never_speaks_against_going_on(facts: Facts, more: float) -> None:
    """What goes on is worth no less when the rest is likelier to fit."""
    better = facts._replace(fits=facts.fits + (1 - facts.fits) * more, leg_fits=facts.leg_fits)

    assert worth_of_going_on(better, 0.4) >= min(worth_of_going_on(facts, 0.4), 0.4) - 1e-9
