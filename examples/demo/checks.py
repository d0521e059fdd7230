"""Is what is shown true? The client's counts, the server's counters, buckets and log must agree.

Each check compares two figures that came about in different ways, in both runs. Whatever differs
is spelled out, and the demo fails. What enforcing is for is checked in ``effects``; only there are
checks that depend on how fast the machine is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from examples.demo.machine import BUSY
from examples.demo.scrape import (
    DEGRADED,
    DURATION,
    ERRORS,
    FAULTS,
    LATE,
    REFUSED,
    REQUESTS,
    SMALLER,
    STAGE_DURATION,
    STAGE_LIMIT,
    VIOLATIONS,
    Key,
)
from examples.demo.story import JOB, TIGHT, Row, Story, fields, overspends, smaller

_LEVELS = {"warning": "warning", "critical": "exceeded", "breach": "breached"}
_UNMATCHED = "_unmatched"
_SLACK_S = 0.001
_ROUNDING_MS = 0.0021
_LINES = 3


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison.

    Attributes:
        claim: What is to be true.
        problems: Where it is not.
        timed: Whether it says that something was quick enough.

    """

    claim: str
    problems: tuple[str, ...] = ()
    timed: bool = False


class Verdict(NamedTuple):
    """What came of all checks.

    Attributes:
        held: Those that hold.
        excused: Those that something was too slow for, on a machine too busy to judge that.
        failed: The others.

    """

    held: Sequence[Check]
    excused: Sequence[Check]
    failed: Sequence[Check]


@dataclass(frozen=True, slots=True)
class Run:
    """One run, and the rows that are shown of it."""

    story: Story
    shown: Sequence[Row]


def check(runs: Sequence[Run], lines: Sequence[str]) -> list[Check]:
    """Compare what is shown, figures and log *lines*, with what the servers say."""

    def claimed(claim: str, *finders: Callable[[Run], Iterator[str]]) -> Check:
        return Check(
            claim,
            tuple(
                f"{run.story.mode}: {problem}"
                for run in runs
                for find in finders
                for problem in find(run)
            ),
        )

    answers = sum(sum(run.story.answered().values()) for run in runs)
    requests, late = (
        sum(row.requests for run in runs for row in run.shown),
        sum(row.late for run in runs for row in run.shown),
    )
    marked = sum(sum(_marked(run.story).values()) for run in runs)
    found = [
        claimed(
            f"{answers:,} answers the client had = {requests:,} the servers counted, by phase,"
            " route and tier",
            _answers,
            _shown,
        ),
        claimed(
            f"{marked:,} smaller answers by their header = degraded by the counters, route, tier"
            " and kind",
            _smaller,
        ),
        claimed(
            f"{late:,} late answers by the counters = those above the budget in the histograms",
            _buckets,
        ),
        claimed("violation counters = outcomes of the requests", _violations),
        claimed("stage violations = openings above the allocation", _overspends),
        claimed("log lines stand for counted violations and smaller answers", _log, _degradations),
        claimed("the servers' times fit into the client's", _times),
        claimed("errors as the client saw them, and no fault of budgetware", _errors),
    ]
    shown = Check("the lines above are from the logs, and add up", tuple(_lines(runs, lines)))
    return [*found, shown]


def judge(checks: Sequence[Check], late_timers: float) -> Verdict:
    """Say which of *checks* hold, on a machine with so large a share of late timers."""
    busy = late_timers > BUSY
    broken = [one for one in checks if one.problems]
    return Verdict(
        [one for one in checks if not one.problems],
        [one for one in broken if busy and one.timed],
        [one for one in broken if not (busy and one.timed)],
    )


def _marked(story: Story) -> Counter[tuple[Key, str]]:
    marked: Counter[tuple[Key, str]] = Counter()
    for phase in story.phases:
        marked.update(phase.tape.smaller())
    return marked


def _smaller(run: Run) -> Iterator[str]:
    story = run.story
    for phase in story.phases:
        seen = phase.tape.smaller()
        counted = phase.counted.smaller()
        for key, kind in sorted(seen.keys() | counted.keys()):
            had, told = seen[key, kind], counted[key, kind]
            if had != told:
                yield (
                    f"{phase.title}: {_name(key)}: the client had {had} {kind} answers,"
                    f" the server counted {told}"
                )
        for key in sorted(phase.counted.keys()):
            degraded = sum(count for (whose, _), count in counted.items() if whose == key)
            in_time = phase.counted.outcomes(key, SMALLER + REFUSED)
            late = phase.counted.outcomes(key, LATE)
            # A smaller answer that is late all the same counts as late.
            if not in_time <= degraded <= in_time + late:
                yield (
                    f"{phase.title}: {_name(key)}: {degraded} smaller answers, but {in_time} of"
                    f" the outcomes are, and {late} late"
                )


def _answers(run: Run) -> Iterator[str]:
    story = run.story
    jobs = Counter(story.jobs)
    for phase in story.phases:
        answered = phase.tape.counts()
        for key in sorted((answered.keys() | phase.counted.keys()) - jobs.keys()):
            counted = phase.counted.count(REQUESTS, route=key[0], tier=key[1])
            if key[0] != _UNMATCHED and counted != answered[key]:
                yield (
                    f"{phase.title}: {_name(key)}: the client had {answered[key]} answers,"
                    f" the server counted {counted} (did somebody else use it?)"
                )
        for key, lost in sorted(phase.tape.lost.items()):
            yield f"{phase.title}: {_name(key)}: {lost} requests had no answer"
    for (route, tier), started in sorted(jobs.items()):
        counted = story.counted(REQUESTS, route=route, tier=tier)
        if counted != started:
            yield f"{route}: started {started} times, the server counted {counted}"


def _shown(run: Run) -> Iterator[str]:
    shown, answered = run.shown, run.story.answered()
    if answered.keys() != {row.key for row in shown}:
        yield "the routes and tiers that are shown are not those that were asked for"
    for row in shown:
        if row.requests != answered[row.key]:
            yield f"{_name(row.key)}: {row.requests} shown, {answered[row.key]} answered"
        if row.full + row.degraded + row.rejected + row.late != row.requests:
            yield (
                f"{_name(row.key)}: {row.full} in full, {row.degraded} degraded, {row.rejected}"
                f" rejected and {row.late} late do not make {row.requests}"
            )
        sent = smaller((phase.tape for phase in run.story.phases), row.key)
        if row.smaller != sent:
            yield f"{_name(row.key)}: {_told(row.smaller)} smaller shown, {_told(sent)} sent"


def _buckets(run: Run) -> Iterator[str]:
    story = run.story
    for row in run.shown:
        route, tier = row.key
        bound = str(row.limit_s)
        within = story.counted(f"{DURATION}_bucket", route=route, tier=tier, le=bound)
        every = story.counted(f"{DURATION}_bucket", route=route, tier=tier, le="+Inf")
        durations = story.counted(f"{DURATION}_count", route=route, tier=tier)
        if every != durations or durations != row.requests:
            yield f"{_name(row.key)}: {row.requests} requests, but {durations} durations ({every})"
        if durations - within != row.late:
            yield (
                f"{_name(row.key)}: {row.late} late, but {durations - within} durations above"
                f" le={bound}"
            )


def _violations(run: Run) -> Iterator[str]:
    story = run.story
    for key in sorted(story.final.keys()):
        for level, outcome in _LEVELS.items():
            violations = story.final.count(
                VIOLATIONS,
                violation_scope="request",
                route=key[0],
                tier=key[1],
                level=level,
            )
            outcomes = story.final.outcomes(key, (outcome,))
            if violations != outcomes:
                yield f"{_name(key)}: {violations} {level} violations, {outcomes} {outcome}"


def _overspends(run: Run) -> Iterator[str]:
    story = run.story
    for route in sorted({route for route, _ in story.answered()}):
        for stage in story.final.stages(route):
            series = {"route": route, "stage": stage}
            openings = story.counted(f"{STAGE_DURATION}_count", **series)
            bound = str(story.final.total(STAGE_LIMIT, **series, tier=TIGHT))
            within = story.counted(f"{STAGE_DURATION}_bucket", **series, le=bound)
            found = sum(overspends(phase.counted, **series) for phase in story.phases)
            # An allocation is for all openings of a request together: only where there is one
            # opening, it is the one that is over.
            single = openings <= story.counted(REQUESTS, route=route)
            above = openings - within
            # What a stage still does behind a smaller answer is measured and on nobody's bill.
            behind = story.counted(DEGRADED, route=route)
            if single and bound != "0" and not above - behind <= found <= above:
                yield f"{route} {stage}: {found} violations, {above} above le={bound}"


def _log(run: Run) -> Iterator[str]:
    story = run.story
    logged: dict[tuple[str, str, str, str], Counter[str]] = {}
    for line in story.log:
        names = fields(line)
        if names.get("event") in {"budget_exceeded", "budget_warning"}:
            kind = (
                names["scope"],
                names["route"],
                names.get("stage", ""),
                names.get("operation", ""),
            )
            levels = logged.setdefault(kind, Counter())
            levels[names["budget_level"]] += 1 + int(names["suppressed"])
    for (scope, route, stage, operation), levels in sorted(logged.items()):
        for level in _LEVELS:
            events = sum(levels[rung] for rung in _counting(scope, level))
            counted = sum(
                story.final.count(
                    VIOLATIONS,
                    violation_scope=scope,
                    route=route,
                    stage=stage,
                    level=rung,
                )
                for rung in _counting(scope, level)
            )
            # The last ones may still be suppressed, so there may be more than the log tells of.
            if events > counted:
                name = " ".join(filter(None, (stage or scope, operation)))
                yield f"{route} {name}: {events} {level} events logged, {counted} counted"


def _counting(scope: str, level: str) -> list[str]:
    """Return the rungs under which an event of *level* may have been counted.

    A request counts a stage once, with the highest rung of the stage and of its operations, and
    each of these has events of its own. So one of them has at most as many events at a rung and
    above as the stage has violations there.
    """
    rungs = list(_LEVELS)
    return [level] if scope == "request" else rungs[rungs.index(level) :]


def _degradations(run: Run) -> Iterator[str]:
    logged: Counter[tuple[str, str]] = Counter()
    for line in run.story.log:
        names = fields(line)
        if names.get("event") == "budget_degraded":
            logged[names["route"], names["answer"]] += 1 + int(names["suppressed"])
    for (route, answer), events in sorted(logged.items()):
        counted = run.story.final.count(DEGRADED, route=route, answer=answer)
        if events > counted:
            yield f"{route}: {events} {answer} answers logged, {counted} counted"


def _lines(runs: Sequence[Run], lines: Sequence[str]) -> Iterator[str]:
    logged = {line for run in runs for line in run.story.log}
    for line in lines:
        names = fields(line)
        over = float(names["actual_ms"]) - float(names["budget_ms"])
        in_time = names["event"] == "budget_degraded" and over <= 0
        if (
            line not in logged
            or not (over > 0 or in_time)
            or abs(max(0.0, over) - float(names["overage_ms"])) > _ROUNDING_MS
        ):
            yield f"this line is not one the servers logged, or does not add up: {line}"
    if len(lines) < _LINES:
        yield f"there are {len(lines)} lines to show"


def _times(run: Run) -> Iterator[str]:
    for phase in run.story.phases:
        for key, answers in sorted(phase.tape.counts().items()):
            server = phase.counted.total(f"{DURATION}_sum", route=key[0], tier=key[1])
            client = sum(phase.tape.times_s(key))
            if not 0 < server < client + _SLACK_S * answers:
                yield f"{phase.title}: {_name(key)}: {server:.3f} s served, {client:.3f} s waited"


def _errors(run: Run) -> Iterator[str]:
    story = run.story
    seen: Counter[Key] = Counter()
    for phase in story.phases:
        seen.update(phase.tape.errors())
    for key in sorted(story.answered()):
        counted = story.counted(ERRORS, route=key[0], tier=key[1])
        if counted != seen[key]:
            yield f"{_name(key)}: the client saw {seen[key]} errors, the server counted {counted}"
    faults = story.final.count(FAULTS)
    if faults:
        yield f"budgetware counted {faults} faults of its own"


def _told(answers: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {answer}" for answer, count in sorted(answers.items())) or "none"


def _name(key: Key) -> str:
    route, tier = key
    return route if route == JOB else f"{route} {tier}"
