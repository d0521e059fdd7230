"""The one door into the core: begin a budget, finish it.

The engine holds the policy compiled for look-up and the running totals. Finishing never raises:
a fault of ours becomes a count and a call of ``on_fault``, never a changed response.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from random import random
from time import monotonic, perf_counter
from typing import Final, TypeVar

from budgetware._core.account import PARTIAL, account, skipped
from budgetware._core.audience import Audience, Observing
from budgetware._core.budget import MOST_STAGES, Budget
from budgetware._core.current import current_budget, handle
from budgetware._core.desk import Desk
from budgetware._core.entrance import Entrance
from budgetware._core.forecast import Forecast
from budgetware._core.lane import Lane
from budgetware._core.policy import Mode, Plan, Policy
from budgetware._core.record import Observer, Outcome, RequestRecord
from budgetware._core.stage import Clock, Stage, checked, stage_type
from budgetware._core.steering import Steering, Traffic
from budgetware._core.tally import Tally, bounds_of

ABSORB_AT: Final = 128
"""Requests of one lane after which pending durations are sorted into buckets."""

_SMALLER: Final = frozenset({Outcome.DEGRADED, Outcome.REJECTED})

B = TypeVar("B", bound=Budget)
Fault = Callable[[str, Exception, int], None]
NotKeptListener = Callable[[str, str | None, str, str], object]


class Engine:
    """Begins and finishes budgets under one policy at a time.

    Args:
        policy: What is promised; ``Policy()`` only measures.
        clock: Monotonic seconds. Requests and stages it fails to time are in no total.
        observers: Told of every request they want, one by one.
        alarms: Told of every request in which something went over a rung of the ladder, or that
            was answered with something smaller.
        on_fault: Told of budgetware's own failures: the step, the error, how many so far.
        on_not_kept: Told when a route's responses for a tier are not kept for a reason that is
            new: the route, the tier, the reason, and what in the request or response says so.
        random: Returns numbers in [0, 1).

    Attributes:
        steers: Whether any request is decided on, and not only measured.
        entrance: Asks requests whether they may come in.

    """

    def __init__(  # noqa: PLR0913 - what is injected, each by its name
        self,
        policy: Policy | None = None,
        *,
        clock: Clock = perf_counter,
        observers: Sequence[Observing] = (),
        alarms: Sequence[Observer] = (),
        on_fault: Fault | None = None,
        on_not_kept: NotKeptListener | None = None,
        random: Callable[[], float] = random,
    ) -> None:
        if clock is not perf_counter and clock is not monotonic:
            clock = checked(clock, partial(self.fault, "clock"))
        self.clock = clock
        self.tally = Tally(bounds_of(policy or Policy()))
        self.absorb: Callable[[], None] = self.tally.absorb
        self.absorb_at = ABSORB_AT
        self._opens = stage_type(clock, current_budget.get, handle.stage)
        self._audience = Audience(observers, alarms, partial(self.fault, "observe"))
        self._hint = self._audience.hint
        self._on_fault = on_fault
        self._on_not_kept = on_not_kept
        self._traffic = Traffic(Forecast(), random)
        self.entrance = Entrance(clock, self.tally.passed)
        self.entrance.adopt(policy or Policy())
        self._desk = self._desk_of(Policy() if policy is None else policy)
        self.steers = self._desk.steers

    @property
    def policy(self) -> Policy:
        """The policy new requests begin under."""
        return self._desk.policy

    def adopt(self, policy: Policy) -> None:
        """Put *policy* in force for requests that begin from now on."""
        retired = self._desk
        self.entrance.adopt(policy)
        self._desk = self._desk_of(policy)
        self.steers = self._desk.steers
        retired.retire()
        del retired  # and with it every lane that no request needs
        self.tally.prune()

    def observe(self, observing: Observing) -> None:
        """Tell *observing*, too, of requests that end from now on."""
        self._audience.join(observing)
        self._hint = self._audience.hint

    def ignore(self, observing: Observing) -> None:
        """Tell *observing* no more."""
        self._audience.leave(observing)
        self._hint = self._audience.hint

    def begin(
        self, method: str, path: str, tier: str | None = None, root: str | None = None
    ) -> Budget:
        """Open the budget of a request; an unknown *tier* is the default one.

        Args:
            method: The HTTP method.
            path: The decoded path, *root* included.
            tier: The caller's tier.
            root: Where the application is mounted; templates may be written with it or without.

        """
        return self.begin_as(Budget, method, path, tier, root)

    def begin_as(
        self, kind: type[B], method: str, path: str, tier: str | None, root: str | None
    ) -> B:
        """Open the budget of a request as an object of a door's own class."""
        desk = self._desk
        try:
            lanes = desk.literal[path][method]
        except KeyError:
            lanes = desk.match(method, path, root)
        # Here and not in ``__init__``: Python makes an object of a class without one at half the
        # price.
        budget = kind()
        budget.lane = lanes[None] if tier is None else lanes.get(tier) or lanes[None]
        budget.opens = self._opens
        budget.room = MOST_STAGES
        budget.end = None
        budget.odd = False
        clock = budget.clock = self.clock
        budget.start = clock()
        return budget

    def lane(self, method: str, path: str, tier: str | None, root: str | None) -> Lane:
        """Return the lane that a request would begin in."""
        desk = self._desk
        try:
            lanes = desk.literal[path][method]
        except KeyError:
            lanes = desk.match(method, path, root)
        return lanes[None] if tier is None else lanes.get(tier) or lanes[None]

    def begin_in(self, kind: type[B], lane: Lane) -> B:
        """Open the budget of a request in *lane*, as an object of a door's own class."""
        budget = kind()
        budget.lane = lane
        budget.opens = self._opens
        budget.room = MOST_STAGES
        budget.end = None
        budget.odd = False
        clock = budget.clock = self.clock
        budget.start = clock()
        return budget

    def begin_job(self, name: str, tier: str | None = None) -> Budget:
        """Open the budget of the job or route called *name*."""
        budget = self.begin("", "/")
        budget.lane = self._desk.job(name, tier)
        return budget

    def end(self, budget: Budget) -> bool:
        """End *budget* and add it to the totals; whether there is something left to ``tell``."""
        if budget.end is not None:
            return False
        try:
            clock = self.clock
            end = clock()
            budget.end = end
            lane = budget.lane
            start = budget.start
            durations = lane.durations
            if budget.odd:
                elapsed_s = self._keep_odd(budget)
            else:
                elapsed_s = end - start
                durations.append(elapsed_s)
            notable = elapsed_s > lane.warning_s
            # A thread that outlives the request may still open some: they are nobody's.
            stages = budget[:]
            if stages and lane.add(stages, start, end):
                notable = True
            hint = self._hint
            if (
                notable
                or budget.odd
                or len(durations) >= self.absorb_at
                or (hint is not None and hint())
            ):
                return self._hold(budget, stages, notable)
            budget.room = 0
            budget.clear()
        except Exception as error:  # noqa: BLE001 - our own fault must not reach the response
            self.fault("end", error)
            self._discard(budget)
        return False

    def tell(self, budget: Budget) -> None:
        """Tell alarms and observers of *budget*, which has ended, and keep the totals in order."""
        try:
            lane = budget.lane
            stages = budget.untold
            del budget.untold
            listeners = self._audience.listeners()
            if listeners or budget.notable:
                self._tell(account(budget, stages), lane, listeners)
        except Exception as error:  # noqa: BLE001 - likewise
            self.fault("tell", error)
        if budget.odd:
            budget.settled = None  # the context of a task may live for long, and the budget with it
        try:
            self._keep_in_order(budget.lane)
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
                listeners = self._audience.listeners()
                if listeners:
                    record = account(budget, stages, client_gone=True)
                    self._tell(record, budget.lane, listeners)
                budget.settled = None
        except Exception as error:  # noqa: BLE001 - likewise
            self.fault("lose", error)
            self._discard(budget)

    def answered(
        self, budget: Budget, answer: str, reason: str, status: int | None = None
    ) -> RequestRecord | None:
        """Count *budget*'s request as answered with *answer*, something smaller, just now.

        The budget stays open: the work may go on, and ``outlived`` ends it. What it returns is
        for ``announce``, once the answer has left.

        Args:
            budget: The request's.
            answer: Which answer it is.
            reason: Why there is no full response.
            status: The answer's.

        """
        try:
            lane = budget.lane
            sent = Budget(budget)
            sent.lane, sent.start, sent.clock = lane, budget.start, budget.clock
            sent.end = self.clock()
            sent.odd = False
            sent.status = status
            if hasattr(budget, "waited_s"):
                sent.waited_s = budget.waited_s
            record = account(sent, sent, answer=answer, reason=reason)
            self._count_smaller(lane, record)
        except Exception as error:  # noqa: BLE001 - likewise
            self.fault("answered", error)
            return None
        return record

    def announce(self, budget: Budget, record: RequestRecord | None) -> None:
        """Tell alarms and observers of *budget*'s request, which was ``answered``."""
        if record is None:
            return
        try:
            self._tell(record, budget.lane, self._audience.listeners(late=True))
            self._keep_in_order(budget.lane)
        except Exception as error:  # noqa: BLE001 - likewise
            self.fault("announce", error)

    def outlived(self, budget: Budget) -> None:
        """End the budget of work that went on after its client was answered."""
        try:
            if budget.end is None:
                now = self.clock()
                budget.lane.outlive(budget.close(now), now)
        except Exception as error:  # noqa: BLE001 - likewise
            self.fault("outlived", error)
            self._discard(budget)

    def cached(self, route: str, tier: str | None, result: str, reason: str, detail: str) -> None:
        """Count what became of the cache's part in a request: ``hit``, ``miss``, ``not_kept``."""
        try:
            is_new = self.tally.cached(route, tier, result, reason)
            if is_new and reason and self._on_not_kept is not None:
                self._on_not_kept(route, tier, reason, detail)
        except Exception as error:  # noqa: BLE001 - likewise
            self.fault("cached", error)

    def _discard(self, budget: Budget) -> None:
        """Close *budget*, unless that is done: nobody knows how long it took."""
        try:
            if budget.end is None:
                budget.close(budget.start)
                course = getattr(budget, "course", None)
                if course is not None:
                    course.abandon()
        except Exception as error:  # noqa: BLE001 - likewise
            self.fault("discard", error)

    def _tell(self, record: RequestRecord, lane: Lane, listeners: list[Observer]) -> None:
        alarming = record.level is not None or record.violations
        if alarming:
            lane.violate(record)
        self._audience.tell(record, listeners, alarming=bool(alarming or record.answer is not None))

    def _count_smaller(self, lane: Lane, record: RequestRecord) -> None:
        self.tally.answered(lane.plan, record.answer or "", record.reason or "")
        if record.outcome in _SMALLER:
            lane.answer(record.elapsed_s, record.outcome)
        else:
            lane.durations.append(record.elapsed_s)

    def _keep_in_order(self, lane: Lane) -> None:
        if max(len(lane.durations), len(self.tally.smaller)) >= self.absorb_at:
            self.absorb()

    def _desk_of(self, policy: Policy) -> Desk:
        return Desk(policy, self.tally, self._relieve, self._steering)

    def _steering(self, plan: Plan) -> Steering | None:
        tally, steering = self.tally, None
        if plan.mode is not Mode.OBSERVE and plan.limit_s < inf:
            told, foreseen = partial(tally.decided, plan), partial(tally.foreseen, plan)
            try:
                now_s = self.clock()
            except Exception:  # noqa: BLE001 - the clock has been told of, and the application starts
                now_s = 0.0
            steering = Steering(plan, self._traffic, now_s, told, foreseen)
        tally.watch_quota(plan, None if steering is None else steering.quota)
        return steering

    def _keep_odd(self, budget: Budget) -> float:
        """Keep and return the judged seconds of a budget that has just ended in an unusual way."""
        if hasattr(budget, "settled"):
            budget.claim()
        lane = budget.lane
        judged = hasattr(budget, "first_byte_at") and not lane.judges_last_byte
        elapsed_s = (budget.first_byte_at if judged else budget.end) - budget.start  # type: ignore[operator]
        reason = skipped(budget)
        if reason is not None:
            self.tally.answered(lane.plan, PARTIAL, reason)
        if reason is not None and elapsed_s <= lane.limit_s:
            lane.answer(elapsed_s, Outcome.DEGRADED)
        else:
            lane.durations.append(elapsed_s)
        return elapsed_s

    def _hold(self, budget: Budget, stages: list[Stage], notable: bool) -> bool:  # noqa: FBT001 - a fact
        """Keep the openings of an ended budget as long as somebody is to be told of them."""
        if hasattr(budget, "settled") or skipped(budget) is not None:
            notable = True
        awaited = self._hint is not None and self._audience.awaits(budget, stages)
        held = notable or awaited or len(budget.lane.durations) >= self.absorb_at
        if held:
            budget.untold = stages
            budget.notable = notable
        budget.room = 0
        budget.clear()
        return bool(held)

    def _relieve(self) -> None:
        # Looked up at every call: telemetry may have put its own in place.
        self.absorb()

    def fault(self, step: str, error: Exception) -> None:
        """Count a failure of budgetware at *step*, and report it."""
        try:
            count = self.tally.fault(step)
            if self._on_fault is not None:
                self._on_fault(step, error, count)
        except Exception:  # noqa: BLE001, S110 - there is nowhere left to report to
            pass
