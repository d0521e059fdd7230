"""The one door into the core: begin a budget, finish it.

The engine holds the policy compiled for look-up and the running totals. Finishing never raises:
a fault of ours becomes a count and a call of ``on_fault``, never a changed response.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Final

from budgetware._core.account import account
from budgetware._core.budget import INERT, Budget, opened
from budgetware._core.current import current_budget, handle
from budgetware._core.lane import Lane, RetiredLanes
from budgetware._core.policy import OTHER, Policy, Route
from budgetware._core.record import Observer, RequestRecord
from budgetware._core.routes import RouteTable
from budgetware._core.stage import Clock, Stage, stage_type
from budgetware._core.tally import Tally, bounds_of

ABSORB_AT: Final = 128
"""Requests of one lane after which pending durations are sorted into buckets."""

MOST_JOBS: Final = 64
"""Job names the policy does not list that are told apart."""

Lanes = Mapping[str | None, Lane]
Fault = Callable[[str, Exception, int], None]


class Observing:
    """An observer, whether it wants the request that is just ending, and when.

    Most are told after the answer has left. What has to be said on the server's span is said
    before: instrumentations end that span with the last byte.
    """

    __slots__ = ("before_answer", "observer", "wanted")

    def __init__(
        self,
        observer: Observer,
        wanted: Callable[[], bool] = lambda: True,
        *,
        before_answer: bool = False,
    ) -> None:
        self.observer = observer
        self.wanted = wanted
        self.before_answer = before_answer


class _Telling(threading.local):
    """Whether this thread is just telling somebody of a request."""

    now = False


class _Desk:
    """A policy compiled for look-up; swapped whole on reload."""

    def __init__(self, policy: Policy, tally: Tally, relieve: Callable[[], None]) -> None:
        self.policy = policy
        self._tally = tally
        self._relieve = relieve
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
        return RetiredLanes(plans, self._tally, self.policy.digest, self._relieve)

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
        for tier in policy.tiers or (None,):
            lanes[tier] = self._lane(route, tier, lanes)
        lanes[None] = lanes[policy.default_tier]
        return lanes

    def _lane(self, route: Route | None, tier: str | None, lanes: Lanes) -> Lane:
        plan = self.policy.plan(route, tier)
        return Lane(plan, self._tally, self.policy.digest, lanes, self._relieve)


class Engine:
    """Begins and finishes budgets under one policy at a time.

    Args:
        policy: What is promised; ``Policy()`` only measures.
        clock: Monotonic seconds.
        observers: Told of every request they want, one by one.
        alarms: Told of every request in which something went over a rung of the ladder.
        on_fault: Told of budgetware's own failures: the step, the error, how many so far.

    """

    def __init__(
        self,
        policy: Policy | None = None,
        *,
        clock: Clock = perf_counter,
        observers: Sequence[Observing] = (),
        alarms: Sequence[Observer] = (),
        on_fault: Fault | None = None,
    ) -> None:
        self.clock = clock
        self.tally = Tally(bounds_of(policy or Policy()))
        self.absorb: Callable[[], None] = self.tally.absorb
        self.absorb_at = ABSORB_AT
        self._opens = stage_type(clock, current_budget.get, handle.stage)
        self._observers = tuple(observers)
        self._alarms = tuple(alarms)
        self._on_fault = on_fault
        self._telling = _Telling()
        self._desk = _Desk(Policy() if policy is None else policy, self.tally, self._relieve)

    @property
    def policy(self) -> Policy:
        """The policy new requests begin under."""
        return self._desk.policy

    def adopt(self, policy: Policy) -> None:
        """Put *policy* in force for requests that begin from now on."""
        retired = self._desk
        self._desk = _Desk(policy, self.tally, self._relieve)
        retired.retire()
        del retired  # and with it every lane that no request needs
        self.tally.prune()

    def observe(self, observing: Observing) -> None:
        """Tell *observing*, too, of requests that end from now on."""
        self._observers = (*self._observers, observing)

    def ignore(self, observing: Observing) -> None:
        """Tell *observing* no more."""
        self._observers = tuple(one for one in self._observers if one is not observing)

    def begin(
        self,
        method: str,
        path: str,
        tier: str | None = None,
        root: str | None = None,
    ) -> Budget:
        """Open the budget of a request; an unknown *tier* is the default one.

        Args:
            method: The HTTP method.
            path: The decoded path, *root* included.
            tier: The caller's tier.
            root: Where the application is mounted; templates may be written with it or without.

        """
        desk = self._desk
        try:
            lanes = desk.literal[path][method]
        except KeyError:
            lanes = desk.match(method, path, root)
        lane = lanes[None] if tier is None else lanes.get(tier) or lanes[None]
        return opened(lane, self.clock, self._opens)

    def begin_job(self, name: str, tier: str | None = None) -> Budget:
        """Open the budget of the job or route called *name*."""
        return opened(self._desk.job(name, tier), self.clock, self._opens)

    def end(self, budget: Budget) -> bool:
        """End *budget* and add it to the totals; whether there is something left to ``tell``."""
        if budget.end is not None:
            return False
        try:
            clock = budget.clock
            end = clock()
            budget.end = end
            stages: Sequence[Stage] = budget.stages
            budget.stages = INERT
            lane = budget.lane
            elapsed_s = end - budget.start
            if budget.first_byte_at is not None and not lane.judges_last_byte:
                elapsed_s = budget.first_byte_at - budget.start
            durations = lane.durations
            durations.append(elapsed_s)
            notable = elapsed_s > lane.warning_s
            if stages:
                if budget.settled is not None:
                    notable = True
                    budget.claim()
                    lane.add(stages, budget.start, end)
                elif lane.add(stages, budget.start, end):
                    notable = True
            awaited = self._observers and self._awaited(budget, stages)
            if notable or awaited or len(durations) >= self.absorb_at:
                budget.untold = stages
                budget.notable = notable
                return True
        except Exception as error:  # noqa: BLE001 - our own fault must not reach the response
            self.fault("end", error)
        return False

    def tell(self, budget: Budget) -> None:
        """Tell alarms and observers of *budget*, which has ended, and keep the totals in order."""
        try:
            lane = budget.lane
            stages = budget.untold
            del budget.untold
            listeners = self._listeners()
            if listeners or budget.notable:
                self._tell(account(budget, stages), lane, listeners)
        except Exception as error:  # noqa: BLE001 - likewise
            self.fault("tell", error)
        budget.settled = None  # the context of a task may live for long, and the budget with it
        try:
            if len(budget.lane.durations) >= self.absorb_at:
                self.absorb()
        except Exception as error:  # noqa: BLE001 - likewise
            self.fault("absorb", error)

    def finish(self, budget: Budget) -> None:
        """End *budget* unless it has ended, and tell whoever has to be told. Once."""
        if budget.end is None:
            self.end(budget)
        if hasattr(budget, "untold"):
            self.tell(budget)

    def fail(self, budget: Budget) -> None:
        """Count *budget*'s request or job as failed, once: it raised or was answered with a 5xx."""
        try:
            if not hasattr(budget, "failed"):
                budget.failed = True
                budget.lane.fail()
        except Exception as error:  # noqa: BLE001 - likewise
            self.fault("fail", error)

    def lose(self, budget: Budget) -> None:
        """End the budget of a request whose client left before an answer was begun."""
        try:
            if budget.end is None:
                stages = budget.close(self.clock())
                # What the application makes of it, with nobody to answer, is no failure.
                budget.failed = True
                budget.lane.lose()
                listeners = self._listeners()
                if listeners:
                    record = account(budget, stages, client_gone=True)
                    self._tell(record, budget.lane, listeners)
                budget.settled = None
        except Exception as error:  # noqa: BLE001 - likewise
            self.fault("lose", error)

    def _relieve(self) -> None:
        # Looked up at every call: telemetry may have put its own in place.
        self.absorb()

    def _listeners(self) -> list[Observer]:
        if self._telling.now:
            return []
        return [one.observer for one in self._observers if not one.before_answer and one.wanted()]

    def _awaited(self, budget: Budget, stages: Sequence[Stage]) -> bool:
        """Tell those who cannot wait for the answer; whether there is somebody who can."""
        if self._telling.now:
            return False
        wanted = [one for one in self._observers if one.wanted()]
        early = [one.observer for one in wanted if one.before_answer]
        if early:
            try:
                self._inform(early, account(budget, stages))
            except Exception as error:  # noqa: BLE001 - the totals are still to be kept in order
                self.fault("observe", error)
        return len(wanted) > len(early)

    def _tell(self, record: RequestRecord, lane: Lane, listeners: list[Observer]) -> None:
        if record.level is not None or record.violations:
            lane.violate(record)
            listeners.extend(self._alarms)
        self._inform(listeners, record)

    def _inform(self, observers: Sequence[Observer], record: RequestRecord) -> None:
        telling = self._telling
        if telling.now:
            # Of a job that an observer has run: telling that observer of it would never end.
            return
        telling.now = True
        try:
            for observer in observers:
                try:
                    observer(record)
                except Exception as error:  # noqa: BLE001 - one must not silence the others
                    self.fault("observe", error)
        finally:
            telling.now = False

    def fault(self, step: str, error: Exception) -> None:
        """Count a failure of budgetware at *step*, and report it."""
        try:
            count = self.tally.fault(step)
            if self._on_fault is not None:
                self._on_fault(step, error, count)
        except Exception:  # noqa: BLE001, S110 - there is nowhere left to report to
            pass
