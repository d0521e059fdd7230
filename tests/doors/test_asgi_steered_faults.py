"""Every step of deciding and answering raises in turn, over ASGI: each client has one response."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from tests.doors.fault_points import Faults
from tests.doors.steered_play import SIGNALS, Play, taking

from budgetware import _core, answers, budget
from budgetware._core.policy import Objectives, StagePolicy, TierPolicy

pytestmark = pytest.mark.exhaustive

ROUTE = replace(
    SIGNALS,
    answers=("cached", "fallback", "static", "reject"),
    stages={"ml": StagePolicy(answers=True)},
    objectives=Objectives(degraded=0.9),
    cancel_safe=True,
)
TIERS = {
    "free": TierPolicy(budget=0.2, max_late_rate=0.1),
    "pro": TierPolicy(budget=0.1, rate=1000.0, queue=0.05),
}
POSSIBLE = {b"full", b"part", b"cheap", b"static"}


async def cheap(_: Any) -> str:
    """Answer cheaply."""
    return "cheap"


@budget.stage("score", fallback=lambda _: "part")
async def score(seconds: float) -> str:
    """Answer in full, or do without."""
    await asyncio.sleep(seconds)
    return "full"


async def staged(_: Request) -> Response:
    """Serve with everything an application may ask for."""
    budget.tier = "pro"
    with budget.shield():
        await asyncio.sleep(0.001)
    made = await score(0.01)
    with budget.stage("ml"):
        await asyncio.sleep(0.15)
    return PlainTextResponse(made, headers={"cache-control": "max-age=1"})


async def given_up(_: Request) -> Response:
    """Give up."""
    budget.degrade("no_model")
    return PlainTextResponse("full")


SERVICES = {
    "quick": taking(0.01, **{"cache-control": "max-age=1"}),
    "slow": taking(0.3, **{"cache-control": "max-age=1"}),
    "staged": staged,
    "given_up": given_up,
}


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """Every step of the core and of the answers, ready to raise."""
    return Faults(monkeypatch, (_core, answers))


def service(name: str) -> Play:
    """Return a new service with everything switched on."""
    play = Play(
        SERVICES[name],
        ROUTE,
        tiers=TIERS,
        fallbacks={"signals": cheap},
        identity=lambda _: "me",
        concurrency=8,
    )
    play.door._engine.absorb_at = 1
    return play


def responses(play: Play) -> list[bytes]:
    """Return what the clients are sent, after checking that each response is whole."""
    bodies = []
    for number in range(8):
        answered = play.ask("POST" if number == 5 else "GET")
        assert answered.complete
        bodies.append(answered.body)
        play.time.now += 0.5
    return bodies


@pytest.mark.parametrize("name", SERVICES)
def test_a_broken_step_leaves_every_client_one_response(name: str, faults: Faults) -> None:
    """Always or once: the full response or a smaller one, whole, and no error."""
    play = service(name)
    faults.reached.clear()
    expected = responses(play)
    steps = sorted(faults.reached)
    assert len(steps) > 60
    if name == "quick":
        assert set(expected) == {b"full"}

    for step in steps:
        for once in (False, True):
            if once and faults.raised <= 1:
                continue  # that was it already
            play = service(name)
            faults.arm(step, once=once)
            try:
                bodies = responses(play)
            except Exception as error:
                raise AssertionError(f"{step} broke and showed") from error
            finally:
                faults.armed = None
            odd = [body for body in set(bodies) - POSSIBLE if b'"status"' not in body]
            assert not odd, step
            if name == "quick":
                assert set(bodies) == {b"full"}, step
