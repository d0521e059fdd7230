"""Whose budget it is, in tasks, threads and outside any request."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import gc
import threading
from collections.abc import Callable
from math import inf

import pytest
from tests.core.programs import TICK, Play, current, stage

from budgetware._core.current import LooseStage, current_budget, handle
from budgetware._core.policy import Policy, TierPolicy


def test_outside_a_request_nothing_happens() -> None:
    """Every call is a no-op, and time is unlimited."""
    with handle.stage("db", "select"):
        assert (handle.remaining(), handle.pool(), handle.elapsed()) == (inf, inf, 0.0)
    assert (handle.route, handle.tier) == (None, None)
    handle.tier = "pro"
    assert handle.tier is None

    @handle.stage("ml")
    def work() -> str:
        return "done"

    assert work() == "done"
    assert handle.carry(work) is work


def test_inside_a_request_the_handle_is_its_account() -> None:
    """The handle reads off the budget that is current."""
    play = Play(Policy(tiers={"free": TierPolicy(budget=10 * TICK)}))
    budget = play.engine.begin("GET", "/x")
    with current(budget):
        play.clock.advance(3 * TICK)
        assert (handle.route, handle.tier) == ("_unmatched", "free")
        assert (handle.remaining(), handle.elapsed()) == (7 * TICK, 3 * TICK)
        assert handle.pool() == 7 * TICK


@pytest.mark.parametrize("tier", ["gold", 5, None, ["free"]])
def test_a_tier_nobody_has_heard_of_changes_nothing(tier: object) -> None:
    """It is counted as a fault of whoever named it, and the promise stays."""
    play = Play(Policy(tiers={"free": TierPolicy(budget=1.0)}))
    budget = play.engine.begin("GET", "/x")
    with current(budget):
        handle.tier = tier  # type: ignore[assignment]
        assert handle.tier == "free"
    assert play.engine.tally.faults == {"unknown_tier": 1}


def _run_in_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def _run_in_pool(work: Callable[[], object]) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()


def _run_in_loops_pool(work: Callable[[], object]) -> None:
    async def main() -> None:
        await asyncio.get_running_loop().run_in_executor(None, work)

    asyncio.run(main())


def _run_in_empty_context(work: Callable[[], object]) -> None:
    contextvars.Context().run(work)


@pytest.mark.parametrize(
    "spawn",
    [_run_in_thread, _run_in_pool, _run_in_loops_pool, _run_in_empty_context],
)
def test_carried_work_belongs_to_the_request(spawn: Callable[[Callable[[], object]], None]) -> None:
    """Wherever Python does not hand the context on, ``carry`` does; nothing is left behind."""
    play = Play()
    budget = play.engine.begin("GET", "/x")

    @handle.stage("db")
    def work() -> None:
        play.clock.advance(TICK)

    with current(budget):
        spawn(work)
        spawn(handle.carry(work))
        spawn(work)
    play.engine.finish(budget)

    assert stage(play.records[-1], "db").calls == 1


@pytest.mark.parametrize("spawn", ["task", "to_thread"])
def test_tasks_and_their_threads_need_no_carrying(spawn: str) -> None:
    """Python hands the context on by itself, and the stages reach the one account."""
    play = Play()
    budget = play.engine.begin("GET", "/x")

    def work() -> None:
        with handle.stage("db"):
            play.clock.advance(TICK)

    async def task() -> None:
        work()

    async def main() -> None:
        await (asyncio.create_task(task()) if spawn == "task" else asyncio.to_thread(work))

    with current(budget):
        asyncio.run(main())
    play.engine.finish(budget)

    assert stage(play.records[-1], "db").spent_s == TICK


def test_a_carried_coroutine_function_stays_one() -> None:
    """It is bound while it runs, and closing it from elsewhere raises nothing."""
    play = Play()
    budget = play.engine.begin("GET", "/x")

    async def work(value: int) -> tuple[int, object]:
        """Do it."""
        await asyncio.sleep(0)
        return value, current_budget.get()

    with current(budget):
        carried = handle.carry(work)
    assert asyncio.iscoroutinefunction(carried)
    assert carried.__doc__ == "Do it."
    assert asyncio.run(carried(5)) == (5, budget)

    half = carried(5)
    contextvars.copy_context().run(half.send, None)
    half.close()
    assert current_budget.get() is None


def test_carried_work_raises_its_own_exceptions() -> None:
    """And leaves the thread as it found it."""
    play = Play()

    def fail() -> None:
        raise KeyError("mine")

    with current(play.engine.begin("GET", "/x")):
        carried = handle.carry(fail)
    with pytest.raises(KeyError, match="mine"):
        carried()
    assert current_budget.get() is None


def test_carried_into_the_time_after_the_request_is_harmless() -> None:
    """The budget has ended; its stages go nowhere."""
    play = Play()
    budget = play.engine.begin("GET", "/x")
    with current(budget):

        @handle.carry
        def work() -> float:
            with handle.stage("late"):
                play.clock.advance(TICK)
            return handle.elapsed()

    play.engine.finish(budget)
    assert work() == 0.0
    assert play.records[-1].stages == ()


def _loose() -> LooseStage:
    made = handle.stage("db", "select")
    assert isinstance(made, LooseStage)
    return made


def test_a_stage_made_at_import_serves_every_request() -> None:
    """Shared by requests that overlap, each has its own opening."""
    play, shared = Play(), _loose()

    async def request(turns: int) -> None:
        budget = play.engine.begin("GET", "/x")
        with current(budget):
            with shared:
                for _ in range(turns):
                    await asyncio.sleep(0)
            await asyncio.sleep(0)
        play.engine.finish(budget)

    async def main() -> None:
        ticking = asyncio.create_task(tick())
        await asyncio.gather(*(request(turns) for turns in (3, 1, 2)))
        ticking.cancel()

    async def tick() -> None:
        while True:
            play.clock.advance(TICK)
            await asyncio.sleep(0)

    asyncio.run(main())

    spent = [stage(record, "db", "select").spent_s for record in play.records]
    assert spent == [TICK, 2 * TICK, 3 * TICK]
    assert all(stage(record, "db", "select").calls == 1 for record in play.records)
    assert shared.opened == []


def test_a_shared_stage_outside_a_request_leaves_those_inside_alone() -> None:
    """A worker without a budget that leaves it does not close the stage of a request."""
    play, shared = Play(), _loose()
    budget = play.engine.begin("GET", "/x")
    with current(budget):
        shared.__enter__()
        play.clock.advance(TICK)
        with current(None), shared:
            pass
        play.clock.advance(TICK)
        shared.__exit__(None, None, None)
    play.engine.finish(budget)

    assert stage(play.records[-1], "db", "select").spent_s == 2 * TICK


def test_a_shared_stage_left_elsewhere_is_closed_all_the_same() -> None:
    """Finalised where no budget is open, or another one, the entry is taken back."""
    play, shared = Play(), _loose()
    first, second = play.engine.begin("GET", "/x"), play.engine.begin("GET", "/x")
    for elsewhere in (None, second):
        with current(first):
            shared.__enter__()
        play.clock.advance(TICK)
        with current(elsewhere):
            shared.__exit__(ValueError, None, None)
    play.engine.finish(first)

    assert shared.opened == []
    assert [one.error for one in play.records[-1].openings] == ["ValueError"] * 2


def test_a_shared_stage_entered_outside_and_left_inside() -> None:
    """There is nothing to close, and nobody else's stage is closed instead."""
    play, shared = Play(), _loose()
    first, second = play.engine.begin("GET", "/x"), play.engine.begin("GET", "/x")
    with current(first):
        shared.__enter__()
    shared.__enter__()
    with current(second):
        shared.__exit__(None, None, None)
    play.clock.advance(TICK)
    play.engine.finish(first)

    assert [entry[0] for entry in shared.opened or []] == [first]
    assert stage(play.records[-1], "db").spent_s == TICK
    shared.__exit__(None, None, None)
    shared.__exit__(None, None, None)
    assert shared.opened == []


def test_a_shared_stage_nests_in_itself() -> None:
    """Recursion through one object opens and closes a stage per level."""
    play, shared = Play(), _loose()
    budget = play.engine.begin("GET", "/x")
    with current(budget):
        with shared, shared:
            play.clock.advance(TICK)
        play.clock.advance(TICK)
    play.engine.finish(budget)

    total = stage(play.records[-1], "db", "select")
    assert (total.calls, total.spent_s) == (2, TICK)


def test_threads_share_a_stage_without_losing_any() -> None:
    """Also when threads of one request leave it at the same moment nothing raises."""
    play, shared, each = Play(), _loose(), 300
    errors: list[BaseException] = []
    budget = play.engine.begin("GET", "/x")

    def work() -> None:
        try:
            for _ in range(each):
                with shared:
                    pass
        except BaseException as error:  # noqa: BLE001 - reported below
            errors.append(error)

    with current(budget):
        inside = [threading.Thread(target=handle.carry(work)) for _ in range(8)]
    outside = [threading.Thread(target=work) for _ in range(4)]
    for thread in (*inside, *outside):
        thread.start()
    for thread in (*inside, *outside):
        thread.join()
    play.engine.finish(budget)

    assert errors == []
    assert shared.opened == []
    assert stage(play.records[-1], "db", "select").calls == 8 * each


class _Contended(list[object]):
    """A list in which another thread is always faster, once."""

    def remove(self, entry: object) -> None:
        """Take the entry away, then look for it."""
        if self.count(entry) == 1 and len(self) > 1:
            super().remove(entry)
        super().remove(entry)


def test_who_loses_the_race_for_an_entry_takes_another() -> None:
    """Leaving never raises: the other thread's entry is closed in its place."""
    play, shared = Play(), _loose()
    budget = play.engine.begin("GET", "/x")
    with current(budget):
        shared.opened = _Contended()  # type: ignore[assignment]
        shared.__enter__()
        shared.__enter__()
        shared.__exit__(None, None, None)
    assert shared.opened == []
    gc.collect()


def test_a_decorator_made_at_import_finds_the_request() -> None:
    """Whatever budget is open when the function is called gets the stage."""
    play = Play()

    @handle.stage("ml")
    def score() -> None:
        play.clock.advance(TICK)

    score()
    budget = play.engine.begin("GET", "/x")
    with current(budget):
        score()
    play.engine.finish(budget)

    assert stage(play.records[-1], "ml").spent_s == TICK
