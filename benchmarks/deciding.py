"""What the forecast and its decisions cost a request, in pure Python on one core."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from random import Random
from time import perf_counter
from typing import Any

from benchmarks.asgi import HELLO, STAGES, Client, application, hello, hello_in_floors
from benchmarks.compare import Candidate, Rounds, WrongCountError, quietest, report
from benchmarks.floor import PassThrough

from budgetware._core.cell import Cell
from budgetware._core.course import Course
from budgetware._core.decide import Decision
from budgetware._core.forecast import Forecast
from budgetware._core.outlook import RouteForecast
from budgetware._core.path import Passing, Path
from budgetware._core.policy import Mode, Plan
from budgetware._core.steering import Steering, Traffic

TIMES = 128
LIMIT_S = 0.1
LEARNED = 2000


class Route:
    """A route with eight points, whose forecast has seen enough requests to be past its start."""

    def __init__(self) -> None:
        self.random = Random(7)
        self.now_s = 0.0
        self.forecast: RouteForecast = self.steered().forecast
        self.paths = [self.path() for _ in range(TIMES)]
        for index in range(LEARNED):
            self.forecast.learn(self.paths[index % TIMES])

    def steered(self) -> Steered:
        """Return the same route's decisions, with a forecast of their own."""
        return Steered(self)

    def path(self) -> Path:
        """Return the way of one request through all points."""
        at_s, passings = 0.0, [Passing(None, 0.0, 3, None)]
        for name in STAGES:
            took_s = 0.002 * self.random.lognormvariate(0.0, 0.5)
            passings.append(Passing(name, at_s, 3, took_s))
            at_s += took_s
        self.now_s += 0.01
        return Path(passings, at_s, self.now_s)


class Steered:
    """The decisions of one route."""

    def __init__(self, route: Route) -> None:
        traffic = Traffic(Forecast(), route.random.random)
        plan = Plan(route="signals", limit_s=LIMIT_S, mode=Mode.ENFORCE, late_worth=-0.5)
        self.told: list[Decision] = []
        self.steering = Steering(plan, traffic, 0.0, self.told.append)
        forecast = traffic.forecast.of("signals", None, 0.0)
        if forecast is None:
            raise WrongCountError("a new table of forecasts had no room")
        self.forecast = forecast
        self.decided = 0
        self.raced = True

    def request(self, now_s: float) -> None:
        """Serve one request: a decision at each stage, and what they teach."""
        course = Course(self.steering, now_s)
        course.answers, course.cost_s, course.raced = True, 0.003, self.raced
        for name in STAGES:
            now_s += 0.002
            course.at(name, LIMIT_S - 0.02, now_s, 0.003, answers=True, raced=self.raced)
        self.decided += len(STAGES)
        course.leave(now_s, full=True)


class Learning:
    """One duration after the other, learned by one cell."""

    def __init__(self) -> None:
        random = Random(7)
        self.logs = [random.gauss(-5.0, 0.5) for _ in range(TIMES)]
        self.cell = Cell()
        self.learned = 0

    def __call__(self) -> None:
        """Learn the next one."""
        self.learned += 1
        self.cell.learn(self.logs[self.learned % TIMES], 1.4, None, 0.01 * self.learned)


def timing(work: Callable[[], object]) -> Callable[[int], float]:
    """Return a function that does *work* so often and returns the seconds that took."""

    def run(times: int) -> float:
        turns = range(times)
        before = perf_counter()
        for _ in turns:
            work()
        return perf_counter() - before

    return run


def measure(quick: bool) -> dict[str, Any]:  # noqa: FBT001 - the one switch there is
    """Return the values of this group's rows."""
    route, client = Route(), Client()
    steered, unraced = route.steered(), route.steered()
    unraced.raced = False
    forecast = route.forecast

    def request(one: Steered) -> None:
        route.now_s += 0.01
        one.request(route.now_s)

    candidates = [
        Candidate("update", timing(Learning()), TIMES),
        Candidate("query", timing(lambda: forecast.fits("db", 0.05, 3)), TIMES),
        Candidate("request", timing(partial(request, steered)), TIMES),
        Candidate("request_unraced", timing(partial(request, unraced)), TIMES),
        Candidate("bare", client.timing("bare", application(hello), HELLO), TIMES),
        Candidate(
            "floor8",
            client.timing("floor8", PassThrough(application(hello_in_floors)), HELLO),
            TIMES,
        ),
    ]
    rounds, remark = quietest(candidates, 60 if quick else 300, _good)
    if steered.decided < len(STAGES) * TIMES or not 0.0 < forecast.fits("db", 0.05, 3) <= 1.0:
        raise WrongCountError(f"{steered.decided} decisions were taken")
    floor8_s = rounds.added("floor8", "bare")
    request_s = rounds.least("request")
    return {
        "rows": {
            "forecast-update": {"value": 1e6 * rounds.least("update"), "remark": remark},
            "forecast-query": {"value": 1e6 * rounds.least("query")},
            "forecast-request": {
                "value": 1e6 * request_s,
                "remark": f"raced; {1e6 * rounds.least('request_unraced'):.1f} us where nothing is",
            },
            "forecast-floors": {
                "value": request_s / floor8_s,
                "remark": f"FLOOR8 adds {1e6 * floor8_s:.2f} us",
            },
        },
        "details": rounds.figures(),
    }


def _good(rounds: Rounds) -> bool:
    return rounds.unrest() < 1.1


if __name__ == "__main__":
    sys.exit(report(measure))
