"""Which promise does a request come under? A policy compiled for look-up, with its lanes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from budgetware._core.entrance import is_asked, rules_of
from budgetware._core.lane import Lane, RetiredLanes
from budgetware._core.policy import Plan, Policy, Route
from budgetware._core.routes import RouteTable
from budgetware._core.steering import Steering
from budgetware._core.tally import Tally
from budgetware.names import OTHER

MOST_JOBS: Final = 64
"""Job names the policy does not list that are told apart."""

Lanes = Mapping[str | None, Lane]
"""A route's lanes by tier; ``None`` is the default one's."""


class Desk:
    """A policy compiled for look-up; swapped whole on reload.

    Attributes:
        policy: What it was compiled from.
        literal: The lanes of routes without parameters, by path and method.
        unmatched: The lanes of requests no route is for.
        steers: Whether any request may be answered with something smaller, or asked to wait.

    """

    def __init__(
        self,
        policy: Policy,
        tally: Tally,
        relieve: Callable[[], None],
        steer: Callable[[Plan], Steering | None] = lambda _: None,
    ) -> None:
        self.policy = policy
        self.steers = False
        self._rules = rules_of(policy)
        self._tally = tally
        self._relieve = relieve
        self._steer = steer
        self._routes = {name: self._lanes(route) for name, route in policy.routes.items()}
        self._jobs: dict[str, Lane] = {}
        self.unmatched = self._lanes(None)
        table = RouteTable(
            (match, self._routes[name])
            for name, route in policy.routes.items()
            for match in route.match
        )
        self.literal = table.literal
        self._find = table.find

    def match(self, method: str, path: str, root: str | None) -> Lanes:
        """Return the lanes of the route for *path*, which is under *root*."""
        lanes = self._find(method, path)
        if lanes is None and root:
            lanes = self._match_mounted(method, path, root)
        return lanes or self.unmatched

    def _match_mounted(self, method: str, path: str, root: str) -> Lanes | None:
        # Clients, a router in between and the application each see another part of the path, and
        # templates may be written as any of them does.
        if path != root and not path.startswith(root + "/"):
            return self._find(method, root + path)  # a server that leaves the root out of the path
        at = root.find("/", 1)
        while at > 0:
            lanes = self._find(method, path[at:])
            if lanes is not None:
                return lanes
            at = root.find("/", at + 1)
        return self._find(method, path[len(root) :] or "/")

    def job(self, name: str, tier: str | None) -> Lane:
        """Return the lane of the job or route called *name*."""
        lanes = self._routes.get(name)
        if tier is not None and lanes is not None and tier in lanes:
            return lanes[tier]
        lane = self._jobs.get(name)
        if lane is None:
            # A name the policy does not list comes from the code; what is beyond the cap is
            # measured under one name.
            if name not in self._routes and len(self._jobs) >= MOST_JOBS:
                name = OTHER
            lane = self._jobs.get(name) or self._jobs.setdefault(name, self._job_lane(name))
        return lane

    def retire(self) -> None:
        """Let every lane go as soon as no request needs it, without the garbage collector.

        Requests that are still running keep theirs, and may change to any tier of this policy.
        """
        for lanes in (self.unmatched, *self._routes.values()):
            retired = self._retired(lanes)
            for lane in lanes.values():
                lane.lanes = retired
        for lane in tuple(self._jobs.values()):
            lane.lanes = self._retired(lane.lanes)

    def _retired(self, lanes: Lanes) -> Lanes:
        plans = {tier: lane.plan for tier, lane in lanes.items()}
        steering = {tier: lane.steering for tier, lane in lanes.items()}
        return RetiredLanes(plans, self._tally, self.policy.digest, self._relieve, steering)

    def _job_lane(self, name: str) -> Lane:
        route = self.policy.routes.get(name)
        if route is not None:
            return self._lane(route, None, self._routes[name])
        # Nothing is promised to any tier, so naming one changes nothing.
        lanes: dict[str | None, Lane] = {}
        lane = self._lane(Route(name=name), None, lanes)
        lanes.update(dict.fromkeys((None, *self.policy.tiers), lane))
        return lane

    def _lanes(self, route: Route | None) -> Lanes:
        policy = self.policy
        lanes: dict[str | None, Lane] = {}
        # The longest budget first: a forecast begins with the allocations of the first lane.
        tiers = policy.tiers or (None,)
        for tier in sorted(tiers, key=lambda tier: policy.plan(route, tier).limit_s, reverse=True):
            lanes[tier] = self._lane(route, tier, lanes)
        lanes[None] = lanes[policy.default_tier]
        return lanes

    def _lane(self, route: Route | None, tier: str | None, lanes: Lanes) -> Lane:
        plan = self.policy.plan(route, tier)
        lane = Lane(plan, self._tally, self.policy.digest, lanes, self._relieve)
        lane.steering = self._steer(plan)
        decided = lane.steering is not None or is_asked(plan, self._rules)
        self.steers = self.steers or decided
        return lane
