"""Every step of deciding and answering raises in turn, over WSGI: each client has one response."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from tests.doors.fault_points import Faults
from tests.doors.steered_play import POLICY, SIGNALS
from tests.doors.wsgi_steered_play import HEADERS, Stand

from budgetware import _core, answers, budget
from budgetware._core.policy import Objectives, StagePolicy, TierPolicy
from budgetware.wsgi import StartResponse, WSGIApp

pytestmark = pytest.mark.exhaustive

Env = dict[str, Any]
SERVED = replace(
    POLICY,
    concurrency=8,
    tiers={
        "free": TierPolicy(budget=0.2, max_late_rate=0.1),
        "pro": TierPolicy(budget=0.1, rate=1000.0, queue=0.05),
    },
    routes={
        "signals": replace(
            SIGNALS,
            answers=("cached", "fallback", "static", "reject"),
            stages={"ml": StagePolicy(answers=True)},
            objectives=Objectives(degraded=0.9),
        )
    },
)
POSSIBLE = {b"full", b"part", b"cheap", b"static"}


@budget.stage("score", fallback=lambda stand: b"part")
def score(stand: Stand) -> bytes:
    """Answer in full, or do without."""
    stand.time.now += 0.01
    return b"full"


class Service(Stand):
    """An application with everything switched on."""

    def __init__(self, name: str) -> None:
        apps: dict[str, WSGIApp] = {
            "quick": self._quick,
            "slow": self._slow,
            "staged": self._staged,
            "lazy": self._lazy,
            "given_up": self._given_up,
        }
        super().__init__(
            apps[name],
            policy=SERVED,
            fallbacks={"signals": lambda _: "cheap"},
            identity=lambda _: "me",
        )
        self.door._engine.absorb_at = 1

    def _quick(self, _: Env, start_response: StartResponse) -> Iterable[bytes]:
        self.time.now += 0.01
        start_response("200 OK", HEADERS)
        return [b"full"]

    def _slow(self, _: Env, start_response: StartResponse) -> Iterable[bytes]:
        self.time.now += 0.3
        start_response("200 OK", HEADERS)
        return iter([b"fu", b"ll"])

    def _staged(self, _: Env, start_response: StartResponse) -> Iterable[bytes]:
        budget.tier = "pro"
        made = score(self)
        with budget.stage("ml"):
            self.time.now += 0.15
        start_response("200 OK", HEADERS)
        return [made]

    def _lazy(self, env: Env, start_response: StartResponse) -> Iterator[bytes]:
        yield from self._staged(env, start_response)

    def _given_up(self, _: Env, start_response: StartResponse) -> Iterator[bytes]:
        budget.degrade("no_model")
        start_response("200 OK", HEADERS)  # where nothing is decided any more
        yield b"full"

    def bodies(self) -> list[bytes]:
        """Return what the clients are sent, each in one response."""
        bodies = []
        for number in range(8):
            bodies.append(self.ask(method="POST" if number == 5 else "GET").body)
            self.time.now += 0.5
        return bodies


@pytest.mark.parametrize("name", ["quick", "slow", "staged", "lazy", "given_up"])
def test_a_broken_step_leaves_every_client_one_response(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Always or once: the full response or a smaller one, whole, and no error."""
    faults = Faults(monkeypatch, (_core, answers))
    faults.reached.clear()
    expected = Service(name).bodies()
    steps = sorted(faults.reached)
    assert len(steps) > 60
    if name == "quick":
        assert set(expected) == {b"full"}

    for step in steps:
        for once in (False, True):
            if once and faults.raised <= 1:
                continue  # that was it already
            service = Service(name)
            faults.arm(step, once=once)
            try:
                bodies = service.bodies()
            except Exception as error:
                raise AssertionError(f"{step} broke and showed") from error
            finally:
                faults.armed = None
            odd = [body for body in set(bodies) - POSSIBLE if b'"status"' not in body]
            assert not odd, step
            if name == "quick":
                assert set(bodies) == {b"full"}, step
