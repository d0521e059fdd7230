"""However many stages a request has, what it keeps is bounded and every one is counted."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import threading
import tracemalloc

import pytest
from tests.core.programs import POLICY, TICK, Play, balance, by_key, current, stage

from budgetware._core import budget as budget_module
from budgetware._core.budget import MOST_NAMES, MOST_STAGES, Settled
from budgetware._core.current import handle
from budgetware._core.policy import StagePlan
from budgetware.names import OTHER


def test_dynamic_names_end_up_in_other() -> None:
    """Past the cap, undeclared stages and operations are counted under one name; time balances."""
    play = Play(POLICY)
    budget = play.engine.begin("GET", "/x")
    with current(budget):
        for number in range(1000):
            with handle.stage(f"s{number}", "select"):
                play.clock.advance(TICK)
        for number in range(100):
            with handle.stage("db", f"select {number}"):
                play.clock.advance(TICK)
        with handle.stage("db", "select"):
            play.clock.advance(TICK)
    play.engine.finish(budget)

    record = play.records[-1]
    totals = by_key(record)
    assert len(totals) == MOST_NAMES + 3
    named = [key for key in totals if key[1] is None and key[0] not in {OTHER, "db"}]
    assert len(named) == MOST_NAMES / 2
    assert totals[OTHER, None] == (968 * TICK, 968 * TICK, 968)
    assert totals["db", None] == (101 * TICK, 101 * TICK, 101)
    assert totals["db", "select"] == (TICK, 0.0, 1)
    assert balance(record) == record.duration_s == 1101 * TICK


def test_few_openings_are_bounded_in_names_too() -> None:
    """Also a request that never had to settle has no more names than others."""
    play = Play()
    budget = play.engine.begin("GET", "/x")
    with current(budget):
        for number in range(MOST_STAGES - 1):
            with handle.stage(f"s{number}"):
                play.clock.advance(TICK)
    play.engine.finish(budget)

    record = play.records[-1]
    assert len(record.stages) == MOST_NAMES + 1
    assert sum(one.calls for one in record.stages) == MOST_STAGES - 1
    assert balance(record) == record.duration_s


def test_what_was_settled_is_kept_when_more_is_added() -> None:
    """A copy grows without changing what it was made of."""
    settled = Settled(0.0, {"db": StagePlan(name="db", operations={"select": 1.0})})
    settled.count(settled.key("db", "select"), 1)
    copied = settled.copy()
    copied.count(copied.key("db", None), 1)

    assert settled.calls == {("db", None): 1, ("db", "select"): 1}
    assert copied.calls == {("db", None): 2, ("db", "select"): 1}


def test_a_million_stages_in_one_request_are_bounded() -> None:
    """Memory stays flat, the openings kept are the last ones, and every one is counted."""
    play = Play()
    budget = play.engine.begin("GET", "/x")

    def open_some(count: int) -> None:
        with current(budget):
            for number in range(count):
                with handle.stage(_NAMES[number % 100]):
                    play.clock.now += TICK

    tracemalloc.start()
    try:
        open_some(10_000)
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        open_some(30_000)
        gc.collect()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    open_some(960_000)
    play.engine.finish(budget)

    assert after - before <= 64 * 1024
    assert peak - before <= 256 * 1024
    record = play.records[-1]
    assert len(record.openings) <= MOST_STAGES
    assert sum(one.calls for one in record.stages) == 1_000_000
    assert balance(record) == record.duration_s == 1_000_000 * TICK
    play.engine.absorb()
    counted = sum(one.durations.count for one in play.engine.tally.stages.values())
    assert counted == 1_000_000


_NAMES = [f"s{number}" for number in range(100)]


def test_many_stages_open_at_once_are_all_kept() -> None:
    """Room is made for what is still open; nothing of it is settled away."""
    play = Play()
    budget = play.engine.begin("GET", "/x")
    with current(budget):
        opened = [handle.stage("db") for _ in range(5 * MOST_STAGES)]
        play.clock.advance(TICK)
        for one in opened:
            one.__exit__(None, None, None)
    play.engine.finish(budget)

    total = stage(play.records[-1], "db")
    assert (total.calls, total.spent_s) == (5 * MOST_STAGES, TICK)


def test_thirty_two_threads_on_one_budget_lose_nothing() -> None:
    """Openings, time and calls are exact, whoever settles and whenever."""
    play, each = Play(), 600
    counter = itertools.count()
    budget = play.engine.begin("GET", "/x")

    def work() -> None:
        for _ in range(each):
            with handle.stage("db", "select"):
                next(counter)

    with current(budget):
        threads = [threading.Thread(target=handle.carry(work)) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    play.clock.advance(TICK)
    play.engine.finish(budget)
    play.engine.absorb()

    assert play.faults == []
    total = stage(play.records[-1], "db", "select")
    assert total.calls == next(counter) == 32 * each
    assert play.engine.tally.stages["_unmatched", "db"].durations.count == 32 * each
    assert balance(play.records[-1]) == TICK


def test_who_cannot_settle_now_does_so_later() -> None:
    """While another thread is at it nobody waits; the next opening makes up for it."""
    play = Play()
    budget = play.engine.begin("GET", "/x")
    with current(budget):
        with budget_module._settling:
            for _ in range(MOST_STAGES + 50):
                with handle.stage("db"):
                    pass
        assert len(budget) == MOST_STAGES + 50
        with handle.stage("db"):
            pass
    assert len(budget) == 2  # a place-holder stands for those that were settled
    budget.settle()
    assert len(budget) == 2


def test_a_fault_while_settling_does_not_reach_the_application(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is counted, memory stays bounded, and the request goes on."""

    def fail(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(budget_module, "settle", fail)
    play = Play()
    budget = play.engine.begin("GET", "/x")
    with current(budget):
        for _ in range(MOST_STAGES + 1):
            with handle.stage("db"):
                pass

    assert len(budget) == 2
    assert play.engine.tally.faults == {"settle": 1}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="only where processes fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_does_not_inherit_locks_that_are_held() -> None:
    """Forked while another thread settles and absorbs, the child goes on working."""
    play = Play()
    budget = play.engine.begin("GET", "/x")
    held, forked = threading.Event(), threading.Event()

    def hold() -> None:
        with budget_module._settling, budget_module._handing_over, play.engine.tally.lock:
            held.set()
            forked.wait(10)

    holding = threading.Thread(target=hold)
    holding.start()
    held.wait(10)
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        done = 1
        signal.alarm(10)  # rather than hang
        try:
            with current(budget):
                for _ in range(2 * MOST_STAGES):
                    with handle.stage("db"):
                        pass
            play.engine.finish(budget)
            play.engine.absorb()
            done = 0 if len(play.records[0].openings) <= MOST_STAGES and not play.faults else 2
        finally:
            os._exit(done)
    forked.set()
    holding.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
