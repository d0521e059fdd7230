"""The tiers, and the ladder all of them share: do they fit together."""

from __future__ import annotations

from itertools import pairwise
from math import fsum
from typing import TYPE_CHECKING

from budgetware._core.decide import late_worth_of
from budgetware.policyfile.fields import LEAST_WORTH
from budgetware.units import format_duration, format_percent, shown

if TYPE_CHECKING:
    from budgetware.policyfile.lint.case import Case

_SLACK = 1e-9


def _shares(case: Case) -> None:
    """Find guarantees of more than there is, and of nothing."""
    shares = {
        name: tier.share for name, tier in case.policy.tiers.items() if tier.share is not None
    }
    if not shares or not case.marks.intact("tiers"):
        return
    last = list(shares)[-1]
    total = fsum(shares.values())
    if total > 1 + _SLACK:
        case.found.report(
            "shares-over-100",
            f"the tiers' shares add up to {format_percent(total)}",
            "at most 100% can be guaranteed",
            path=("tiers", last, "share"),
            detail="\n".join(f"{name}  {format_percent(share)}" for name, share in shares.items()),
        )
    if case.policy.concurrency is None and case.marks.intact("concurrency"):
        first = next(iter(shares))
        case.found.report(
            "share-without-concurrency",
            "a share guarantees nothing while there is no limit to share",
            "set `concurrency`",
            path=("tiers", first, "share"),
            severity="warning",
        )


def _queues(case: Case) -> None:
    """Find waits that use up the whole budget, and waits for what is always there."""
    unlimited = case.policy.concurrency is None and case.marks.intact("concurrency")
    waiting = next((name for name, tier in case.policy.tiers.items() if tier.queue), None)
    if unlimited and waiting is not None:
        case.found.report(
            "queue-without-concurrency",
            "nobody waits while there is no limit to how many requests run",
            "set `concurrency`",
            path=("tiers", waiting, "queue"),
            severity="warning",
        )
    for name, tier in case.policy.tiers.items():
        if tier.queue is not None and tier.budget is not None and tier.queue >= tier.budget:
            case.found.report(
                "queue-over-budget",
                f"a wait of {format_duration(tier.queue)} alone uses up the tier's budget of "
                f"{format_duration(tier.budget)}",
                "wait for less than the budget",
                path=("tiers", name, "queue"),
                severity="warning",
            )


def _attitudes(case: Case) -> None:
    """Find tiers that say twice what a late answer is worth to them."""
    for name, tier in case.model.tiers.items():
        if tier.confidence is None or "late_worth" not in tier.model_fields_set:
            continue
        worth = round(late_worth_of(tier.confidence), 4) + 0.0  # no -0
        same = (
            f": `confidence: {format_percent(tier.confidence)}` is `late_worth: {worth:g}`"
            if worth >= LEAST_WORTH
            else ""
        )
        case.found.report(
            "late-worth-twice",
            f"tier {shown(name)} has `confidence` and `late_worth`, which are two ways to say "
            "the same",
            f"keep one of them, the same one in every environment{same}",
            path=("tiers", name, "confidence"),
        )


def _ladder(case: Case) -> None:
    """Find a level of the ladder that is not above the one before."""
    ladder = case.policy.ladder
    if not case.marks.intact("ladder"):
        return
    levels = (("warning", ladder.warning), ("critical", ladder.critical), ("breach", ladder.breach))
    for (lower, below), (name, level) in pairwise(levels):
        if level > below:
            continue
        given = next((key for key in (name, lower) if case.marks.has("ladder", key)), name)
        case.found.report(
            "ladder-order",
            f"the ladder does not rise: {name} is {format_percent(level)}, "
            f"{lower} before it {format_percent(below)}",
            "warning < critical < breach, such as "
            "`ladder: {warning: 80%, critical: 100%, breach: 150%}`",
            path=("ladder", given),
        )


RULES = (_shares, _queues, _attitudes, _ladder)
