"""What is promised to one request, and which line of the file says so."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from budgetware._core.policy import UNMATCHED
from budgetware._core.routes import RouteTable
from budgetware.policyfile import render
from budgetware.policyfile.findings import dotted
from budgetware.policyfile.marks import limit_path, tiers_of
from budgetware.policyfile.pending import CODE
from budgetware.policyfile.spending import Spending, table
from budgetware.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from budgetware._core.policy import Match, Policy, Route
    from budgetware.errors import Problem
    from budgetware.policyfile.document import Document
    from budgetware.policyfile.findings import Path
    from budgetware.policyfile.spending import Item


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What one route promises one tier.

    Attributes:
        tier: The tier's name, ``None`` where there is none.
        limit_s: The budget in seconds, ``inf`` when nothing is promised.
        mode: How far budgetware may go for this tier.
        origin: The path of the entry that sets it; empty when nothing does.
        line: That entry's line, 0 when nothing sets it.
        outranked: Entries that would set a budget if this one did not, with their lines.
        items: Who plans to use what.
        used_s: All of that together, in seconds.
        left_s: Seconds nobody plans with.

    """

    tier: str | None
    limit_s: float
    mode: str
    origin: str
    line: int
    outranked: tuple[tuple[str, float, int], ...]
    items: tuple[Item, ...]
    used_s: float
    left_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What is promised to one request or job.

    Attributes:
        asked: The request or the job.
        route: The route's name, ``_unmatched`` for requests no route matches.
        template: What matched, as written; empty for jobs and unmatched requests.
        line: Where the route or its match is written, 0 when it is not.
        mode: How far budgetware may go for tiers with no mode of their own.
        clock: Which byte ends the budget.
        promises: By tier, in the file's order.

    """

    asked: str
    route: str
    template: str
    line: int
    mode: str
    clock: str
    promises: tuple[Promise, ...]


def explain_request(
    document: Document, method: str, path: str, tier: str | None = None
) -> Explanation:
    """Return what ``method path`` is promised, for every tier or for *tier* only.

    Raises:
        PolicyError: The document has no policy.

    """
    policy = document.require()
    entries = (
        (match, (route, index, match))
        for route in policy.routes.values()
        for index, match in enumerate(route.match)
    )
    plain_path = path.partition("?")[0].partition("#")[0]
    found: tuple[Route, int, Match] | None = RouteTable(entries).find(method, plain_path)
    asked = f"{method} {plain_path}"
    if found is None:
        return _explained(document, policy, None, asked, tier=tier)
    route, index, match = found
    entry: Path = ("routes", route.name, "match")
    if document.marks.has(*entry, index):
        entry = (*entry, index)
    template = f"{match.method} {match.template}"
    return _explained(document, policy, route, asked, template=template, entry=entry, tier=tier)


def explain_route(document: Document, name: str, tier: str | None = None) -> Explanation:
    """Return what the route or job called *name* promises.

    Raises:
        PolicyError: The document has no policy.
        KeyError: There is no such route.

    """
    policy = document.require()
    route = policy.routes[name]
    return _explained(document, policy, route, name, entry=("routes", name), tier=tier)


def _explained(  # noqa: PLR0913 - parts of one answer
    document: Document,
    policy: Policy,
    route: Route | None,
    asked: str,
    *,
    template: str = "",
    entry: Path = (),
    tier: str | None,
) -> Explanation:
    tiers = tiers_of(policy, route) if tier is None else [tier]
    of_route = None if route is None else route.mode
    return Explanation(
        asked=asked,
        route=UNMATCHED if route is None else route.name,
        template=template,
        line=document.marks.span(*entry).line if entry else 0,
        mode=of_route or policy.mode,
        clock=policy.plan(route, None).clock,
        promises=tuple(_promise(document, policy, route, name) for name in tiers),
    )


def _promise(document: Document, policy: Policy, route: Route | None, tier: str | None) -> Promise:
    spending = Spending.of(policy, route, tier)
    origin = limit_path(policy, route, tier)
    candidates: list[tuple[Path, float | None]] = []
    if route is not None:
        candidates.append((("routes", route.name, "budget"), route.budget))
    if tier is not None and tier in policy.tiers:
        candidates.append((("tiers", tier, "budget"), policy.tiers[tier].budget))
    return Promise(
        tier=tier,
        limit_s=spending.plan.limit_s,
        mode=policy.mode_of(route, tier),
        origin=dotted(origin or ()),
        line=document.marks.span(*origin).line if origin else 0,
        outranked=tuple(
            (dotted(path), seconds, document.marks.span(*path).line)
            for path, seconds in candidates
            if seconds is not None and path != origin
        ),
        items=tuple(spending.items(policy, document.marks, route)),
        used_s=spending.used_s,
        left_s=spending.left_s,
    )


def as_text(explanation: Explanation, file: str) -> str:
    """Return the explanation for people; *file* is where the lines are."""
    rows = [explanation.asked]
    if explanation.template:
        rows.append(
            f"  route {explanation.route}: {explanation.template}  ({file}:{explanation.line})"
        )
    elif explanation.line:
        rows.append(f"  {explanation.route}  ({file}:{explanation.line})")
    else:
        rows.append(f"  {explanation.route}: no route matches; tiers and inherited stages apply")
    rows.append(f"  mode {explanation.mode}, clock {explanation.clock}")
    for promise in explanation.promises:
        rows += ["", *_promise_rows(promise, explanation.mode)]
    return "\n".join(rows)


def _promise_rows(promise: Promise, mode: str) -> list[str]:
    who = f"tier {promise.tier}" if promise.tier else "every caller"
    if promise.limit_s < inf:
        limit = format_duration(promise.limit_s)
        rows = [f"  {who}: {limit}, from {promise.origin} (line {promise.line})"]
    else:
        rows = [f"  {who}: no budget, only measured"]
    if promise.mode != mode:
        rows.append(f"    mode {promise.mode}")
    rows += [
        f"    not in force: {format_duration(seconds)} from {path} (line {line})"
        for path, seconds, line in promise.outranked
    ]
    lines = [(item.name, _amount(item.seconds), _remark(item)) for item in promise.items]
    if lines:
        lines.append(("sum", format_duration(promise.used_s), ""))
    if promise.limit_s < inf:
        lines.append(("unallocated", format_duration(promise.left_s), ""))
    return rows + [f"    {line}" for line in table(lines).split("\n") if lines]


def _amount(seconds: float) -> str:
    return format_duration(seconds) if seconds < inf else "-"


def _remark(item: Item) -> str:
    remarks = [f"line {item.line}"]
    if item.inherited:
        remarks.append("inherited")
    if item.optional:
        remarks.append("optional")
    if item.seconds == inf:
        remarks.append("only measured")
    return ", ".join(remarks)


def as_json(explanations: Sequence[Explanation], document: Document) -> str:
    """Return explanations as one JSON object; durations are seconds, ``null`` for no limit."""
    content = {
        "file": document.file,
        "requests": [_plain(explanation) for explanation in explanations],
        "notes": [render.plain(problem) for problem in _waiting(document)],
    }
    return json.dumps(content, indent=2, ensure_ascii=False)


def remarks(document: Document) -> list[str]:
    """Return one line for each key of the file that nothing acts on yet."""
    return [
        f"note: {problem.message}  ({render.name_of(document)}:{problem.line})"
        for problem in _waiting(document)
    ]


def _waiting(document: Document) -> list[Problem]:
    return [problem for problem in document.problems if problem.code == CODE]


def _plain(explanation: Explanation) -> dict[str, object]:
    return {
        "asked": explanation.asked,
        "route": explanation.route,
        "match": explanation.template or None,
        "line": explanation.line or None,
        "mode": explanation.mode,
        "clock": explanation.clock,
        "tiers": [
            {
                "tier": promise.tier,
                "mode": promise.mode,
                "budget_s": _finite(promise.limit_s),
                "from": promise.origin or None,
                "line": promise.line or None,
                "not_in_force": [
                    {"from": path, "budget_s": seconds, "line": line}
                    for path, seconds, line in promise.outranked
                ],
                "stages": [
                    {
                        "name": item.name,
                        "budget_s": _finite(item.seconds),
                        "line": item.line,
                        "inherited": item.inherited,
                        "optional": item.optional,
                    }
                    for item in promise.items
                ],
                "planned_s": _rounded(promise.used_s),
                "unallocated_s": _rounded(promise.left_s),
            }
            for promise in explanation.promises
        ],
    }


def _finite(seconds: float) -> float | None:
    return seconds if seconds < inf else None


def _rounded(seconds: float) -> float | None:
    """Return *seconds* to the nanosecond, so that sums read as what was added."""
    return round(seconds, 9) if seconds < inf else None
