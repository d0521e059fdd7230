"""What happened, in the figures that are shown: counts from the server, times from the client."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from examples.demo.load import RATES, ROUTES, Tape
from examples.demo.scrape import (
    IN_TIME,
    LATE,
    REQUESTS,
    STAGE_DURATION,
    STAGE_LIMIT,
    VIOLATIONS,
    Key,
    Scrape,
)

JOB: Final = "nightly-export"
TIGHT: Final = "enterprise"
"""The tier with the smallest budget."""

_FIELD: Final = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|\S*)')


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of the demo.

    Attributes:
        title: What was going on.
        tape: What the client saw.
        counted: What the server counted meanwhile.
        log: The lines the server logged meanwhile.

    """

    title: str
    tape: Tape
    counted: Scrape
    log: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Story:
    """The whole demo.

    Attributes:
        before, during, after: The three phases; the database was slow in the middle one.
        final: The server's metrics at the end, with what was before the first phase.
        log: All lines the server logged, likewise.
        jobs: How often the client started each job.

    """

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
    """A route at a tier, as it is shown.

    Attributes:
        key: The route and the tier.
        limit_s: The budget, as the server states it.
        requests, in_time, late: As the server counted them.
        p50_s, p95_s, p99_s: As the client saw them; ``None`` for a job.
        overspent: The stage that was most often over its allocation, and how often.

    """

    key: Key
    limit_s: float
    requests: int
    in_time: int
    late: int
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None
    overspent: tuple[str, int] | None

    @property
    def headroom_s(self) -> float | None:
        """What the 95th percentile leaves of the budget."""
        return None if self.p95_s is None else self.limit_s - self.p95_s


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


def stage_rows(story: Story) -> list[StageRow]:
    """Return every stage of the signals, and those of other routes that were over on average."""
    return [
        row
        for route in ROUTES
        for row in _stages(story, route)
        if route == "signals" or row.overspent_s
    ]


def violations_to_show(log: Sequence[str], most: int = 3) -> list[str]:
    """Pick lines of different kinds from the server's *log*, as they were written."""
    exceeded = [line for line in log if "event=budget_exceeded" in line]
    # The largest of each kind.
    kinds: dict[tuple[str, ...], str] = {}
    for line in sorted(exceeded, key=lambda line: float(fields(line)["overage_ms"])):
        names = fields(line)
        kinds[names["scope"], names["route"], names.get("stage", ""), names["tier"]] = line
    wanted = [
        ("request", "signals", "", TIGHT),
        ("stage", "signals", "db", TIGHT),
        ("stage", "orders", "db", "pro"),
    ]
    order = sorted(kinds, key=lambda kind: (kind not in wanted, kind))
    return sorted(kinds[kind] for kind in order[:most])


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
    route, tier = key
    times = story.times_s(key)
    over = Counter(
        {
            stage: sum(
                overspends(phase.counted, route=route, tier=tier, stage=stage)
                for phase in story.phases
            )
            for stage in story.final.stages(route)
        },
    )
    worst = over.most_common(1)
    return Row(
        key=key,
        limit_s=story.final.limit_s(key),
        requests=story.counted(REQUESTS, route=route, tier=tier),
        in_time=sum(phase.counted.outcomes(key, IN_TIME) for phase in story.phases),
        late=sum(phase.counted.outcomes(key, LATE) for phase in story.phases),
        p50_s=percentile(times, 0.50) if times else None,
        p95_s=percentile(times, 0.95) if times else None,
        p99_s=percentile(times, 0.99) if times else None,
        overspent=worst[0] if worst and worst[0][1] else None,
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
