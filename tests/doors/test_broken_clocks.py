"""A clock the application has given fails: no answer changes, and nothing is left in flight."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import replace
from math import inf
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from tests.doors import asgi_play, wsgi_play
from tests.doors.asgi_play import Clock
from tests.doors.asgi_scenarios import SCENARIOS as ASGI
from tests.doors.broken_clock import WAYS, BrokenClock
from tests.doors.steered_play import POLICY, SIGNALS, Play
from tests.doors.virtual_time import Time
from tests.doors.wsgi_scenarios import SCENARIOS as WSGI
from tests.doors.wsgi_steered_play import HEADERS, Stand
from tests.telemetry.driving import metrics_of, provider_with

from budgetware import budget, names
from budgetware._core.policy import Amount, Mode, Objectives, Policy, Route, StagePolicy, TierPolicy
from budgetware._core.record import RequestRecord
from budgetware.runtime import Runtime
from budgetware.wsgi import StartResponse

FOR_GOOD = ["raises for good", "goes back for good"]

DOORS: dict[str, tuple[Any, dict[str, Callable[..., Any]]]] = {
    "asgi": (asgi_play.Door, ASGI),
    "wsgi": (wsgi_play.Door, WSGI),
}
SCENARIOS = [(door, name) for door, (_, scenarios) in DOORS.items() for name in scenarios]


class Quiet:
    """A logger that keeps everything to itself."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **kwargs: None


def readings(most: int = 40) -> Iterator[int]:
    """Yield the readings to break: the first ones one by one, of many later ones some."""
    yield from range(most)
    yield from range(most, 2000, 97)


@pytest.mark.parametrize("way", ["gives nan", "goes back", *FOR_GOOD])
@pytest.mark.parametrize(("door", "name"), SCENARIOS)
def test_no_answer_that_is_only_measured_changes(door: str, name: str, way: str) -> None:
    """Whichever reading fails, the application's stages included: same bytes, same errors."""
    kind, scenarios = DOORS[door]
    expected = scenarios[name]().bare()
    for broken_at in readings():
        play = scenarios[name]()
        clock = BrokenClock(way, broken_at).over(play.clock)
        unit = kind(play.app, clock=clock, logger=Quiet())
        assert play.run(unit) == expected, broken_at
        if not clock.failed:
            break
        assert bool(unit.faults) == clock.told_of, broken_at
        assert budget.route is None
        for record in unit.records:
            _check_figures(record)
    assert broken_at >= 1


def _check_figures(record: RequestRecord) -> None:
    """Make sure that no figure is one that no working clock would give."""
    assert 0 <= record.elapsed_s <= record.duration_s < inf
    assert record.first_byte_s is None or 0 <= record.first_byte_s <= record.duration_s
    total = sum(stage.exclusive_s for stage in record.stages) + record.unattributed_s
    assert total == pytest.approx(record.duration_s)
    for opening in record.openings:
        assert opening.start_s >= 0
        assert opening.duration_s >= 0


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


@budget.stage("score", fallback=lambda _: "part")
async def score_async(seconds: float) -> str:
    """Answer in full, or do without."""
    await asyncio.sleep(seconds)
    return "full"


@budget.stage("score", fallback=lambda _: "part")
def score(work: Callable[[float], None]) -> str:
    """Answer in full, or do without."""
    work(0.01)
    return "full"


async def quick_async(_: Request) -> Response:
    """Be done in a moment."""
    with budget.stage("db"):
        await asyncio.sleep(0.01)
    return PlainTextResponse("full", headers={"cache-control": "max-age=1"})


async def slow_async(_: Request) -> Response:
    """Take longer than anybody has."""
    await asyncio.sleep(0.3)
    return PlainTextResponse("full", headers={"cache-control": "max-age=1"})


async def staged_async(_: Request) -> Response:
    """Serve with everything an application may ask for."""
    budget.tier = "pro"
    with budget.shield():
        await asyncio.sleep(0.001)
    made = await score_async(0.01)
    with budget.stage("ml"):
        await asyncio.sleep(0.15)
    return PlainTextResponse(made, headers={"cache-control": "max-age=1"})


async def given_up_async(_: Request) -> Response:
    """Give up."""
    budget.degrade("no_model")
    return PlainTextResponse("full")


ASYNC = {
    "quick": quick_async,
    "slow": slow_async,
    "staged": staged_async,
    "given_up": given_up_async,
}


async def cheap_async(_: Any) -> str:
    """Answer cheaply."""
    return "cheap"


class AsgiService:
    """An application behind the ASGI door, with everything switched on."""

    def __init__(self, name: str, mode: Mode, clock: BrokenClock) -> None:
        self.play = Play(
            ASYNC[name],
            policy=replace(SERVED, mode=mode),
            fallbacks={"signals": cheap_async},
            identity=lambda _: "me",
            logger=Quiet(),
            clock_of=clock.over,
        )
        self.engine = self.play.door._engine

    def body(self, method: str) -> bytes:
        """Return what one client is sent, after checking that the response is whole."""
        answered = self.play.ask(method)
        assert answered.complete
        self.play.time.now += 0.5
        return answered.body


class WsgiService(Stand):
    """An application behind the WSGI door, with everything switched on."""

    def __init__(self, name: str, mode: Mode, clock: BrokenClock, **options: Any) -> None:
        super().__init__(
            getattr(self, f"_{name}"),
            policy=replace(SERVED, mode=mode),
            fallbacks={"signals": lambda _: "cheap"},
            identity=lambda _: "me",
            logger=Quiet(),
            clock_of=clock.over,
            **options,
        )
        self.engine = self.door._engine

    def _work(self, seconds: float) -> None:
        self.time.now += seconds

    def _quick(self, _: Any, start_response: StartResponse) -> Iterable[bytes]:
        with budget.stage("db"):
            self._work(0.01)
        start_response("200 OK", HEADERS)
        return [b"full"]

    def _slow(self, _: Any, start_response: StartResponse) -> Iterable[bytes]:
        self._work(0.3)
        start_response("200 OK", HEADERS)
        return iter([b"fu", b"ll"])

    def _staged(self, _: Any, start_response: StartResponse) -> Iterator[bytes]:
        budget.tier = "pro"
        made = score(self._work)
        with budget.stage("ml"):
            self._work(0.15)
        start_response("200 OK", HEADERS)
        yield made.encode()

    def _given_up(self, _: Any, start_response: StartResponse) -> Iterable[bytes]:
        budget.degrade("no_model")
        start_response("200 OK", HEADERS)
        return [b"full"]

    def body(self, method: str) -> bytes:
        """Return what one client is sent."""
        body = self.ask(method=method).body
        self.time.now += 0.5
        return body


SERVICES: dict[str, Any] = {"asgi": AsgiService, "wsgi": WsgiService}


@pytest.mark.parametrize("way", ["raises", "raises for good", "goes back"])
@pytest.mark.parametrize("mode", [Mode.SHADOW, Mode.ENFORCE])
@pytest.mark.parametrize("name", ASYNC)
@pytest.mark.parametrize("door", SERVICES)
def test_every_client_has_one_response_where_something_is_decided(
    door: str, name: str, mode: Mode, way: str
) -> None:
    """The full one, or a smaller one where it may be; slots, courses and probes are given back."""
    for broken_at in readings(40):
        clock = BrokenClock(way, broken_at)
        service = SERVICES[door](name, mode, clock)
        bodies = {service.body(method) for method in ("GET", "GET", "POST", "GET")}
        if mode is Mode.SHADOW or (name == "quick" and way.startswith("raises")):
            assert bodies == {b"full"}, broken_at
        odd = [body for body in bodies - POSSIBLE if b'"status"' not in body]
        assert not odd, broken_at
        engine = service.engine
        assert engine._traffic.now == 0, broken_at
        assert [place.in_use for place in _places(engine)] == [0] * len(_places(engine)), broken_at
        assert budget.route is None
        if not clock.failed:
            break
        # By a clock that has gone back an hour, nobody has any time for a fallback.
        faults = set(engine.tally.faults) - {"fallback"}
        assert bool(faults) == clock.told_of, broken_at
    assert broken_at >= 10


def _places(engine: Any) -> list[Any]:
    """Return the slots of every tier, those of the ledger in shadow included."""
    entrance = engine.entrance
    return [
        place
        for admission in (entrance.enforced, entrance.shadow)
        for place in admission._tiers.values()
    ]


@pytest.mark.parametrize("way", [way for way in WAYS if way != "goes back"])
def test_the_application_is_told_that_nothing_limits_it(way: str) -> None:
    """As long as the clock fails there is neither a deadline nor a time that has passed."""
    seen: list[object] = []

    def app(_: Any, start_response: StartResponse) -> Iterable[bytes]:
        clock.broken = True
        seen.extend([budget.remaining(), budget.elapsed(), budget.pool(), budget.affords("score")])
        clock.broken = False
        seen.append(budget.remaining())
        start_response("200 OK", HEADERS)
        return [b"full"]

    class Switched(Time):
        broken = False

        def __call__(self) -> float:
            return WAYS[way](self.now) if self.broken else self.now

    clock = Switched()
    stand = Stand(app, policy=SERVED, logger=Quiet(), clock_of=lambda _: clock)
    assert stand.ask().body == b"full"

    assert seen == [inf, 0.0, inf, True, pytest.approx(0.2)]
    assert stand.door._engine.tally.faults == {"clock": 5, "decide": 1}


POLICY_OF_JOBS = Policy(
    routes={
        "export": Route(
            name="export", budget=10.0, stages={"read": StagePolicy(budget=Amount(1.0))}
        )
    }
)


@budget.stage("sync")
def plain(value: int) -> int:
    """Be a stage as a plain function."""
    return value


@budget.stage("async", "operation")
async def awaited(value: int) -> int:
    """Be a stage as a coroutine function."""
    await asyncio.sleep(0)
    return value


@budget.stage("items")
def items(value: int) -> Iterator[int]:
    """Be a stage as a generator."""
    with budget.stage("item"):
        yield value


@budget.stage("items")
async def items_async(value: int) -> AsyncIterator[int]:
    """Be a stage as an asynchronous generator."""
    with budget.stage("item"):
        yield value


@budget.open("nightly")
def job(value: int) -> int:
    """Be a job within a job."""
    return plain(value)


@budget.open("nightly")
def producing(value: int) -> Iterator[int]:
    """Be a job that gives items."""
    yield plain(value)


async def work() -> list[object]:
    """Use all there is outside HTTP, and return what comes of it."""
    seen: list[object] = []
    with budget.open("export") as run:
        with budget.stage("read"):
            seen.extend([plain(1), await awaited(2), *items(3)])
            seen.extend([item async for item in items_async(4)])
        shared = budget.stage("shared")
        with shared, shared:
            seen.extend([job(5), *producing(6)])
        with pytest.raises(KeyError, match="mine"), budget.stage("fails"):
            raise KeyError("mine")
        for account in (run, budget):
            figures = account.remaining(), account.elapsed(), account.pool()
            seen.append([type(figure) for figure in figures])
        seen.extend([budget.affords("read"), await asyncio.to_thread(plain, 7)])
    seen.append(budget.route)
    return seen


@pytest.mark.parametrize("way", [*WAYS, *FOR_GOOD])
def test_no_job_changes(way: str) -> None:
    """Blocks, decorators, generators and what they ask, sync and async: any reading may fail."""
    expected = [1, 2, 3, 4, 5, 6, [float] * 3, [float] * 3, True, 7, None]
    for broken_at in readings():
        records: list[RequestRecord] = []
        clock = BrokenClock(way, broken_at).over(Clock())
        told: dict[str, Any] = {"observers": [records.append], "logger": Quiet()}
        with Runtime.lent(policy=POLICY_OF_JOBS, clock=clock, **told) as runtime:
            assert asyncio.run(work()) == expected, broken_at
            tally = runtime.engine.tally
        if not clock.failed:
            break
        assert bool(tally.faults) == clock.told_of, broken_at
        for record in records:
            _check_figures(record)
    assert broken_at >= 30


def test_a_clock_that_goes_back_shows_no_negative_time() -> None:
    """Neither to the application nor to its clients."""
    seen: list[float] = []

    def app(_: Any, start_response: StartResponse) -> Iterable[bytes]:
        with budget.stage("db"):
            stand.time.now -= 3600.0
        seen.append(budget.elapsed())
        start_response("200 OK", HEADERS)
        return [b"full"]

    stand = Stand(app, policy=asgi_play.POLICY, logger=Quiet(), server_timing=True)
    got = stand.ask("/")

    assert seen == [0.0]
    assert got.headers["Server-Timing"] == "total;dur=0.0, db;dur=0.0"
    assert stand.door._engine.tally.faults == {}


def test_a_stage_that_was_not_timed_is_left_out() -> None:
    """Whether its beginning or its end is unknown, no time is put down to it."""

    def app(_: Any, start_response: StartResponse) -> Iterable[bytes]:
        for name in ("first", "second", "third"):
            with budget.stage(name):
                stand.time.now += 0.01
        start_response("200 OK", HEADERS)
        return [b"full"]

    left = []
    for broken_at in range(1, 7):
        clock = BrokenClock("raises", broken_at)
        stand = Stand(app, policy=asgi_play.POLICY, logger=Quiet(), clock_of=clock.over)
        stand.ask("/")
        (record,) = stand.records
        left.append([(stage.name, round(stage.exclusive_s, 6)) for stage in record.stages])
        assert record.unattributed_s == pytest.approx(0.01)
        assert record.duration_s == pytest.approx(0.03)

    first, second, third = ("first", 0.01), ("second", 0.01), ("third", 0.01)
    assert left == [[second, third]] * 2 + [[first, third]] * 2 + [[first, second]] * 2


def test_a_request_whose_end_is_unknown_is_in_no_total() -> None:
    """It is neither met nor late; the fault is counted, and the next request is as ever."""

    def app(_: Any, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", HEADERS)
        return [b"full"]

    stand = Stand(
        app, policy=asgi_play.POLICY, logger=Quiet(), clock_of=BrokenClock("raises", 1).over
    )
    stand.ask("/")
    assert (stand.outcomes, stand.records) == ({}, [])
    assert stand.door._engine.tally.faults == {"clock": 1, "end": 1}

    stand.ask("/")
    assert stand.outcomes == {"met": 1}


@pytest.mark.parametrize("mode", Mode)
def test_an_application_starts_whatever_its_clock_says(mode: Mode) -> None:
    """A clock that fails at start-up, and for good, costs every figure and no request."""
    clock = BrokenClock("raises for good")
    play = Play(quick_async, policy=replace(SERVED, mode=mode), logger=Quiet(), clock_of=clock.over)

    assert play.ask().body == b"full"
    assert play.outcomes == {}
    assert play.door._engine.tally.faults["clock"] > 0


def test_limits_are_exported_while_the_clock_fails() -> None:
    """Only the share of the last hour takes a clock to tell."""
    reader, clock = InMemoryMetricReader(), BrokenClock("gives nan for good", 1000)
    service = WsgiService("quick", Mode.SHADOW, clock, meter_provider=provider_with(reader))
    service.body("GET")
    exported = metrics_of(reader.get_metrics_data()).keys()
    clock.broken_at = clock.read
    reader.get_metrics_data()

    failing = metrics_of(reader.get_metrics_data()).keys()
    assert exported - failing == {names.DEGRADED_SHARE}
    assert failing - exported == {names.INTERNAL_ERRORS}


@pytest.mark.parametrize("clock", ["noon", 12.0])
@pytest.mark.parametrize("door", [asgi_play.Door, wsgi_play.Door])
def test_a_clock_that_cannot_be_read_is_refused(door: Any, clock: Any) -> None:
    """When the door is made, as is one that can only be awaited."""

    async def coroutine() -> float:
        return 0.0

    for given in (clock, coroutine):
        with pytest.raises(TypeError, match="clock must be a"):
            door(asgi_play.answer, clock=given)
