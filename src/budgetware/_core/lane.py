"""One route at one tier in this process: its plan made ready for the hot path, and its totals.

A lane keeps the durations of finished requests and finds out which requests are *notable*: those
in which anything may have gone over a rung. Only they are accounted for in full. It looks at
upper bounds alone, first the whole request's length and then each stage's sum of durations, both
of which can exceed what the accounting finds but never fall short of it; nothing is missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING

from budgetware._core.record import Key, Level, Outcome, RequestRecord
from budgetware._core.stage import Stage
from budgetware.names import OTHER

if TYPE_CHECKING:
    from budgetware._core.policy import Plan
    from budgetware._core.steering import Steering
    from budgetware._core.tally import StageSeries, Tally

LONGEST_NAME = 128
"""Characters of the name of a stage or operation; longer ones are counted as ``_OTHER``."""

MOST_PENDING = 1024
"""Durations of settled stages that are left pending while their request goes on."""


_ANY_NUMBER = 1 << 29
"""More calls than a request makes, where none are too many."""

_RISING = tuple(Level)


def label(name: object) -> str:
    """Return what *name*, whatever the application gave, is accounted under."""
    return name if isinstance(name, str) and len(name) <= LONGEST_NAME else OTHER


def labels(stage: Stage) -> Key:
    """Return the stage and the operation that an opening is accounted under."""
    operation = getattr(stage, "operation", None)
    return label(stage.name), None if operation is None else label(operation)


class Lane:
    """The promise to one tier on one route, and where the sums of what was kept go.

    Attributes:
        plan: What is promised.
        policy: The digest of the policy it comes from.
        lanes: Every tier's lane of the same route, this one included; ``None`` is the default's.
        limit_s: The whole budget in seconds.
        gates: Whether there are stages at whose opening a request may be answered instead.
        warning_s: The first rung of the ladder in seconds.
        judges_last_byte: Whether the last byte ends the budget, not the first.
        durations: Where the seconds of each request are left.
        series: The running totals of the route and tier.
        steering: Decides between the full response and something smaller; ``None`` in a mode that
            only observes.

    """

    __slots__ = (
        "__weakref__",
        "_bounds_s",
        "_calls",
        "_intake",
        "_kept",
        "_least_calls",
        "_least_s",
        "_pending",
        "_relieve",
        "_stages",
        "_tally",
        "_warnings_s",
        "durations",
        "gates",
        "judges_last_byte",
        "lanes",
        "limit_s",
        "plan",
        "policy",
        "series",
        "steering",
        "warning_s",
    )

    def __init__(
        self,
        plan: Plan,
        tally: Tally,
        policy: str = "",
        lanes: Mapping[str | None, Lane] | None = None,
        relieve: Callable[[], None] | None = None,
    ) -> None:
        self.plan = plan
        self.policy = policy
        self.lanes: Mapping[str | None, Lane] = {None: self} if lanes is None else lanes
        self.limit_s = plan.limit_s
        self.gates = any(stage.answers for stage in plan.stages.values())
        self.warning_s = plan.limit_s * plan.ladder.warning
        self.judges_last_byte = plan.clock.value == "last_byte"
        self.series = tally.request(plan.route, plan.tier)
        self.steering: Steering | None = None
        in_force = not isinstance(lanes, RetiredLanes)
        self._intake = tally.intake(self.series, plan.limit_s, plan.ladder, self)
        self.durations = self._intake.pending
        self._kept = 0
        self._tally = tally
        self._relieve = tally.absorb if relieve is None else relieve
        self._stages: dict[str, StageSeries] = {}
        self._pending: dict[str, list[float]] = {}
        for name, stage in plan.stages.items():
            series = self._series(name)
            if in_force:
                series.limits_s[plan.tier] = stage.limit_s
        if in_force:
            self.series.limit_s = plan.limit_s
        warning = plan.ladder.warning
        self._warnings_s: dict[Key, float] = {}
        self._bounds_s: dict[str, float] = {}
        for name, stage in plan.stages.items():
            of_operations: dict[Key, float] = {
                (name, operation): limit_s * warning
                for operation, limit_s in stage.operations.items()
            }
            self._warnings_s[name, None] = stage.limit_s * warning
            self._warnings_s |= of_operations
            self._bounds_s[name] = min(stage.limit_s * warning, *of_operations.values(), inf)
        self._calls = {
            name: stage.calls for name, stage in plan.stages.items() if stage.calls < inf
        }
        self._least_s = min(self._bounds_s.values(), default=inf)
        # A small whole number: to compare one with ``inf`` takes several times as long.
        self._least_calls = int(min(self._calls.values(), default=_ANY_NUMBER))

    def add(self, stages: Sequence[Stage], start: float, end: float) -> bool:
        """Add the stages of a finished request; tell whether they may make it notable.

        Whatever stage was not left ends with the request.
        """
        pending = self._pending
        for stage in stages:
            try:
                pending[stage.name].append(stage.end - stage.start)  # type: ignore[operator]
            except (AttributeError, KeyError, TypeError):
                self._keep_odd(stage, end)
        if end - start <= self._least_s and len(stages) <= self._least_calls:
            return False
        return self._over(stages, end)

    def keep(self, stages: Sequence[Stage]) -> None:
        """Keep the durations of closed stages whose request goes on."""
        for stage in stages:
            if stage.start is not None:
                self._series(stage.name).pending.append(stage.end - stage.start)
        self._kept += len(stages)
        if self._kept >= MOST_PENDING:
            self._kept = 0
            self._relieve()

    def outlive(self, stages: Sequence[Stage], end: float) -> None:
        """Keep the durations of the stages of work that went on, until *end*, after its answer."""
        for stage in stages:
            self._keep_odd(stage, end)
        self._kept += len(stages)
        if self._kept >= MOST_PENDING:
            self._kept = 0
            self._relieve()

    def violate(self, record: RequestRecord) -> None:
        """Count the violations of a notable request, those of operations as their stage's.

        The request and each stage count once, with the highest rung.
        """
        tier = self.plan.tier
        highest: dict[str, Level] = {}
        for total in record.violations:
            level = total.level
            if level is not None:
                so_far = highest.get(total.name, level)
                highest[total.name] = max(so_far, level, key=_RISING.index)
        over = [(self._series(name).violations, (tier, level)) for name, level in highest.items()]
        with self._tally.lock:
            if record.level is not None:
                self.series.violations[record.level] += 1
            for counts, key in over:
                counts[key] = counts.get(key, 0) + 1

    def lose(self) -> None:
        """Count a request whose client left before an answer was begun."""
        with self._tally.lock:
            self.series.outcomes[Outcome.CLIENT_GONE.value] += 1

    def answer(self, elapsed_s: float, outcome: Outcome) -> None:
        """Count a request that was answered with something smaller after *elapsed_s*."""
        self._tally.smaller.append((self.series, outcome.value, elapsed_s))

    def fail(self) -> None:
        """Count a request that raised or was answered with a 5xx status."""
        with self._tally.lock:
            self.series.errors += 1

    def fault(self, step: str) -> None:
        """Count a failure of budgetware, or a misuse of it, in the middle of a request."""
        self._tally.fault(step)

    def _over(self, stages: Sequence[Stage], end: float) -> bool:
        """Tell whether a stage, an operation or a count of calls may have gone over."""
        if len(stages) > self._least_calls:
            return self._over_in_detail(stages, end)
        try:
            spent = {stage.name: stage.end - stage.start for stage in stages}  # type: ignore[operator]
        except (AttributeError, TypeError):  # still open, or odd
            return self._over_in_detail(stages, end)
        if len(spent) < len(stages):
            spent = {}
            for stage in stages:
                name = stage.name
                spent[name] = spent.get(name, 0.0) + stage.end - stage.start  # type: ignore[operator]
        bounds_s = self._bounds_s
        for name, spent_s in spent.items():
            if name in bounds_s and spent_s > bounds_s[name]:
                return self._over_in_detail(stages, end)
        return False

    def _over_in_detail(self, stages: Iterable[Stage], end: float) -> bool:
        calls: dict[str, int] = {}
        spent: dict[Key, float] = {}
        for stage in stages:
            if stage.start is not None:
                took = getattr(stage, "end", end) - stage.start
                name, operation = labels(stage)
                calls[name] = calls.get(name, 0) + 1
                for key in {(name, None), (name, operation)}:
                    spent[key] = spent.get(key, 0.0) + took
        return any(count > self._calls.get(name, inf) for name, count in calls.items()) or any(
            total_s > self._warnings_s.get(key, inf) for key, total_s in spent.items()
        )

    def _keep_odd(self, stage: Stage, end: float) -> None:
        # Not among the known names, never left, or never even entered.
        if stage.start is not None:
            took = getattr(stage, "end", end) - stage.start
            # Opened by a thread that was not done with it when the request ended: not at all.
            self._series(stage.name).pending.append(max(0.0, took))

    def _series(self, name: str) -> StageSeries:
        """Return the totals of a stage, declared or not; beyond the caps those of ``_OTHER``."""
        name = label(name)
        found = self._stages.get(name)
        if found is None and name not in self.plan.stages and not self._tally.admits(name):
            name = OTHER
            found = self._stages.get(name)
        if found is None:
            found = self._stages[name] = self._tally.stage(self.plan.route, name)
            self._pending[name] = found.pending
        return found


class RetiredLanes(Mapping[str | None, Lane]):
    """A route's lanes under a policy that is no longer in force, for requests still running.

    Each is made when it is asked for and kept by nobody else: lanes that refer to each other
    would wait for the garbage collector.
    """

    __slots__ = ("_plans", "_policy", "_relieve", "_steering", "_tally")

    def __init__(
        self,
        plans: Mapping[str | None, Plan],
        tally: Tally,
        policy: str,
        relieve: Callable[[], None],
        steering: Mapping[str | None, Steering | None],
    ) -> None:
        self._steering = steering
        self._plans = plans
        self._tally = tally
        self._policy = policy
        self._relieve = relieve

    def __getitem__(self, tier: str | None) -> Lane:
        """Return a lane for *tier*."""
        plan = self._plans[tier]
        lane = Lane(plan, self._tally, self._policy, self, self._relieve)
        lane.steering = self._steering[tier]
        return lane

    def __iter__(self) -> Iterator[str | None]:
        """Go through the tiers."""
        return iter(self._plans)

    def __len__(self) -> int:
        """Return how many tiers there are, ``None`` included."""
        return len(self._plans)
