"""The library's forecast and decisions in the protocol of the traces' scorer.

``PYTHONPATH=.../budgetware/src:.../budgetware python score.py --adapters hardtimer,best --adapter
benchmarks.decisions:factory --adapter benchmarks.decisions:raced public/*.npz``, from the folder
of ``score.py``. There is no judgement here: this file hands facts to the core and answers back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from budgetware._core.decide import Action, Facts, Reason, decide, enough
from budgetware._core.forecast import Forecast
from budgetware._core.outlook import RouteForecast
from budgetware._core.path import Passing, Path
from budgetware._core.policy import StagePlan
from budgetware._core.probe import Allowance, Permit, Probes

DEGRADE, RUN, SHADOW, SKIP = 0, 1, 2, 3

ANSWERS = {
    Action.RUN: RUN,
    Action.SKIP: SKIP,
    Action.ANSWER: DEGRADE,
    Action.PROBE: SHADOW,
    Action.REJECT: DEGRADE,
}


class Service:
    """One process that serves the requests of a trace."""

    def __init__(
        self, spec: Mapping[str, Any], clock: Callable[[], float], *, interrupt: bool = False
    ) -> None:
        self.interrupt = interrupt
        self.clock = clock
        self.cost_s: float = spec["fallback_s"]
        self.limits_s: dict[str, float] = spec["budget_s"]
        self.worth: float = spec["value"]["degraded"]
        self.late: dict[str, float] = spec["value"]["late"]
        self.fallbacks: dict[str, tuple[float, float]] = spec["stage_fallback"]
        self.enough = {tier: enough(self.late[tier], self.worth) for tier in spec["tiers"]}
        self.in_flight = 0
        self.allowance = Allowance()
        self.first = "+".join(spec["plan"][0])
        forecast = Forecast()
        random = Random(7).random
        self.routes: dict[str, tuple[RouteForecast, Probes]] = {}
        for route in spec["routes"]:
            found = forecast.of(route, plan_of(spec, route), clock())
            assert found is not None
            self.routes[route] = found, Probes(self.allowance, random)

    def start(self, route: str, tier: str, t: float, size: float = 1.0) -> Request:
        """Begin a request."""
        self.in_flight += 1
        self.allowance.earn()
        return Request(self, route, tier, t, size)


def plan_of(spec: Mapping[str, Any], route: str) -> dict[str, StagePlan]:
    """Return what the policy file would allot to the stages, parallel ones taken together."""
    allotted = spec["alloc_s"].get(route)
    if not allotted:
        return {}
    plans = {}
    for group in spec["plan"]:
        limit_s = max(allotted.get(stage, 0.0) for stage in group)
        plans["+".join(group)] = StagePlan(name="+".join(group), limit_s=limit_s)
    return plans


class Request:
    """One request of the trace."""

    def __init__(self, service: Service, route: str, tier: str, t: float, size: float) -> None:
        self.service = service
        self.forecast, self.probes = service.routes[route]
        self.tier = tier
        self.began_s = t
        self.size = size
        self.passings: list[Passing] = []
        self.permit: Permit | None = None
        self.behind = False
        self.whole = True
        self.skipped = False

    def decide(self, point: str, remaining: float) -> int:
        """Say what to do before the stage *point*."""
        service = self.service
        now_s = service.clock()
        load = service.in_flight
        fallback = service.fallbacks.get(point)
        if self.passings and self.passings[-1].point in service.fallbacks:
            self.close_stage(now_s)
        bar = service.enough[self.tier]
        if (
            remaining > service.cost_s
            and self.forecast.fits(point, remaining, load, self.size) >= bar
        ):
            action = Action.RUN
        else:
            action = self.consider(point, remaining, load, now_s, fallback)
        self.passings.append(Passing(point, now_s - self.began_s, load))
        if action not in {Action.RUN, Action.PROBE}:
            self.whole = False
            self.skipped = self.skipped or action is Action.SKIP
        return ANSWERS[action]

    def consider(
        self,
        point: str,
        remaining_s: float,
        load: int,
        now_s: float,
        fallback: tuple[float, float] | None,
    ) -> Action:
        """Gather the facts, have them judged, and pay for a probe."""
        service, forecast, size = self.service, self.forecast, self.size
        outlook = forecast.outlook(point, remaining_s, service.cost_s, load, now_s, size)
        decision = decide(
            Facts(
                remaining_s=remaining_s,
                limit_s=service.limits_s[self.tier],
                fits=outlook.fits,
                seen=outlook.seen,
                leg_fits=outlook.leg_fits,
                leg_s=outlook.leg_s,
                rest_s=outlook.rest_s,
                raced=service.interrupt,
                load_effect=outlook.load_effect,
                answer_cost_s=service.cost_s,
                late_worth=service.late[self.tier],
                degraded_worth=service.worth,
                fallback_s=None if fallback is None else fallback[0],
                fallback_worth=0.0 if fallback is None else fallback[1],
                sequel_fits=1.0
                if fallback is None
                else forecast.sequel_fits(point, remaining_s - fallback[0], load, size),
                probe_due=self.probes.due(point, now_s, outlook.quiet_s),
                behind=True,
                probing=self.permit is not None,
            )
        )
        if decision.reason is Reason.PROBE_DUE and self.permit is None:
            self.permit = self.probes.take(point, now_s, outlook.quiet_s, behind=True)
            if self.permit is None:
                return Action.ANSWER
            self.behind = True
        return decision.action

    def close_stage(self, now_s: float) -> None:
        """Note how long the stage before this point was open."""
        passing = self.passings[-1]
        stage_s = now_s - self.began_s - passing.at_s
        self.passings[-1] = passing._replace(stage_s=stage_s)

    def observe(self, stage: str, seconds: float) -> None:
        """Take note that a stage has closed; the clock says as much."""

    def finish(self, outcome: str) -> None:
        """End the request, or only its answer if the work goes on behind it."""
        if self.behind and outcome != "shadow":
            return
        service = self.service
        service.in_flight -= 1
        now_s = service.clock()
        duration_s = now_s - self.began_s
        in_time = duration_s <= service.limits_s[self.tier]
        path = Path(self.passings, duration_s, now_s, self.size)
        if outcome in {"full", "shadow"} or (outcome == "late" and self.whole):
            self.forecast.learn(path)
            if in_time:
                for passing in self.passings:
                    self.probes.proved(passing.point)
        elif not self.skipped:
            self.forecast.learn_cut(path)
        if self.permit is not None:
            self.probes.settle(self.permit, good=in_time and outcome != "degraded")


def factory(spec: Mapping[str, Any], clock: Callable[[], float]) -> Service:
    """Return a service that decides at the openings of stages only."""
    return Service(spec, clock)


def raced(spec: Mapping[str, Any], clock: Callable[[], float]) -> Service:
    """Return a service that also has a timer at the deadline, less the cost of the answer."""
    return Service(spec, clock, interrupt=True)
