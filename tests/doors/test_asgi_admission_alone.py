"""Coming in over ASGI where something is missing: the loop, the shared rates, a step of ours."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import anyio
import pytest
from tests.doors.fault_points import Faults
from tests.doors.test_asgi_admission import POLICY, RATED, STEERED, Hall, status

from budgetware import budget
from budgetware._core.policy import Mode, Policy, TierPolicy
from budgetware.asgi import BudgetMiddleware, Receive, Scope, Send


def test_under_trio_nobody_waits() -> None:
    """There is no loop to wake them; they are let in or refused at once."""
    hall = Hall(replace(POLICY, concurrency=1), seconds=0.0)
    statuses: list[int] = []

    async def main() -> None:
        entered, over = anyio.Event(), anyio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            entered.set()
            await over.wait()
            await hall.app(scope, receive, send)

        policy = replace(POLICY, concurrency=1, tiers={"free": TierPolicy(queue=0.5)})
        hall.door = BudgetMiddleware(app, policy=policy, clock=hall.time)

        async def first() -> None:
            statuses.append(status(await hall.asking()))

        # A failure is not to hang the run.
        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                group.start_soon(first)
                await entered.wait()
                statuses.append(status(await hall.asking()))
                over.set()

    anyio.run(main, backend="trio")

    assert statuses == [503, 200]
    assert hall.passages == {"refused": 1}


def test_a_thread_that_still_runs_keeps_its_requests_slot() -> None:
    """The answer has left, the application's call has ended, and the process is still busy."""
    policy = replace(POLICY, concurrency=1, tiers={"free": TierPolicy()})
    hall = Hall(policy, seconds=0.0)
    over = threading.Event()
    threads: list[threading.Thread] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        threads.append(threading.Thread(target=budget.carry(over.wait), args=(30,)))
        threads[-1].start()
        await hall.app(scope, receive, send)

    hall.door = BudgetMiddleware(app, policy=policy, clock=hall.time)
    statuses = [status(hall.ask()) for _ in range(2)]
    over.set()
    threads[0].join()
    statuses.append(status(hall.ask()))
    threads[1].join()

    assert statuses == [200, 503, 200]
    hall.check()


class _Shared:
    """Rates kept somewhere else: they say what they were told to."""

    def __init__(self, wait_s: float | Exception) -> None:
        self.wait_s = wait_s
        self.asked: list[tuple[Any, ...]] = []

    async def take(self, *asked: Any) -> float:
        self.asked.append(asked)
        if isinstance(self.wait_s, Exception):
            raise self.wait_s
        return self.wait_s


def test_shared_rates_are_asked_instead() -> None:
    """With what the request has left; in shadow nobody waits for a server."""
    shared: Any = _Shared(7.0)
    hall = Hall(RATED, rates=shared)

    refused = hall.ask(who="me")

    assert status(refused) == 429
    assert int(dict(refused.messages[0]["headers"])[b"retry-after"]) >= 7
    assert shared.asked == [("free", "me", 2.0, 2.0, 1000.0, float("inf"), "")]
    assert status(Hall(replace(RATED, mode=Mode.SHADOW), rates=shared).ask()) == 200
    assert len(shared.asked) == 1


def test_rates_that_fail_turn_nobody_away() -> None:
    """It is counted, and the request runs."""
    shared: Any = _Shared(RuntimeError())
    hall = Hall(RATED, rates=shared)

    assert [status(hall.ask()) for _ in range(5)] == [200] * 5
    assert hall.door._engine.tally.faults == {"admission": 5}


def test_rates_for_threads_are_refused_at_the_start() -> None:
    """They would keep the event loop waiting."""

    class ForThreads:
        def take(self) -> float:
            return 0.0

    with pytest.raises(TypeError, match="coroutines"):
        Hall(RATED, rates=ForThreads())


def test_an_identity_that_fails_is_nobodys() -> None:
    """The request counts against the rate of all whom nobody knows."""

    def broken(_: Scope) -> str:
        raise KeyError

    hall = Hall(RATED, identity=broken)

    assert [status(hall.ask()) for _ in range(3)] == [200, 200, 429]
    assert hall.door._engine.tally.faults == {"identity": 3}


STEPS = ("_core.entrance.", "_core.admit.", "_core.rate.", "_core.ticket.", "_core.tally.")


def steps_of(faults: Faults) -> list[str]:
    """Return the steps of the entrance that were taken; what a finalizer raises reaches nobody."""
    taken = [step for step in faults.reached if step.startswith(STEPS)]
    return sorted(step for step in taken if not step.endswith("__del__"))


@pytest.mark.parametrize("policy", [replace(POLICY, concurrency=9), RATED, STEERED])
def test_a_broken_step_changes_no_answer(monkeypatch: pytest.MonkeyPatch, policy: Policy) -> None:
    """Each step of the entrance raises, always or once: the request runs, and it is counted."""
    faults = Faults(monkeypatch)
    Hall(policy, seconds=0.0).ask()
    steps = steps_of(faults)
    assert any("entrance.Entrance.visit" in step for step in steps)

    for step in steps:
        for once in (True, False):
            hall = Hall(policy, seconds=0.0)
            faults.arm(step, once=once)
            answered = hall.ask()
            faults.arm(None)
            assert answered.body == b"full", step
            assert answered.complete, step
