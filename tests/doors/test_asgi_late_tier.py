"""A tier the application only learns on the way, over ASGI: decisions, answers and keys move."""

from __future__ import annotations

import asyncio

import pytest
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from tests.doors.steered_play import Play

from budgetware import budget
from budgetware._core.policy import Mode, TierPolicy

TIERS = {
    "free": TierPolicy(budget=1.0),
    "pro": TierPolicy(budget=0.1),
    "patient": TierPolicy(budget=0.1, mode=Mode.OBSERVE),
}


class Service:
    """Learns its caller's tier after a while, then takes its time."""

    def __init__(self, tier: str, *, learns_s: float = 0.01, takes_s: float = 0.3) -> None:
        self.tier = tier
        self.learns_s = learns_s
        self.takes_s = takes_s
        self.reached = 0

    async def serve(self, _: Request) -> Response:
        """Serve one request."""
        await asyncio.sleep(self.learns_s)
        budget.tier = self.tier
        self.reached += 1
        await asyncio.sleep(self.takes_s)
        return PlainTextResponse(f"for {budget.tier}", headers={"cache-control": "max-age=60"})


def outcomes(play: Play, tier: str) -> dict[str, int]:
    """Return how many requests of *tier* ended how."""
    engine = play.door._engine
    engine.absorb()
    counts = engine.tally.requests["signals", tier].outcomes
    return {outcome: count for outcome, count in counts.items() if count}


def test_the_clock_keeps_the_new_tiers_promise() -> None:
    """From the same start."""
    service = Service("pro")
    play = Play(service.serve, tiers=TIERS)

    answered = play.ask()

    assert answered.kind == "static"
    assert answered.at_s[-1] <= 0.1
    assert (outcomes(play, "pro"), outcomes(play, "free")) == ({"degraded": 1}, {})
    play.check()


def test_a_longer_promise_puts_the_clock_off() -> None:
    """What the shorter one would have cut off is answered in full."""
    service = Service("free")
    play = Play(service.serve, tiers=TIERS, tier=lambda _: "pro")

    assert play.ask().body == b"for free"
    assert outcomes(play, "free") == {"met": 1}
    play.check()


def test_what_is_stored_belongs_to_the_tier_it_was_made_for() -> None:
    """It never stands in for another tier's response."""
    service = Service("pro")
    play = Play(service.serve, tiers=TIERS)
    for _ in range(3):
        play.ask()
    service.tier = "free"
    service.takes_s = 0.99

    kinds = {(answered.kind, answered.body) for answered in (play.ask() for _ in range(3))}

    assert (None, b"for pro") not in kinds
    assert {body for _, body in kinds} <= {b"static", b"for free"}
    play.check()


def test_a_hopeless_request_is_answered_as_soon_as_its_tier_is_known() -> None:
    """The forecast is asked again when there is another promise to keep."""
    service = Service("pro")
    play = Play(service.serve, tiers=TIERS)
    for _ in range(12):
        play.ask()
    service.reached = 0

    answers = [play.ask() for _ in range(30)]

    assert all(answered.at_s[-1] <= 0.1 for answered in answers)
    assert sum(answered.at_s[-1] == pytest.approx(0.01) for answered in answers) > 20
    assert service.reached < 10
    assert outcomes(play, "pro") == {"degraded": 42}
    play.check()


def test_a_tier_that_is_not_decided_on_is_left_in_peace() -> None:
    """Whatever the first guess at the tier was."""
    service = Service("patient")
    play = Play(service.serve, tiers=TIERS, tier=lambda _: "pro")

    answers = [play.ask() for _ in range(10)]

    assert {answered.kind for answered in answers[:3]} == {None}
    assert outcomes(play, "patient")["breached"] >= 3
    play.check()


def test_a_tier_that_is_decided_on_is_so_from_then_on() -> None:
    """Although the first guess was one that is left in peace."""
    service = Service("pro")
    play = Play(service.serve, tiers=TIERS, tier=lambda _: "patient")

    answers = [play.ask() for _ in range(5)]

    assert {answered.kind for answered in answers} <= {"static", "cached"}
    assert all(answered.at_s[-1] <= 0.1 for answered in answers)
    play.check()


def test_once_the_response_has_begun_the_tier_changes_the_account_only() -> None:
    """Nothing is decided and nothing is stored under another key."""

    async def endpoint(_: Request) -> Response:
        async def late() -> None:
            budget.tier = "pro"
            await asyncio.sleep(0.3)

        return PlainTextResponse("full", background=BackgroundTask(late))

    play = Play(endpoint, tiers=TIERS)

    assert play.ask().kind is None
    play.check()


def test_what_a_tier_that_changed_behind_an_answer_has_made_is_not_kept() -> None:
    """Whose response it is cannot be told any more."""

    async def endpoint(_: Request) -> Response:
        await asyncio.sleep(0.3)
        budget.tier = "free"
        return PlainTextResponse("for free", headers={"cache-control": "max-age=60"})

    play = Play(endpoint, tiers=TIERS, tier=lambda _: "pro")

    assert [play.ask().kind for _ in range(4)] == ["static"] * 4
    play.check()
