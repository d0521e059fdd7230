"""The one door into the core: begin, end, tell; whatever fails in there stays in there."""

from __future__ import annotations

import random
import threading
from math import inf

import pytest
from tests.core.programs import TICK, Leave, Open, Play, Work, current, stage

from budgetware._core import engine as engine_module
from budgetware._core.audience import Observing
from budgetware._core.budget import Budget
from budgetware._core.current import handle
from budgetware._core.desk import MOST_JOBS
from budgetware._core.engine import ABSORB_AT, Engine
from budgetware._core.policy import UNMATCHED, Amount, Match, Policy, Route, StagePolicy, TierPolicy
from budgetware._core.record import Level, Outcome, RequestRecord
from budgetware.names import OTHER
from budgetware.testing import FakeClock

POLICY = Policy(
    tiers={"free": TierPolicy(budget=64 * TICK), "pro": TierPolicy(budget=16 * TICK)},
    routes={
        "signals": Route(
            name="signals",
            match=(Match("GET", "/signals/{symbol}"), Match("POST", "/signals")),
            stages={"db": StagePolicy(budget=Amount(4 * TICK))},
        ),
        "export": Route(
            name="export", budget=100 * TICK, stages={"db": StagePolicy(budget=Amount(TICK))}
        ),
    },
    digest="one",
)


@pytest.mark.parametrize(
    ("method", "path", "root", "route"),
    [
        ("GET", "/signals/x", None, "signals"),
        ("HEAD", "/signals/x/", None, "signals"),
        ("POST", "/signals", None, "signals"),
        ("GET", "/signals", None, UNMATCHED),
        ("GET", "/api/signals/x", "/api", "signals"),
        ("GET", "/api/signals/x", None, UNMATCHED),
        ("POST", "/api/signals", "/api", "signals"),
        ("GET", "/signals", "/signals", UNMATCHED),
        ("POST", "/proxy/api/signals", "/proxy/api", "signals"),
        ("GET", "/proxy/signals/x/y", "/proxy/signals/x", UNMATCHED),
        ("GET", "/proxy/signals/x", "/proxy/signals/x", "signals"),
        ("GET", "/x", "/signals", "signals"),
        ("OPTIONS", "*", None, UNMATCHED),
    ],
)
def test_a_request_begins_under_its_route(
    method: str, path: str, root: str | None, route: str
) -> None:
    """Templates match with the mount point or without; what matches nothing is unmatched."""
    assert Engine(POLICY).begin(method, path, None, root).lane.plan.route == route


@pytest.mark.parametrize(
    ("tier", "limit"), [(None, 64), ("free", 64), ("pro", 16), ("gold", 64), ("", 64)]
)
def test_an_unknown_tier_is_the_default_one(tier: str | None, limit: int) -> None:
    """A name from outside can only pick among the policy's tiers."""
    assert Engine(POLICY).begin("GET", "/signals/x", tier).lane.limit_s == limit * TICK


def test_without_a_policy_everything_is_measured_and_nothing_promised() -> None:
    """One route of last resort, no tier, no limit."""
    engine = Engine(clock=FakeClock())
    budget = engine.begin("GET", "/x", "pro")
    engine.finish(budget)
    engine.absorb()

    assert engine.policy == Policy()
    assert budget.lane.plan.tier is None
    assert engine.tally.requests[UNMATCHED, None].outcomes[Outcome.UNBUDGETED] == 1


def test_a_job_has_the_limits_of_the_route_of_its_name() -> None:
    """With a tier it is that tier's promise; without one the route's own."""
    engine = Engine(POLICY)

    assert engine.begin_job("export").lane.limit_s == 100 * TICK
    assert engine.begin_job("export").lane.plan.tier is None
    assert engine.begin_job("export", "pro").lane.limit_s == 16 * TICK
    assert engine.begin_job("export", "gold").lane.limit_s == 100 * TICK
    assert engine.begin_job("export").lane is engine.begin_job("export").lane


def test_a_job_may_learn_its_tier_later() -> None:
    """A listed job is planned anew; one the policy does not list stays without a promise."""
    engine = Engine(POLICY)
    with current(engine.begin_job("export")):
        handle.tier = "pro"
        assert (handle.route, handle.tier) == ("export", "pro")
    with current(engine.begin_job("cleanup", "pro")):
        handle.tier = "pro"
        assert (handle.route, handle.tier, handle.remaining()) == ("cleanup", None, inf)
    assert engine.tally.faults == {}


def test_job_names_are_bounded() -> None:
    """Past the cap they share one name and one lane; listed ones keep their own."""
    engine = Engine(POLICY)
    for number in range(MOST_JOBS + 200):
        engine.finish(engine.begin_job(f"job-{number}"))
    assert engine.begin_job("export").lane.plan.route == "export"
    engine.absorb()

    names = {route for route, _ in engine.tally.requests}
    assert len(names) == MOST_JOBS + len({UNMATCHED, "signals", "export", OTHER})
    assert engine.tally.requests[OTHER, None].durations.count == 200
    assert len(engine.tally._intakes) < MOST_JOBS + 12


def test_a_notable_request_is_told_and_a_quiet_one_is_not() -> None:
    """Alarms hear of what went over a rung; ending says whether there is something to tell."""
    clock, alarms = FakeClock(), list[RequestRecord]()
    engine = Engine(POLICY, clock=clock, alarms=(alarms.append,))
    quiet = engine.begin("GET", "/signals/x")
    assert not engine.end(quiet)
    assert not engine.end(quiet)
    late = engine.begin("GET", "/signals/x", "pro")
    clock.advance(20 * TICK)
    assert engine.end(late)
    assert alarms == []
    engine.tell(late)

    assert [(one.outcome, one.level) for one in alarms] == [(Outcome.EXCEEDED, Level.CRITICAL)]
    assert engine.tally.requests["signals", "pro"].violations[Level.CRITICAL] == 1
    engine.finish(late)
    assert len(alarms) == 1


def test_what_is_possible_is_told_only_if_it_is_so() -> None:
    """A stage's openings may add up to more than it was open for: that is no violation."""
    clock, alarms = FakeClock(), list[RequestRecord]()
    engine = Engine(POLICY, clock=clock, alarms=(alarms.append,))
    budget = engine.begin("GET", "/signals/x")
    with current(budget):
        opened = [handle.stage("db") for _ in range(3)]
        clock.advance(3 * TICK)
        for one in opened:
            one.__exit__(None, None, None)
        clock.advance(3 * TICK)
    engine.finish(budget)

    assert budget.notable
    assert alarms == []


def test_observers_hear_only_what_they_want() -> None:
    """Each is asked when a request ends, and one that fails does not silence the others."""
    wanted, seen, faults = [False], list[RequestRecord](), list[str]()

    def broken(record: RequestRecord) -> None:
        raise RuntimeError(record.route)

    engine = Engine(
        observers=(Observing(broken), Observing(seen.append, lambda: wanted[0])),
        on_fault=lambda step, error, count: faults.append(f"{step} {error} {count}"),
    )
    engine.finish(engine.begin("GET", "/x"))
    wanted[0] = True
    engine.finish(engine.begin("GET", "/x"))

    assert len(seen) == 1
    assert faults == ["observe _unmatched 1", "observe _unmatched 2"]


def test_an_observer_with_a_hint_is_only_asked_when_that_is_not_a_no() -> None:
    """The hint may be wrong when it is a yes."""
    hint, asked, seen = list[int](), list[None](), list[RequestRecord]()

    def wanted() -> bool:
        asked.append(None)
        return len(hint) > 1

    engine = Engine(observers=(Observing(seen.append, wanted, hint=lambda: hint),))
    told = []
    for _ in range(3):
        engine.finish(engine.begin("GET", "/x"))
        told.append((len(asked) > 0, len(seen)))
        hint.append(1)

    assert told == [(False, 0), (True, 0), (True, 1)]


def test_observers_come_and_go() -> None:
    """One that is added hears of what ends from then on, until it is taken away."""
    seen: list[RequestRecord] = []
    engine, observing = Engine(), Observing(seen.append)
    running = engine.begin("GET", "/x")
    engine.finish(engine.begin("GET", "/x"))
    engine.observe(observing)
    engine.finish(running)
    engine.ignore(observing)
    engine.finish(engine.begin("GET", "/x"))

    assert len(seen) == 1


def test_failures_are_counted_once_per_request() -> None:
    """A request that raises after a 5xx status failed once."""
    engine = Engine(POLICY)
    budget = engine.begin("GET", "/signals/x")
    engine.fail(budget)
    engine.fail(budget)
    engine.finish(budget)

    assert engine.tally.requests["signals", "free"].errors == 1


def test_a_client_that_left_is_an_outcome_of_its_own() -> None:
    """It is counted, its time is not, and observers are told; once."""
    play = Play(POLICY)
    budget = play.engine.begin("GET", "/signals/x")
    play.clock.advance(TICK)
    for _ in range(2):
        play.engine.lose(budget)
        play.engine.finish(budget)
    play.engine.ignore(play.engine._audience.observers[0])
    play.engine.lose(play.engine.begin("GET", "/signals/x"))
    play.engine.absorb()

    assert [record.outcome for record in play.records] == [Outcome.CLIENT_GONE]
    series = play.engine.tally.requests["signals", "free"]
    assert series.outcomes[Outcome.CLIENT_GONE] == 2
    assert series.durations.count == 0


def test_totals_are_put_in_order_every_so_often() -> None:
    """Durations do not pile up when nobody collects them."""
    engine = Engine(POLICY, clock=FakeClock())
    for _ in range(10 * ABSORB_AT):
        budget = engine.begin("GET", "/signals/x")
        with current(budget), handle.stage("db"):
            pass
        engine.finish(budget)

    assert len(budget.lane.durations) < ABSORB_AT
    assert engine.tally.requests["signals", "free"].durations.count == 10 * ABSORB_AT
    assert engine.tally.stages["signals", "db"].durations.count == 10 * ABSORB_AT


def test_very_long_requests_hand_over_through_the_engine() -> None:
    """Telemetry that took over ``absorb`` gets the durations of settled stages, too."""
    engine, absorbed = Engine(), list[int]()
    engine.absorb = lambda: absorbed.append(1)
    budget = engine.begin("GET", "/x")
    with current(budget):
        for _ in range(3000):
            with handle.stage("db"):
                pass

    assert absorbed == [1, 1]


def test_thirty_two_threads_on_one_engine_lose_nothing() -> None:
    """Requests, outcomes and stages are counted exactly, while others collect and reload."""
    engine, each = Engine(POLICY), 200
    faults: list[str] = []
    engine._on_fault = lambda step, error, count: faults.append(f"{step}: {error!r}")
    stop = threading.Event()

    def disturb() -> None:
        while not stop.is_set():
            engine.absorb()
            engine.adopt(POLICY)

    def serve(seed: int) -> None:
        pick = random.Random(seed)
        for _ in range(each):
            budget = engine.begin("GET", "/signals/x", pick.choice(["free", "pro", None]))
            with current(budget), handle.stage("db"), handle.stage(f"s{pick.randrange(40)}"):
                pass
            engine.finish(budget)

    disturber = threading.Thread(target=disturb)
    servers = [threading.Thread(target=serve, args=(seed,)) for seed in range(32)]
    for thread in (disturber, *servers):
        thread.start()
    for thread in servers:
        thread.join()
    stop.set()
    disturber.join()
    engine.absorb()

    assert faults == []
    requests = [engine.tally.requests["signals", tier] for tier in ("free", "pro")]
    assert sum(series.durations.count for series in requests) == 32 * each
    assert sum(sum(series.outcomes.values()) for series in requests) == 32 * each
    stages = engine.tally.stages
    assert stages["signals", "db"].durations.count == 32 * each
    assert sum(series.durations.count for series in stages.values()) == 2 * 32 * each


@pytest.mark.parametrize("step", ["end", "tell", "fail", "lose"])
def test_a_fault_of_ours_reaches_nobody(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever breaks inside is counted and reported; the call returns as if nothing was."""
    play = Play(POLICY)
    budget = play.engine.begin("GET", "/signals/x")

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    if step == "tell":
        monkeypatch.setattr(engine_module, "account", fail)
        play.engine.finish(budget)
        play.engine.finish(budget)
    else:
        monkeypatch.setattr(type(budget.lane), {"end": "add"}.get(step, step), fail)
        with current(budget), handle.stage("db"):
            pass
        getattr(play.engine, step)(budget)

    assert [name for name, _ in play.faults] == [step]
    assert play.engine.tally.faults == {step: 1}


def test_totals_that_cannot_be_put_in_order_are_a_fault_of_their_own() -> None:
    """The request was told by then; the durations stay for the next time."""
    play = Play()

    def fail() -> None:
        raise ZeroDivisionError

    play.engine.absorb, play.engine.absorb_at = fail, 1
    play.engine.finish(play.engine.begin("GET", "/x"))

    assert [step for step, _ in play.faults] == ["absorb"]
    assert len(play.records) == 1


def test_a_report_that_fails_is_the_end_of_it() -> None:
    """There is nowhere left to report to, and still nothing is raised."""

    def fail(step: str, error: Exception, count: int) -> None:
        raise error

    engine = Engine(on_fault=fail)
    engine.fault("end", RuntimeError())
    Engine().fault("end", RuntimeError())

    assert engine.tally.faults == {"end": 1}


def test_a_long_request_is_accounted_for_even_if_nothing_seems_notable() -> None:
    """What was settled may have gone over a rung that the last stages alone do not show."""
    clock, alarms = FakeClock(), list[RequestRecord]()
    engine = Engine(POLICY, clock=clock, alarms=(alarms.append,))
    budget = engine.begin("GET", "/signals/x", "free")
    with current(budget):
        for _ in range(300):
            with handle.stage("db"):
                clock.advance(TICK / 32)
    engine.finish(budget)

    assert [one.name for one in alarms[0].violations] == ["db"]
    assert stage(alarms[0], "db").calls == 300


def test_a_program_in_the_engine_is_a_record() -> None:
    """The simplest request of all, from the first step to the record."""
    play = Play(POLICY)
    told: list[Budget] = []
    record = play.run([Open("db"), Work(2), Leave(0), Work(1)], prepare=told.append)

    assert (record.route, record.duration_s, record.unattributed_s) == (UNMATCHED, 3 * TICK, TICK)
    assert told[0].end is not None
