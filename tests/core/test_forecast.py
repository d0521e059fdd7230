"""The table of routes: bounded however many names there are, and never emptied by strangers."""

from __future__ import annotations

import json
import threading

from budgetware._core import forecast as forecast_module
from budgetware._core.forecast import IDLE_S, MOST_ROUTES, Forecast
from budgetware._core.path import Passing, Path


def test_a_route_keeps_its_forecast() -> None:
    """Asked again, it is the same one."""
    forecast = Forecast()

    assert forecast.of("signals", None, 0.0) is forecast.of("signals", {}, 9.0)


def test_a_hundred_thousand_names_do_not_displace_what_is_in_use() -> None:
    """While all are busy a new route has none, and that is counted."""
    forecast = Forecast()
    first = forecast.of("job0", None, 0.0)
    for index in range(1, 100_000):
        forecast.of(f"job{index}", None, 1.0)

    assert len(forecast) == MOST_ROUTES
    assert forecast.refused == 100_000 - MOST_ROUTES
    assert forecast.of("job0", None, 2.0) is first
    assert forecast.of("another", None, 2.0) is None


def test_the_idlest_makes_room() -> None:
    """A route that has not learned for long goes before one that has."""
    forecast = Forecast(most_routes=2)
    busy, idle = forecast.of("busy", None, 0.0), forecast.of("idle", None, 0.0)
    assert busy is not None
    busy.learn(Path((Passing(None, 0.0, 1),), 0.1, 50.0))

    assert forecast.of("new", None, IDLE_S - 1.0) is None
    assert forecast.of("new", None, IDLE_S) is not None
    assert forecast.of("busy", None, IDLE_S) is busy
    assert forecast.of("idle", None, IDLE_S) is None
    assert idle is not None
    assert len(forecast) == 2


def test_no_room_at_all_is_no_forecast() -> None:
    """A forecast for no routes refuses every one."""
    assert Forecast(most_routes=0).of("signals", None, 1e9) is None


def test_all_routes_are_exported_by_name() -> None:
    """The export is plain data."""
    forecast = Forecast()
    route = forecast.of("signals", None, 0.0)
    assert route is not None
    route.learn(Path((Passing(None, 0.0, 1),), 0.1, 1.0))

    assert json.loads(json.dumps(forecast.export())) == {"signals": route.export()}


def test_threads_that_ask_at_once_are_given_the_same() -> None:
    """Thirty-two threads that open a route together do not make two forecasts of it."""
    forecast = Forecast()
    found: list[object] = []
    start = threading.Barrier(32)

    def ask() -> None:
        start.wait()
        found.extend(forecast.of(f"route{index}", None, 0.0) for index in range(20))

    threads = [threading.Thread(target=ask) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(map(id, found))) == len(forecast) == 20


def test_a_fork_in_the_middle_leaves_the_child_able_to_ask() -> None:
    """The child's lock is its own."""
    forecast = Forecast()
    held = forecast._lock
    forecast_module._renew_locks()

    assert forecast._lock is not held
