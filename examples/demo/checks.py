"""Is what is shown true? The client's counts, the server's counters, buckets and log must agree.

Each check compares two figures that came about in different ways. Whatever differs is spelled
out, and the demo fails.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from examples.demo.scrape import (
    DURATION,
    ERRORS,
    FAULTS,
    IN_TIME,
    LATE,
    REQUESTS,
    STAGE_DURATION,
    STAGE_LIMIT,
    VIOLATIONS,
    Key,
    Scrape,
)
from examples.demo.story import JOB, TIGHT, Row, Story, fields, overspends

_LEVELS = {"warning": "warning", "critical": "exceeded", "breach": "breached"}
_UNMATCHED = "_unmatched"
_SLACK_S = 0.001
_ROUNDING_MS = 0.0021


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison.

    Attributes:
        claim: What is to be true.
        problems: Where it is not.

    """

    claim: str
    problems: tuple[str, ...] = ()


def check(story: Story, shown: Sequence[Row], lines: Sequence[str]) -> list[Check]:
    """Compare what is *shown*, figures and log *lines*, with what the server says."""
    answers, late = sum(story.answered().values()), sum(row.late for row in shown)
    return [
        Check(
            f"{answers:,} answers the client had = {sum(row.requests for row in shown):,} the"
            " server counted, by phase, route and tier",
            (*_answers(story), *_shown(story, shown)),
        ),
        Check(
            f"{late:,} late answers by the counters = those above the budget in the histograms",
            tuple(_buckets(story, shown)),
        ),
        Check("violation counters = outcomes of the requests", tuple(_violations(story))),
        Check("stage violations = openings above the allocation", tuple(_overspends(story))),
        Check("log lines stand for counted violations", (*_log(story), *_lines(story, lines))),
        Check("the server's times fit into the client's", tuple(_times(story))),
        Check("errors as the client saw them, and no fault of budgetware", tuple(_errors(story))),
        Check(_lateness(story), tuple(_slow_phase(story))),
    ]


def late_share(counted: Scrape, tier: str) -> tuple[int, int]:
    """Return how many of how many requests of *tier* were late, those of no route left out."""
    keys = [key for key in counted.keys() if key[1] == tier and key[0] != _UNMATCHED]  # noqa: SIM118
    late = sum(counted.outcomes(key, LATE) for key in keys)
    return late, late + sum(counted.outcomes(key, IN_TIME) for key in keys)


def _answers(story: Story) -> Iterator[str]:
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
        if phase.tape.withheld:
            yield f"{phase.title}: {phase.tape.withheld} requests were not sent, too many were open"
    for (route, tier), started in sorted(jobs.items()):
        counted = story.counted(REQUESTS, route=route, tier=tier)
        if counted != started:
            yield f"{route}: started {started} times, the server counted {counted}"


def _shown(story: Story, shown: Sequence[Row]) -> Iterator[str]:
    answered = story.answered()
    if answered.keys() != {row.key for row in shown}:
        yield "the routes and tiers that are shown are not those that were asked for"
    for row in shown:
        if row.requests != answered[row.key]:
            yield f"{_name(row.key)}: {row.requests} shown, {answered[row.key]} answered"
        if row.in_time + row.late != row.requests:
            yield (
                f"{_name(row.key)}: {row.in_time} in time and {row.late} late"
                f" do not make {row.requests}"
            )


def _buckets(story: Story, shown: Sequence[Row]) -> Iterator[str]:
    for row in shown:
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


def _violations(story: Story) -> Iterator[str]:
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


def _overspends(story: Story) -> Iterator[str]:
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
            if single and bound != "0" and found != openings - within:
                yield f"{route} {stage}: {found} violations, {openings - within} above le={bound}"


def _log(story: Story) -> Iterator[str]:
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


def _lines(story: Story, lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        names = fields(line)
        over = float(names["actual_ms"]) - float(names["budget_ms"])
        if (
            line not in story.log
            or over <= 0
            or abs(over - float(names["overage_ms"])) > _ROUNDING_MS
        ):
            yield f"this line is not one the server logged, or does not add up: {line}"
    if len(lines) < len(story.phases):
        yield f"there are {len(lines)} violation lines to show"


def _times(story: Story) -> Iterator[str]:
    for phase in story.phases:
        for key, answers in sorted(phase.tape.counts().items()):
            server = phase.counted.total(f"{DURATION}_sum", route=key[0], tier=key[1])
            client = sum(phase.tape.times_s(key))
            if not 0 < server < client + _SLACK_S * answers:
                yield f"{phase.title}: {_name(key)}: {server:.3f} s served, {client:.3f} s waited"


def _errors(story: Story) -> Iterator[str]:
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


def _lateness(story: Story) -> str:
    shares = [late_share(phase.counted, TIGHT) for phase in story.phases]
    told = " → ".join(f"{100 * late / all_:.0f} %" if all_ else "-" for late, all_ in shares)
    return f"{TIGHT} was late most often while the database was slow: {told}"


def _slow_phase(story: Story) -> Iterator[str]:
    late, requests = late_share(story.during.counted, TIGHT)
    if not late:
        yield f"no {TIGHT} request was late while the database was slow"
    for phase in (story.before, story.after):
        other_late, others = late_share(phase.counted, TIGHT)
        if not others or not requests or late / requests <= other_late / others:
            yield f"{phase.title}: {other_late} of {others} late, slow: {late} of {requests}"


def _name(key: Key) -> str:
    route, tier = key
    return route if route == JOB else f"{route} {tier}"
