"""Requests of a route that is decided on, through the real engine and without a door."""

from __future__ import annotations

from dataclasses import replace

from tests.core.programs import TICK

from budgetware._core.alternative import Gated
from budgetware._core.audience import Observing
from budgetware._core.budget import Budget
from budgetware._core.course import Course
from budgetware._core.engine import Engine
from budgetware._core.policy import Amount, Match, Mode, Policy, Route, StagePolicy, TierPolicy
from budgetware._core.record import RequestRecord
from budgetware.testing import FakeClock

LIMIT_S = 64 * TICK

POLICY = Policy(
    mode=Mode.ENFORCE,
    tiers={"free": TierPolicy(budget=LIMIT_S), "pro": TierPolicy(budget=LIMIT_S / 2)},
    routes={
        "signals": Route(
            name="signals",
            match=(Match("GET", "/signals"),),
            stages={
                "db": StagePolicy(budget=Amount(16 * TICK)),
                "ml": StagePolicy(budget=Amount(16 * TICK), answers=True),
            },
        ),
    },
)


class Turning(Gated):
    """A budget that remembers for what reasons its application was left, as a door's does."""

    __slots__ = ("is_shielded", "turns")

    is_shielded: bool
    turns: list[str]

    @property
    def shielded(self) -> bool:
        """Whether a test says so."""
        return self.is_shielded

    def turn(self, reason: str) -> None:
        """Note it."""
        self.turns.append(reason)


class Decided:
    """An engine whose one route is decided on, on a clock of its own.

    Attributes:
        clock: The clock.
        engine: The engine.
        alarms: What it told its alarm.
        records: What it told its observer.

    """

    def __init__(self, mode: Mode = Mode.ENFORCE, policy: Policy = POLICY) -> None:
        self.clock = FakeClock(8192 * TICK)
        self.alarms: list[RequestRecord] = []
        self.records: list[RequestRecord] = []
        self.engine = Engine(
            replace(policy, mode=mode),
            clock=self.clock,
            observers=(Observing(self.records.append),),
            alarms=(self.alarms.append,),
            random=lambda: 0.5,
        )

    def begin(self, *, answers: bool = True) -> Turning:
        """Begin a request, and its course if the mode has one."""
        lane = self.engine.lane("GET", "/signals", "free", None)
        budget = self.engine.begin_in(Turning, lane)
        budget.is_shielded, budget.turns = False, []
        if lane.steering is not None:
            budget.course = Course(lane.steering, budget.start)
            budget.course.answers = answers
            budget.course.cost_s = TICK
        return budget

    def serve(self, before: float, stage: float, after: float = 0.0) -> None:
        """Serve a full request that opens ``ml`` after so many seconds, for so many."""
        budget = self.begin()
        course = budget.course
        course.at(None, budget.remaining(), self.clock(), TICK, answers=True)
        self.clock.advance(before)
        course.at("ml", budget.remaining(), self.clock(), TICK, answers=True)
        self.clock.advance(stage + after)
        self.end(budget)

    def end(self, budget: Budget) -> None:
        """End a request whose work was done to its end."""
        self.engine.finish(budget)
        if hasattr(budget, "course"):
            budget.course.leave(self.clock(), full=True)

    @property
    def faults(self) -> dict[str, int]:
        """What went wrong inside."""
        return self.engine.tally.faults

    @property
    def decisions(self) -> dict[str, int]:
        """How often which action was decided on."""
        found: dict[str, int] = {}
        for (*_, action, _), count in self.engine.tally.decisions.items():
            found[str(action)] = found.get(str(action), 0) + count
        return found
