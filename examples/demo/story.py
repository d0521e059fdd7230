"""What happened, in the figures that are shown: counts from the server, times from the client."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from examples.demo.load import RATES, ROUTES, Tape
from examples.demo.scrape import (
    FULL,
    LATE,
    REFUSED,
    REQUESTS,
    SMALLER,
    STAGE_DURATION,
    STAGE_LIMIT,
    VIOLATIONS,
    Key,
    Scrape,
)

JOB: Final = "nightly-export"
CRITICAL: Final = "signals"
"""The route that all this is about; there is something smaller to answer it with."""
TIGHT: Final = "enterprise"
"""The tier with the smallest budget."""

_FIELD: Final = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|\S*)')


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of a run.

    Attributes:
        title: What was going on.
        tape: What the client saw.
        counted: What the server counted meanwhile.
        log: The lines the server logged meanwhile.
        late_timers: The share of timers the machine let go off late meanwhile.

    """

    title: str
    tape: Tape
    counted: Scrape
    log: Sequence[str] = ()
    late_timers: float = 0.0


@dataclass(frozen=True, slots=True)
class Story:
    """One run of the server, in one mode.

    Attributes:
        mode: ``observe`` or ``enforce``.
        before, during, after: The three phases; the database was slow in the middle one.
        final: The server's metrics at the end, with what was before the first phase.
        log: All lines the server logged, likewise.
        jobs: How often the client started each job.

    """

    mode: str
    before: Phase
    during: Phase
    after: Phase
    final: Scrape
    log: Sequence[str] = ()
    jobs: Mapping[Key, int] = field(default_factory=dict)

    @property
    def phases(self) -> tuple[Phase, Phase, Phase]:
        """The phases in their order."""
        return self.before, self.during, self.after

    def counted(self, metric: str, **labels: str) -> int:
        """Add up what the server counted in all phases."""
        return sum(phase.counted.count(metric, **labels) for phase in self.phases)

    def outcomes(self, key: Key, outcomes: tuple[str, ...]) -> int:
        """Add up the requests of a route and tier that ended in one of *outcomes*."""
        return sum(phase.counted.outcomes(key, outcomes) for phase in self.phases)

    def answered(self) -> Counter[Key]:
        """Return how many answers the client had of each route and tier, jobs included."""
        counts = Counter(self.jobs)
        for phase in self.phases:
            counts.update(phase.tape.counts())
        return counts

    def times_s(self, key: Key) -> list[float]:
        """Return how long the answers of a route and tier took, as the client saw it, sorted."""
        return sorted(took for phase in self.phases for took in phase.tape.times_s(key))


class Row(NamedTuple):
    """A route at a tier in one run, as it is shown.

    Attributes:
        key: The route and the tier.
        limit_s: The budget, as the server states it.
        requests: How many the server counted.
        full: Those answered in full and in time.
        degraded: Those answered with something smaller, in time.
        rejected: Those refused, in time.
        late: The others.
        smaller: What was sent in place of the full answer, and how often, in time or late.
        p95_s: The 95th percentile as the client saw it; ``None`` for a job.

    """

    key: Key
    limit_s: float
    requests: int
    full: int
    degraded: int
    rejected: int
    late: int
    smaller: Mapping[str, int]
    p95_s: float | None


class Shares(NamedTuple):
    """How many requests of a tier ended how, in one phase.

    Attributes:
        full: In full and in time.
        degraded: With something smaller, in time.
        late: Late.

    """

    full: int
    degraded: int
    late: int

    def of(self, count: int) -> float:
        """Return *count* as a share of all of them, 0 when there are none."""
        return count / (sum(self) or 1)


class StageRow(NamedTuple):
    """A stage of a route, as it is shown.

    Attributes:
        route: The route.
        stage: The stage.
        limit_s: Its allocation.
        means_s: Seconds per request that had it, in each phase; ``None`` when none had.
        violations: How often it was over its allocation.

    """

    route: str
    stage: str
    limit_s: float
    means_s: tuple[float | None, ...]
    violations: int

    @property
    def overspent_s(self) -> float:
        """By how much the mean of the worst phase is over the allocation; 0 when it is not."""
        return max(0.0, max(mean or 0.0 for mean in self.means_s) - self.limit_s)


def rows(story: Story) -> list[Row]:
    """Return one row per route and tier, in the order they are shown."""
    keys = [(route, tier) for route in ROUTES for tier in RATES] + [(JOB, "")]
    return [_row(story, key) for key in keys if story.counted(REQUESTS, route=key[0], tier=key[1])]


def smaller(counted: Iterable[Scrape | Tape], key: Key) -> Counter[str]:
    """Add up what was sent in place of the full answer to a route and tier, and how often."""
    found: Counter[str] = Counter()
    for one in counted:
        for (whose, answer), count in one.smaller().items():
            if whose == key:
                found[answer] += count
    return found


def shares(phase: Phase, tier: str, route: str = CRITICAL) -> Shares:
    """Return how the requests of *tier* for *route* ended in *phase*."""
    outcomes = phase.counted.outcomes
    return Shares(*(outcomes((route, tier), kind) for kind in (FULL, SMALLER, LATE)))


def stage_rows(story: Story) -> list[StageRow]:
    """Return every stage of the signals, and those of other routes that were over on average."""
    return [
        row
        for route in ROUTES
        for row in _stages(story, route)
        if route == CRITICAL or row.overspent_s
    ]


def lines_to_show(observe: Story, enforce: Story) -> list[str]:
    """Pick a late request, a slow stage and a smaller answer, word for word from the logs.

    The largest of each kind, from the phase in which the database was slow.
    """
    wanted: list[tuple[Story, str, Callable[[dict[str, str]], bool]]] = [
        (observe, "budget_exceeded", lambda names: names["scope"] == "request"),
        (observe, "budget_exceeded", lambda names: names.get("stage") == "db"),
        (enforce, "budget_degraded", lambda _: True),
    ]
    found = []
    for story, event, is_kind in wanted:
        kind = [
            line
            for line in story.during.log
            if (names := fields(line)).get("event") == event
            and (names["route"], names["tier"]) == (CRITICAL, TIGHT)
            and is_kind(names)
        ]
        if kind:
            found.append(max(kind, key=lambda line: float(fields(line)["actual_ms"])))
    return found


def fields(line: str) -> dict[str, str]:
    """Read a line of ``key=value`` pairs."""
    return {name: value.strip('"') for name, value in _FIELD.findall(line)}


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value that *share* of *ordered* do not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def overspends(counted: Scrape, **labels: str) -> int:
    """Return how often a stage was over its allocation."""
    return sum(
        counted.count(VIOLATIONS, violation_scope="stage", level=level, **labels)
        for level in ("critical", "breach")
    )


def _row(story: Story, key: Key) -> Row:
    times = story.times_s(key)
    return Row(
        key=key,
        limit_s=story.final.limit_s(key),
        requests=story.counted(REQUESTS, route=key[0], tier=key[1]),
        full=story.outcomes(key, FULL),
        degraded=story.outcomes(key, SMALLER),
        rejected=story.outcomes(key, REFUSED),
        late=story.outcomes(key, LATE),
        smaller=smaller((phase.counted for phase in story.phases), key),
        p95_s=percentile(times, 0.95) if times else None,
    )


def _stages(story: Story, route: str) -> list[StageRow]:
    found = [
        StageRow(
            route=route,
            stage=stage,
            limit_s=story.final.total(STAGE_LIMIT, route=route, stage=stage, tier=TIGHT),
            means_s=tuple(_mean_s(phase.counted, route, stage) for phase in story.phases),
            violations=sum(
                overspends(phase.counted, route=route, stage=stage) for phase in story.phases
            ),
        )
        for stage in story.final.stages(route)
    ]
    return sorted(found, key=lambda row: -max(mean or 0.0 for mean in row.means_s))


def _mean_s(counted: Scrape, route: str, stage: str) -> float | None:
    spent_s = counted.total(f"{STAGE_DURATION}_sum", route=route, stage=stage)
    openings = counted.count(f"{STAGE_DURATION}_count", route=route, stage=stage)
    # A request may open a stage more than once; one that is optional, not at all.
    requests = min(openings, counted.count(REQUESTS, route=route))
    return spent_s / requests if requests else None
