"""What to do? Go on in full, leave a stage out, answer now, probe, or say no: a pure function.

What counts is what each way is worth on average. A full answer in time is worth 1, a smaller one
``degraded_worth``, a late one ``late_worth`` of the tier. Going on also keeps the right to answer
at the next point, which is worth something as long as that point is likely to be reached in time.
The rule, and why a cautious estimate is worse than none: ``docs/ESTIMATOR.md`` section 4.
"""

from __future__ import annotations

from enum import StrEnum
from math import inf
from typing import Final, NamedTuple

from budgetware._core.outlook import LEAST_SEEN

DEGRADED_WORTH: Final = 0.4
"""What a smaller answer in time is worth when a full one is worth 1."""

REJECTED_WORTH: Final = 0.0
"""What an honest refusal in time is worth."""

WASTE_PRICE: Final = 0.3
"""What a whole budget of work that is thrown away costs."""

LOAD_EFFECT: Final = 0.25
"""The effect of load, as a logarithm, from which on a later exit is worth nothing.

Whoever stays in while load is what makes everything slow makes it slower for the others.
"""


class Action(StrEnum):
    """What to do at a point."""

    RUN = "run"
    SKIP = "skip"
    ANSWER = "answer"
    PROBE = "probe"
    REJECT = "reject"


class Reason(StrEnum):
    """Why."""

    FITS = "fits"
    LATER = "later"
    COLD = "cold"
    NO_ALTERNATIVE = "no_alternative"
    DEGRADED_ENOUGH = "degraded_enough"
    UNLIKELY = "unlikely"
    LAST_EXIT = "last_exit"
    OWN_FALLBACK = "own_fallback"
    PROBE_DUE = "probe_due"
    FORCED = "forced"
    DEADLINE = "deadline"


class Decision(NamedTuple):
    """What to do at a point, why, and the numbers that led to it.

    Attributes:
        action: ``PROBE`` sends the smaller answer, or the refusal, and lets the work go on behind
            it. ``RUN`` with the reason ``PROBE_DUE`` is a probe in front of the user.
        reason: Why.
        fits: The probability that the rest fits in what remains.
        worth: What going on was found to be worth.
        bar: What the best alternative is worth; ``-inf`` without one.
        remaining_s: Seconds that were left.

    """

    action: Action
    reason: Reason
    fits: float = 1.0
    worth: float = 1.0
    bar: float = -inf
    remaining_s: float = inf


RUN: Final = Decision(Action.RUN, Reason.FITS)
"""Go on, as nearly always: for whoever has found ``enough`` and asks no further."""


class Facts(NamedTuple):
    """All a decision depends on; it says nothing of modes, which are about acting on it.

    Attributes:
        remaining_s: Seconds left of the budget.
        limit_s: The whole budget in seconds.
        fits: The probability that the rest fits in ``remaining_s``.
        seen: Full requests that is based on.
        leg_fits: The probability that the next point is reached in time to answer there, ``None``
            if there is no such point.
        leg_s: Seconds to the next point, as a rule.
        rest_s: Seconds to the end, as a rule.
        raced: Whether a timer can still answer at any moment, so that the right to do so later
            is never lost and going on costs no more than the work it may waste.
        load_effect: How much longer than usual load makes the rest, as a logarithm.
        answer_cost_s: Seconds it takes to send the smaller answer.
        has_answer: Whether there is a smaller answer to send.
        may_reject: Whether an honest refusal may be sent.
        late_worth: What a late answer is worth to this tier.
        degraded_worth: What the smaller answer is worth.
        rejected_worth: What a refusal is worth.
        caution: Added to what the alternative is worth, to hold a promised rate of late answers.
        fallback_s: Seconds the stage's own fallback takes, ``None`` if it has none.
        fallback_worth: What an answer made with it is worth.
        sequel_fits: The probability that what follows the stage fits in what remains after its
            fallback.
        degraded_enough: Whether the share of smaller answers is used up.
        probe_due: Whether a probe may be made here.
        behind: Whether the work may go on behind an answer that was sent; never for unsafe methods.
        probing: Whether this request is already a probe; it is then let through.

    """

    remaining_s: float
    limit_s: float
    fits: float = 1.0
    seen: int = LEAST_SEEN
    leg_fits: float | None = None
    leg_s: float = 0.0
    rest_s: float = 0.0
    raced: bool = False
    load_effect: float = 0.0
    answer_cost_s: float = 0.0
    has_answer: bool = True
    may_reject: bool = False
    late_worth: float = 0.0
    degraded_worth: float = DEGRADED_WORTH
    rejected_worth: float = REJECTED_WORTH
    caution: float = 0.0
    fallback_s: float | None = None
    fallback_worth: float = 0.0
    sequel_fits: float = 1.0
    degraded_enough: bool = False
    probe_due: bool = False
    behind: bool = False
    probing: bool = False


def enough(late_worth: float, bar: float) -> float:
    """Return the least probability of fitting at which going on is worth *bar* by itself.

    At or above it the answer of ``decide`` is ``RUN`` unless the last exit is reached; take the
    larger of the smaller answer's worth, caution included, and that of the stage's own fallback.
    """
    return (bar - late_worth) / (1.0 - late_worth) if late_worth < 1.0 else inf


def late_worth_of(confidence: float, degraded_worth: float = DEGRADED_WORTH) -> float:
    """Return what a late answer is worth to a tier that goes on from *confidence* upwards.

    Raises:
        ValueError: *confidence* is not in [0, 1).

    """
    if not 0.0 <= confidence < 1.0:
        raise ValueError(f"a confidence is from 0 to below 1, not {confidence}")
    return (degraded_worth - confidence) / (1.0 - confidence)


def worth_of_going_on(facts: Facts, bar: float) -> float:
    """Return what going on is worth when the alternative is worth *bar*."""
    late = facts.late_worth
    fits = facts.fits
    worth = fits + (1.0 - fits) * late
    leg_fits, leg_s = facts.leg_fits, facts.leg_s
    if facts.raced:
        leg_fits, leg_s = 1.0, facts.rest_s
    if worth < bar and leg_fits is not None and leg_fits > fits:
        share = min(1.0, max(0.0, 1.0 - facts.load_effect / LOAD_EFFECT))
        worth += share * (leg_fits - fits) * max(0.0, bar - late)
        worth -= WASTE_PRICE * (1.0 - fits) * min(1.0, leg_s / facts.limit_s)
    return worth


def decide(facts: Facts) -> Decision:  # noqa: C901 - one rule, to be read from top to bottom
    """Return what to do at a point, given *facts* and nothing else."""
    fits, remaining_s = facts.fits, facts.remaining_s
    smaller = Action.ANSWER
    bar = -inf
    if facts.has_answer:
        bar = facts.degraded_worth + facts.caution
    elif facts.may_reject:
        smaller, bar = Action.REJECT, facts.rejected_worth + facts.caution
    if bar == -inf and facts.fallback_s is None:
        return Decision(Action.RUN, Reason.NO_ALTERNATIVE, fits, fits, bar, remaining_s)
    worth = worth_of_going_on(facts, bar)
    # A stage is only left out where the request would have been given up: to try the stage costs
    # little as long as it is likely enough to fit, and is the only way to learn about it.
    skipped = _worth_of_skipping(facts) if worth < bar or bar == -inf else -inf
    action, reason = Action.RUN, Reason.FITS
    if remaining_s <= facts.answer_cost_s and bar > -inf:
        # Sooner or later the last moment at which the answer would still be in time is reached.
        action, reason = smaller, Reason.LAST_EXIT
    elif facts.probing:
        reason = Reason.PROBE_DUE
    elif facts.seen < LEAST_SEEN:
        reason = Reason.COLD
    elif skipped > max(worth, bar):
        action, reason = Action.SKIP, Reason.OWN_FALLBACK
    elif worth < bar:
        action, reason = smaller, Reason.UNLIKELY
    elif fits + (1.0 - fits) * facts.late_worth < bar:
        reason = Reason.LATER
    if action is not Action.RUN:
        if facts.degraded_enough and action is not Action.REJECT:
            action, reason = Action.RUN, Reason.DEGRADED_ENOUGH
        elif facts.probe_due and reason is not Reason.LAST_EXIT:
            behind = facts.behind and bar > -inf
            action, reason = Action.PROBE if behind else Action.RUN, Reason.PROBE_DUE
    return Decision(action, reason, fits, worth, bar, remaining_s)


def _worth_of_skipping(facts: Facts) -> float:
    fallback_s = facts.fallback_s
    if fallback_s is None or facts.remaining_s <= fallback_s:
        return -inf
    likely = facts.sequel_fits
    return facts.fallback_worth * (likely + (1.0 - likely) * facts.late_worth)
