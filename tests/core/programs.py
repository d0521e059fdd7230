"""Made-up requests: what a request did, run through the real engine, and through an oracle.

Time comes in whole ticks of 1/1024 s, so that every sum of times is exact and can be compared
with ``==``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from hypothesis import strategies as st

from budgetware._core.audience import Observing
from budgetware._core.budget import Budget
from budgetware._core.current import current_budget, handle
from budgetware._core.engine import Engine
from budgetware._core.policy import Amount, Match, Policy, Route, StagePolicy, TierPolicy
from budgetware._core.record import RequestRecord, StageTotal
from budgetware._core.stage import StageContext
from budgetware.testing import FakeClock

TICK = 1 / 1024
"""Seconds; a power of two, so that sums of multiples are exact."""

START = 8192 * TICK

NAMES = ("auth", "db", "ml")
OPERATIONS = (None, "select", "insert")


POLICY = Policy(
    tiers={"free": TierPolicy(budget=64 * TICK), "pro": TierPolicy(budget=32 * TICK)},
    routes={
        "x": Route(
            name="x",
            match=(Match("GET", "/x"),),
            reserve=Amount(2 * TICK),
            stages={
                "db": StagePolicy(budget=Amount(8 * TICK), operations={"select": Amount(TICK)}),
                "ml": StagePolicy(budget=Amount(6 * TICK), optional=True),
                "free-form": StagePolicy(),
            },
        ),
    },
)
"""A route with everything, at two tiers."""


@dataclass(frozen=True)
class Open:
    """Open a stage."""

    name: str
    operation: str | None = None


@dataclass(frozen=True)
class Leave:
    """Leave one of the stages so far, open or not; leaving it again is a reuse of the object."""

    which: int


@dataclass(frozen=True)
class Work:
    """Let time pass."""

    ticks: int


@dataclass(frozen=True)
class Wait:
    """Wait for the client, while other tasks do this and that."""

    ticks: int
    meanwhile: tuple[Open | Leave, ...] = ()


Step = Open | Leave | Work | Wait

opens = st.builds(Open, st.sampled_from(NAMES), st.sampled_from(OPERATIONS))
leaves = st.builds(Leave, st.integers(0, 40))
works = st.builds(Work, st.integers(0, 3))
waits = st.builds(Wait, st.integers(0, 3), st.lists(opens | leaves, max_size=3).map(tuple))


def programs(*steps: st.SearchStrategy[Step], most: int = 40) -> st.SearchStrategy[list[Step]]:
    """Return requests made of *steps*; of everything when there are none.

    They have at least so many steps that something can come of them.
    """
    return st.lists(
        st.one_of(steps or (opens, leaves, works, waits)),
        min_size=most // 3,
        max_size=most,
    )


@dataclass
class Opening:
    """One opening as the oracle sees it, in ticks that the client did not use up."""

    name: str
    operation: str | None
    start: int
    end: int | None = None


@dataclass
class Oracle:
    """The documented rule, walked through tick by tick."""

    openings: list[Opening] = field(default_factory=list)
    now: int = 0

    def take(self, step: Step) -> None:
        """Note one step."""
        match step:
            case Open(name, operation):
                self.openings.append(Opening(name, operation, self.now))
            case Leave(which) if self.openings:
                self.openings[which % len(self.openings)].end = self.now
            case Work(ticks):
                self.now += ticks
            case Wait(_, meanwhile):
                for one in meanwhile:
                    self.take(one)

    def open_at(self, tick: int) -> list[Opening]:
        """Return what was open during *tick*, in the order it was opened."""
        return [
            one
            for one in self.openings
            if one.start <= tick < (self.now if one.end is None else one.end)
        ]

    def owners(self) -> list[str | None]:
        """Return whose each tick is: it belongs to what was opened last and is still open."""
        return [
            found[-1].name if (found := self.open_at(tick)) else None for tick in range(self.now)
        ]

    def spent(self, name: str, operation: str | None = None) -> float:
        """Return for how long a stage, or an operation of it, was open at least once."""
        ticks = sum(
            any(
                one.name == name and operation in {None, one.operation}
                for one in self.open_at(tick)
            )
            for tick in range(self.now)
        )
        return ticks * TICK

    def totals(self) -> dict[tuple[str, str | None], tuple[float, float, int]]:
        """Return spent and exclusive seconds and calls by stage and operation."""
        owners = self.owners()
        found: dict[tuple[str, str | None], tuple[float, float, int]] = {}
        for one in self.openings:
            for operation in {None, one.operation}:
                calls = sum(
                    other.name == one.name and operation in {None, other.operation}
                    for other in self.openings
                )
                exclusive = owners.count(one.name) * TICK if operation is None else 0.0
                found[one.name, operation] = self.spent(one.name, operation), exclusive, calls
        return found


class Play:
    """Requests through a real engine on a fake clock.

    Attributes:
        clock: The clock.
        engine: The engine.
        records: What it told its observer.

    """

    def __init__(self, policy: Policy | None = None) -> None:
        self.clock = FakeClock(START)
        self.records: list[RequestRecord] = []
        self.faults: list[tuple[str, Exception]] = []
        self.engine = Engine(
            policy,
            clock=self.clock,
            observers=(Observing(self.records.append),),
            on_fault=lambda step, error, _: self.faults.append((step, error)),
        )

    def run(
        self,
        program: Sequence[Step],
        prepare: Callable[[Budget], object] = lambda budget: None,
    ) -> RequestRecord:
        """Serve *program* as one request and return its record."""
        budget = self.engine.begin("GET", "/x")
        prepare(budget)
        stages: list[StageContext] = []
        with current(budget):
            for step in program:
                self._take(step, budget, stages)
        self.engine.finish(budget)
        assert self.faults == []
        return self.records[-1]

    def _take(self, step: Step, budget: Budget, stages: list[StageContext]) -> None:
        match step:
            case Open(name, operation):
                stages.append(handle.stage(name, operation))
            case Leave(which) if stages:
                stages[which % len(stages)].__exit__(None, None, None)
            case Work(ticks):
                self.clock.advance(ticks * TICK)
            case Wait(ticks, meanwhile):
                before = self.clock()
                for one in meanwhile:
                    self._take(one, budget, stages)
                    self.clock.advance(TICK)
                self.clock.advance(ticks * TICK)
                budget.pause(self.clock() - before)


@contextmanager
def current(budget: Budget | None) -> Iterator[None]:
    """Have *budget* be the current one, as the doors do."""
    token = current_budget.set(budget)
    try:
        yield
    finally:
        current_budget.reset(token)


def by_key(record: RequestRecord) -> dict[tuple[str, str | None], tuple[float, float, int]]:
    """Return a record's totals the way the oracle does."""
    return {
        (one.name, one.operation): (one.spent_s, one.exclusive_s, one.calls)
        for one in record.stages
    }


def stage(record: RequestRecord, name: str, operation: str | None = None) -> StageTotal:
    """Return the totals of one stage of *record*."""
    (found,) = [one for one in record.stages if (one.name, one.operation) == (name, operation)]
    return found


def balance(record: RequestRecord) -> float:
    """Return exclusive and unattributed seconds together, which is the whole duration."""
    return sum(one.exclusive_s for one in record.stages) + record.unattributed_s
