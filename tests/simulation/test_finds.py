"""What a simulation is for: with a fix taken out, or a law broken, it finds that and says which."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from budgetware._core import engine, steering
from budgetware._core.account import account
from budgetware._core.admit import Admission
from budgetware._core.engine import Engine
from budgetware._core.entrance import Visit
from budgetware.answers import cache
from budgetware.answers.key import key_of
from budgetware.asgi import race
from budgetware.asgi.exchange import Exchange
from budgetware.asgi.race import Race
from budgetware.asgi.steered import SteeredExchange
from budgetware.wsgi import bodies, helm
from simulation import world
from simulation.play import play

pytestmark = pytest.mark.exhaustive

MOST_SEEDS = 3000


def finds(invariant: str) -> bool:
    """Tell whether it is found within some seeds that *invariant* does not hold."""
    return any(
        broken.startswith(f"{invariant}:")
        for seed in range(MOST_SEEDS)
        for broken in play(seed).broken
    )


Break = Callable[[pytest.MonkeyPatch], object]


def test_a_servers_cancel_that_is_swallowed_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it was before the door looked for one behind the errors of a task group."""
    monkeypatch.setattr(Race, "was_cancelled", lambda *_: False)

    assert finds("cancel")


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="whatever is counted then is the server's")
def test_a_servers_cancel_that_is_not_heard_of_yet_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As it was before the door looked whether one was under way when it was asked for less."""
    monkeypatch.setattr(race, "_is_pending", lambda *_: False)

    assert finds("cancel")


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="task groups take theirs back")
def test_a_task_groups_cancel_that_is_taken_for_the_servers_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As it was before the door knew what a task group leaves behind."""
    monkeypatch.setattr(race, "_left_behind", lambda *_: 0)

    assert finds("cancel")


def test_a_send_that_is_called_again_after_it_has_raised_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As it was when an error of the server's was taken for a fault of ours."""
    send = Exchange.send

    def sending(self: Exchange, message: Any) -> Any:
        try:
            return send(self, message)
        except Exception:  # noqa: BLE001 - what was wrong
            return self.forward(message)

    monkeypatch.setattr(Exchange, "send", sending)

    assert finds("send")


def _slot_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Visit, "leave", lambda _: None)


def _slot_is_not_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Admission, "resume", lambda *_: None)


def _budget_stays_current(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (helm, bodies):
        monkeypatch.setattr(module, "leave", lambda _: None)


def _callers_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        cache, "key_of", lambda asked, *more: key_of(replace(asked, identity=None), *more)
    )


def _both_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SteeredExchange, "send", Exchange.send)


def _clock_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Race, "start", lambda _: None)


def _lost_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "lose", lambda *_: None)


def _time_is_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    def accounted(*args: Any, **more: Any) -> Any:
        record = account(*args, **more)
        return replace(record, unattributed_s=record.unattributed_s + 0.001)

    monkeypatch.setattr(engine, "account", accounted)


def _bodies_stay_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies.Body, "close", lambda self: self.exchange.finish())


def _writes_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache._Written, "note", lambda *_: None)


def _child_has_its_parents_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "FORKS", 1.0)
    monkeypatch.setattr(steering, "_after_fork", _Nobody())


class _Nobody(set[object]):
    def add(self, _: object) -> None:
        """Forget it."""


@pytest.mark.parametrize(
    ("breaks", "invariant"),
    [
        (_slot_is_kept, "slots"),
        (_slot_is_not_taken_back, "slots"),
        (_budget_stays_current, "context"),
        (_callers_share, "whose"),
        (_both_answer, "one response"),
        (_clock_stands, "promise"),
        (_lost_are_not_counted, "tally"),
        (_time_is_counted_twice, "ledger"),
        (_bodies_stay_open, "close"),
        (_writes_change_nothing, "kept"),
        (_child_has_its_parents_requests, "fork"),
    ],
)
def test_a_law_that_is_broken_is_found(
    breaks: Break, invariant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each by the invariant that is about it."""
    breaks(monkeypatch)

    assert finds(invariant)
