"""What the WSGI door refuses when it is made, and what it makes only once."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.doors.steered_play import POLICY, SIGNALS
from tests.doors.wsgi_play import Door, Wire, answer, environ
from tests.doors.wsgi_steered_play import HEADERS, Stand

from budgetware import budget
from budgetware._core.policy import Mode, Policy, Route, TierPolicy
from budgetware.errors import BudgetwareError, PolicyError
from budgetware.names import MODE_VARIABLE
from budgetware.wsgi import BudgetMiddleware, StartResponse
from budgetware.wsgi.helm import Helm

SAFE = replace(SIGNALS, cancel_safe=True)
CANCELLING = replace(POLICY, routes={"signals": SAFE})


def test_a_policy_that_cancels_work_is_refused_and_told_why() -> None:
    """All its routes at once, that a thread cannot be cancelled, and what to do."""
    policy = replace(CANCELLING, routes={"signals": SAFE, "other": replace(SAFE, name="other")})

    with pytest.raises(PolicyError) as caught:
        BudgetMiddleware(answer, policy=policy)

    assert isinstance(caught.value, BudgetwareError)
    problems = caught.value.problems
    assert [one.path for one in problems] == [
        "routes.signals.cancel_safe",
        "routes.other.cancel_safe",
    ]
    for word in ("'signals'", "'other'", "a thread cannot be cancelled", "ASGI", "remove"):
        assert word in str(caught.value)


def test_a_policy_file_that_cancels_work_is_named(tmp_path: Path) -> None:
    """With the file that says so."""
    file = tmp_path / "budgetware.yaml"
    file.write_text(
        "version: 1\nmode: enforce\nroutes:\n"
        "  signals: {match: GET /signals, budget: 1s, answers: [reject], cancel_safe: true}\n"
    )

    with pytest.raises(PolicyError, match=r"budgetware\.yaml") as caught:
        BudgetMiddleware(answer, policy=file)
    assert caught.value.file == str(file)


def test_where_nothing_is_carried_out_nothing_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not in shadow, not for a job, not with every mode held back; but for one tier's sake."""
    BudgetMiddleware(answer, policy=replace(CANCELLING, mode=Mode.SHADOW))
    job = Route(name="job", budget=1.0, cancel_safe=True)
    BudgetMiddleware(answer, policy=replace(POLICY, routes={"job": job}))
    tiers = {"free": TierPolicy(budget=1.0), "pro": TierPolicy(budget=0.1, mode=Mode.ENFORCE)}
    shadow = replace(CANCELLING, mode=Mode.SHADOW, tiers=tiers)
    with pytest.raises(PolicyError):
        BudgetMiddleware(answer, policy=shadow)
    with pytest.raises(PolicyError):
        BudgetMiddleware(answer, policy=replace(CANCELLING, tiers={}))
    monkeypatch.setenv(MODE_VARIABLE, "shadow")
    BudgetMiddleware(answer, policy=CANCELLING)


def test_after_a_reload_it_is_without_effect() -> None:
    """A running service is not stopped; its work goes on to its end, shielded or not."""

    def app(_: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        with budget.shield():
            stand.time.now += 5.0
        start_response("200 OK", HEADERS)
        return [b"full"]

    stand = Stand(app)
    stand.door._engine.adopt(CANCELLING)

    assert stand.ask().body == b"full"
    stand.check()


def test_what_serves_decided_requests_is_there_from_the_start() -> None:
    """Where anything is decided; a door that only measures has none."""
    assert len(BudgetMiddleware(answer, policy=POLICY)._helms) == 1
    assert BudgetMiddleware(answer, policy=Policy())._helms == []


def test_threads_that_come_first_after_a_reload_share_one_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many make one at the same moment."""
    door = Door(answer, policy=replace(POLICY, mode=Mode.OBSERVE))
    door._engine.adopt(POLICY)
    together = threading.Barrier(8)
    made = Helm.__init__

    def slowly(self: Helm, *args: Any) -> None:
        together.wait(30)
        made(self, *args)

    monkeypatch.setattr(Helm, "__init__", slowly)
    with ThreadPoolExecutor(8) as pool:
        helms = list(pool.map(lambda _: door._helm(), range(8)))

    assert len(set(helms)) == 1
    Wire().run(door, environ(path="/signals"))
    assert door.faults == {}
