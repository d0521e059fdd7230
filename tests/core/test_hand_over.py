"""Openings belong to one alone: to who settles them, or to who ends the request."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.core.programs import Play, current, stage

from budgetware._core import budget as budget_module
from budgetware._core.budget import MOST_STAGES
from budgetware._core.current import handle
from budgetware._core.lane import Lane

SERIES = ("_unmatched", "db")


def _elsewhere(act: Callable[[], object]) -> None:
    thread = threading.Thread(target=act)
    thread.start()
    thread.join()


@pytest.mark.parametrize("step", ["settle", "keep"])
@pytest.mark.parametrize("lost", [False, True])
def test_a_request_that_ends_while_it_is_settled_counts_openings_once(
    monkeypatch: pytest.MonkeyPatch, step: str, *, lost: bool
) -> None:
    """Before they are handed over they are who ends it's, and afterwards who settles them's."""
    play = Play()
    engine = play.engine
    budget = engine.begin("GET", "/x")
    owner: Any = budget_module if step == "settle" else Lane
    original = getattr(owner, step)

    def ended_meanwhile(*arguments: object) -> object:
        monkeypatch.setattr(owner, step, original)
        _elsewhere(lambda: (engine.lose if lost else engine.finish)(budget))
        return original(*arguments)

    monkeypatch.setattr(owner, step, ended_meanwhile)
    with current(budget):
        for _ in range(MOST_STAGES + 1):
            with handle.stage("db"):
                pass
    engine.absorb()

    assert play.engine.tally.faults == {}
    # The last one comes after the end, and is not kept.
    assert stage(play.records[0], "db").calls == MOST_STAGES
    counted = 0 if lost and step == "settle" else MOST_STAGES
    assert _counted(play) == counted


def test_a_thread_that_outlives_its_request_is_counted_as_recorded() -> None:
    """Whenever the request ends, histogram and record tell of the same openings."""
    play = Play()
    engine, shift = play.engine, random.Random(7)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    differences = []
    try:
        for _ in range(60):
            budget, done, before = engine.begin("GET", "/x"), threading.Event(), _counted(play)
            with current(budget):
                thread = threading.Thread(target=handle.carry(_open_until), args=(done,))
            thread.start()
            time.sleep(0.003 * shift.random())
            engine.finish(budget)
            done.set()
            thread.join()
            calls = sum(total.calls for total in play.records[-1].stages)
            differences.append(_counted(play) - before - calls)
    finally:
        sys.setswitchinterval(interval)

    # One opening may have been on its way into the list.
    assert {abs(difference) for difference in differences} <= {0, 1}
    assert play.faults == []


def _open_until(done: threading.Event) -> None:
    while not done.is_set():
        with handle.stage("db"):
            pass


def _counted(play: Play) -> int:
    play.engine.absorb()
    series = play.engine.tally.stages.get(SERIES)
    return 0 if series is None else series.durations.count
