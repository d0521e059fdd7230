"""Did enforcing do what it is for? The same load, observed and enforced, is compared here."""

from __future__ import annotations

from collections.abc import Iterator

from examples.demo.checks import Check
from examples.demo.scrape import DEGRADED, DURATION
from examples.demo.story import CRITICAL, TIGHT, Shares, Story, shares, smaller

ENOUGH_LESS = 0.25
"""Enforced, at most this share of the late answers that were observed may be left."""


def compare(observe: Story, enforce: Story) -> list[Check]:
    """Compare one load in both modes."""
    watched, steered = (shares(story.during, TIGHT) for story in (observe, enforce))
    after = shares(enforce.after, TIGHT)
    late, less = (f"{100 * one.of(one.late):.0f} %" for one in (watched, steered))
    degraded, again = (
        f"{100 * steered.of(steered.degraded):.0f} %",
        f"{100 * after.of(after.full):.0f} %",
    )
    return [
        Check("both modes had the same load", tuple(_load(observe, enforce))),
        Check("observing changed no answer", tuple(_untouched(observe))),
        Check(
            f"{TIGHT} signals, slow database: late observed, smaller answers enforced",
            tuple(_slow(observe, enforce)),
        ),
        Check(
            f"{TIGHT} signals, slow database: {late} late observed, {less} late enforced,"
            f" {degraded} degraded",
            tuple(_in_time(observe, enforce)),
            timed=True,
        ),
        Check(f"... and recovered: {again} full", tuple(_recovered(observe, enforce)), timed=True),
        Check(
            "every request was sent when it was due",
            tuple(_withheld(observe, enforce)),
            timed=True,
        ),
    ]


def _load(observe: Story, enforce: Story) -> Iterator[str]:
    for one, other in zip(observe.phases, enforce.phases, strict=True):
        once, again = one.tape.due(), other.tape.due()
        for route, tier in sorted(once.keys() | again.keys()):
            if once[route, tier] != again[route, tier]:
                yield (
                    f"{one.title}: {route} {tier}: {once[route, tier]} requests observed,"
                    f" {again[route, tier]} enforced"
                )


def _untouched(observe: Story) -> Iterator[str]:
    counted = observe.final.count(DEGRADED)
    if counted:
        yield f"{counted} smaller answers while observing"


def _slow(observe: Story, enforce: Story) -> Iterator[str]:
    # A disk this slow makes them late on every machine, and a busy one all the more.
    if not shares(observe.during, TIGHT).late:
        yield f"observe: no {TIGHT} signal was late while the database was slow"
    if not smaller([enforce.during.counted], (CRITICAL, TIGHT)):
        yield f"enforce: no {TIGHT} signal was degraded while the database was slow"


def _in_time(observe: Story, enforce: Story) -> Iterator[str]:
    watched, steered = (shares(story.during, TIGHT) for story in (observe, enforce))
    if steered.of(steered.late) > ENOUGH_LESS * watched.of(watched.late):
        yield f"{_told(watched)} observed, {_told(steered)} enforced"
    spent = [
        story.during.counted.total(f"{DURATION}_sum", route="signals", tier=TIGHT)
        for story in (observe, enforce)
    ]
    if spent[1] >= spent[0]:
        yield f"{TIGHT} signals took {spent[0]:.3f} s observed and {spent[1]:.3f} s enforced"


def _recovered(observe: Story, enforce: Story) -> Iterator[str]:
    for story in (observe, enforce):
        before, slow, after = (shares(phase, TIGHT) for phase in story.phases)
        for phase, other in ((story.before, before), (story.after, after)):
            if other.of(other.full) <= slow.of(slow.full):
                yield f"{story.mode}: {phase.title}: {_told(other)}, slow: {_told(slow)}"


def _withheld(observe: Story, enforce: Story) -> Iterator[str]:
    for story in (observe, enforce):
        for phase in story.phases:
            if withheld := phase.tape.withheld.total():
                yield (
                    f"{story.mode}: {phase.title}: {withheld} requests were not sent, too many"
                    " were open"
                )


def _told(one: Shares) -> str:
    return f"{one.full} full, {one.degraded} degraded, {one.late} late"
