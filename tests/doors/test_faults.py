"""Whatever breaks inside budgetware, the application's answer is what it would have been."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from tests.doors import asgi_play, wsgi_play
from tests.doors.asgi_play import BODY, LAST, START
from tests.doors.asgi_scenarios import SCENARIOS as ASGI
from tests.doors.broken_clock import BrokenClock
from tests.doors.fault_points import Broken, Faults
from tests.doors.wsgi_scenarios import SCENARIOS as WSGI

from budgetware import budget
from budgetware._core.engine import Engine
from budgetware.asgi import Message, Receive, Scope, Send
from budgetware.policyfile.reload import PolicyWatch

pytestmark = pytest.mark.exhaustive

MUST_BE_REACHED = {
    "_core.account.account",
    "_core.budget.Budget.close",
    "_core.budget.Budget.pause",
    "_core.budget.Budget._settle",
    "_core.engine.Engine.begin_as",
    "_core.engine.Engine.end",
    "_core.engine.Engine.fail",
    "_core.engine.Engine.lose",
    "_core.engine.Engine.tell",
    "_core.desk.Desk.match",
    "_core.lane.Lane.add",
    "_core.lane.Lane.fail",
    "_core.lane.Lane.lose",
    "_core.lane.Lane.violate",
    "_core.record.settle",
    "_core.routes.RouteTable.find",
    "_core.tally.Tally.stage",
    "telemetry.Telemetry._hand_over",
    "telemetry.events.Events.violations",
    "telemetry.limiter.Limiter.admit",
    "telemetry.outlet.Outlet.hand_over",
    "telemetry.server_timing.render",
    "telemetry.spans.StageSpans.__call__",
    "telemetry.spans.annotate",
    "telemetry.spans.is_recording",
}


class Quiet:
    """A logger that keeps everything to itself."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **kwargs: None


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """Every step of budgetware, ready to raise."""
    return Faults(monkeypatch)


@pytest.fixture(scope="module")
def everything() -> Iterator[dict[str, Any]]:
    """Options that have everything switched on, inside a span that is recording."""
    tracers = TracerProvider(shutdown_on_exit=False)
    meters = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    with tracers.get_tracer("test").start_as_current_span("request"):
        yield {
            "traces": "stages",
            "tracer_provider": tracers,
            "meter_provider": meters,
            "histograms": "recorded",
            "logger": Quiet(),
            "server_timing": lambda scope: True,
            "tier": lambda scope: "pro",
        }
    meters.shutdown()


class Rig:
    """One kind of door and one scenario, played again and again with something broken."""

    def __init__(self, door: str, name: str, faults: Faults, options: dict[str, Any]) -> None:
        self._kind, scenarios = DOORS[door]
        self._play = scenarios[name]
        self._faults = faults
        self._options = options
        self.expected = self._play().bare()

    def changes(self, step: str | None, *, once: bool = False) -> bool:
        """Tell whether the answer is another when *step* raises; the fault must be counted."""
        play = self._play()
        door = self._kind(play.app, **self._options)
        door._engine.absorb_at = 1
        play.clock = door.clock
        play.clock.ticks_s = 0.001  # so that whatever waits has waited long enough to matter
        self._faults.arm(step, once=once)
        story = play.run(door)
        self._faults.armed = None
        if self._faults.raised:
            assert sum(door.faults.values()) >= 1, f"{step} broke and nobody counted it"
        assert budget.route is None
        return bool(story != self.expected)


DOORS: dict[str, tuple[Any, dict[str, Callable[..., Any]]]] = {
    "asgi": (asgi_play.Door, ASGI),
    "wsgi": (wsgi_play.Door, WSGI),
}
EVERY = [(door, name) for door, (_, scenarios) in DOORS.items() for name in scenarios]


@pytest.mark.parametrize(("door", "name"), EVERY)
def test_a_broken_step_changes_no_answer(
    door: str,
    name: str,
    faults: Faults,
    everything: dict[str, Any],
) -> None:
    """Each step a request takes raises, always or once: same bytes, same errors, and a count."""
    rig = Rig(door, name, faults, everything)
    faults.reached.clear()
    assert not rig.changes(None)

    for step in sorted(faults.reached):
        assert not rig.changes(step), step
        if faults.raised > 1:
            assert not rig.changes(step, once=True), step


@pytest.mark.parametrize("door", DOORS)
def test_the_scenarios_take_every_step_that_matters(
    door: str,
    faults: Faults,
    everything: dict[str, Any],
) -> None:
    """Together they take the steps known to be on a request's way, and many more."""
    faults.reached.clear()
    for name in DOORS[door][1]:
        Rig(door, name, faults, everything).changes(None)

    assert faults.reached >= MUST_BE_REACHED
    assert len(faults.reached) >= 100


@pytest.mark.parametrize(("door", "name"), EVERY)
def test_a_broken_clock_changes_no_answer(door: str, name: str) -> None:
    """The clock raises at its n-th reading, for every n there is."""
    kind, scenarios = DOORS[door]
    expected = scenarios[name]().bare()
    for broken_at in range(1000):
        play = scenarios[name]()
        clock = BrokenClock("raises", broken_at).over(play.clock)
        unit = kind(play.app, clock=clock, logger=Quiet())
        assert play.run(unit) == expected
        if not clock.failed:
            break
        assert sum(unit.faults.values()) >= 1
    assert broken_at >= 1


@pytest.mark.parametrize("broken", ["tier", "server_timing", "observers"])
@pytest.mark.parametrize("door", DOORS)
def test_a_broken_callable_of_the_application_costs_only_itself(door: str, broken: str) -> None:
    """A tier, predicate or observer that raises is counted; the request keeps its budget."""

    def fail(_: object) -> Any:
        raise Broken

    kind, scenarios = DOORS[door]
    play = scenarios["plain"]()
    expected = scenarios["plain"]().bare()
    records: list[object] = []
    options: dict[str, Any] = {"observers": [records.append]}
    options[broken] = [fail, records.append] if broken == "observers" else fail
    unit = kind(play.app, **options)
    play.clock = unit.clock

    assert play.run(unit) == expected
    assert len(records) == 1
    assert unit.faults == {"observe" if broken == "observers" else broken: 1}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("tier", [["a"], {}, 7, None, b"pro", float("nan")])
def test_an_odd_tier_changes_no_answer(door: str, tier: object) -> None:
    """What an outer middleware stored may be anything at all."""
    kind, scenarios = DOORS[door]
    play = scenarios["plain"]()
    play.tier = tier
    expected = scenarios["plain"]().bare()
    unit = kind(play.app)
    play.clock = unit.clock

    assert play.run(unit) == expected
    assert sum(unit.outcomes.values()) + sum(unit.faults.values()) == 1


def test_an_error_of_the_application_has_no_fault_of_ours_for_its_context() -> None:
    """When the budget could not be opened, what the application raises is still its own alone."""
    error = ValueError("mine")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert asyncio.sys.exc_info() == (None, None, None)  # type: ignore[attr-defined]
        raise error

    def wsgi_app(env: Any, start_response: Any) -> Any:
        raise error

    door = asgi_play.Door(app)
    with pytest.raises(ValueError, match="mine"):
        asgi_play.Wire().run(door, {"type": "http"})
    assert error.__context__ is None
    unit = wsgi_play.Door(wsgi_app)
    with pytest.raises(ValueError, match="mine"):
        unit({}, wsgi_play.Wire().start_response)
    assert error.__context__ is None
    assert door.faults == unit.faults == {"begin": 1}


@pytest.mark.parametrize("mode", ["observe", "enforce"])
def test_a_watch_that_cannot_start_changes_no_answer(
    mode: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No thread left to watch the policy file: requests are served, and it is counted."""

    def no_thread(self: PolicyWatch) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(PolicyWatch, "ensure_started", no_thread)
    file = tmp_path / "budgetware.yaml"
    file.write_text(f"version: 1\nmode: {mode}\ntiers: {{pro: {{budget: 1s}}}}\n")
    door = asgi_play.Door(asgi_play.answer, policy=file, reload="file")  # type: ignore[arg-type]
    unit = wsgi_play.Door(wsgi_play.answer, policy=file, reload="file")  # type: ignore[arg-type]
    wire = asgi_play.Wire()
    wire.run(door, asgi_play.http())
    unit({"REQUEST_METHOD": "GET", "PATH_INFO": "/"}, wsgi_play.Wire().start_response)

    assert wire.sent == [START, LAST]
    assert (sum(door.faults.values()), sum(unit.faults.values())) == (1, 1)


def test_totals_are_kept_in_order_when_telling_fails_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An account that never works costs its records, not the memory of pending durations."""

    def fail(*args: object, **kwargs: object) -> None:
        raise Broken

    monkeypatch.setattr("budgetware._core.engine.account", fail)
    door = asgi_play.Door(asgi_play.answer, logger=Quiet())
    wire = asgi_play.Wire([BODY])
    for _ in range(1000):
        wire.run(door, asgi_play.http())

    pending = [len(intake.pending) for intake in door._engine.tally._intakes]
    assert max(pending) <= 128
    assert isinstance(door._engine, Engine)
    sent: list[Message] = wire.sent
    assert len(sent) == 2000
