"""The smaller answers: are they there, and in an order that makes sense."""

from __future__ import annotations

from typing import TYPE_CHECKING

from budgetware._core.policy import Mode
from budgetware.http import ACCEPTED, SAFE_METHODS
from budgetware.policyfile.marks import tiers_of
from budgetware.units import LARGEST_BYTES, format_size, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from budgetware._core.policy import CachePolicy
    from budgetware.policyfile.findings import Path
    from budgetware.policyfile.lint.case import Case

_SUCH_AS = "`cache: {fresh: 1s, stale: 60s, vary: [identity]}`"
_OF_RESPONSES = ("clock", "answers", "cache", "cancel_safe", "timer")


def _order(case: Case) -> None:
    """Find answers listed twice, and answers after the rejection."""
    for name, route in case.policy.routes.items():
        before: set[str] = set()
        for index, answer in enumerate(route.answers):
            path = ("routes", name, "answers", index)
            if answer in before:
                message = f"the answer {shown(answer)} is listed twice"
                case.found.report(
                    "duplicate-answer", message, "keep the first", path=path, severity="warning"
                )
            elif "reject" in before:
                message = f"the answer {shown(answer)} is never used: a rejection comes before it"
                case.found.report(
                    "answer-after-reject",
                    message,
                    "put `reject` last",
                    path=path,
                    severity="warning",
                )
            before.add(answer)


def _material(case: Case) -> None:
    """Ask for something stored where `cached` is, and for answers where `degraded` is."""
    for name, route in case.policy.routes.items():
        if not case.marks.intact("routes", name):
            continue
        if "cached" in route.answers and (lack := _lack(route.cache)):
            path: Path = ("routes", name, "answers", route.answers.index("cached"))
            message = f"there is never a stored answer: {lack}"
            hint = "write one that keeps some, such as " + _SUCH_AS
            case.found.report("cached-without-cache", message, hint, path=path, severity="warning")
        if route.objectives and route.objectives.degraded is not None and not route.answers:
            path = ("routes", name, "objectives", "degraded")
            message = "nothing can be degraded: the route has no `answers`"
            hint = "add some, such as `answers: [cached, reject]`, or remove the objective"
            case.found.report(
                "degraded-without-answers", message, hint, path=path, severity="warning"
            )


def _shared(case: Case) -> None:
    """Find routes that answer everybody alike, and each caller by itself."""
    for name, route in case.policy.routes.items():
        cache = route.cache
        if cache is None or not (cache.public and "identity" in map(str.lower, cache.vary)):
            continue
        if case.marks.intact("routes", name):
            case.found.report(
                "public-and-identity",
                "`public` says that answers are the same for everybody, `vary: [identity]` that "
                "they are each caller's own",
                "remove one of them; without `public` an answer is never sent to another caller",
                path=("routes", name, "cache", "public"),
            )


def _accepted(case: Case) -> None:
    """Find routes whose clock answers for running writes, and has nothing true to say of them."""
    for name, route in case.policy.routes.items():
        if not (route.times_unsafe and route.match) or not case.marks.intact("routes", name):
            continue
        static, wrong = route.static, ""
        if static is None or static.status != ACCEPTED:
            wrong = "lists no `static` answer with status 202"
        elif any(header.lower() == "retry-after" for header in static.headers):
            wrong = "has a `retry-after` in its answer"
        if wrong:
            case.found.report(
                "timer-without-accepted",
                f"the route {wrong}, and whoever is told to come back while the work goes on has "
                "it done twice",
                'write `answers: [{static: {status: 202, body: "it will be done"}}]`',
                path=("routes", name, "timer"),
            )


def _left_alone(case: Case) -> None:
    """Note routes for writes that are enforced: the clock does not answer for them."""
    for name, route in case.policy.routes.items():
        unsafe = sorted({match.method for match in route.match} - SAFE_METHODS - {"*"})
        if not unsafe or not route.answers or route.times_unsafe:
            continue
        modes = {case.policy.mode_of(route, tier) for tier in tiers_of(case.policy, route)}
        if Mode.ENFORCE in modes and case.marks.intact("routes", name):
            case.found.report(
                "timer-leaves-alone",
                f"the clock does not answer for {' and '.join(unsafe)} once the work has begun: a "
                "client that is told to come back while its transaction commits pays twice",
                "fine as it is; or `timer: unsafe`, with a `static` answer of status 202",
                path=("routes", name, "answers"),
                severity="note",
            )


def _timed(case: Case) -> None:
    """Note routes that ask for what the clock does only where asyncio runs the application."""
    for name, route in case.policy.routes.items():
        key = "cancel_safe" if route.cancel_safe else "timer"
        asks = route.cancel_safe or (route.times_unsafe and route.static is not None)
        if asks and route.match and route.answers and case.marks.intact("routes", name):
            case.found.report(
                "timer-needs-asyncio",
                f"`{key}` is the clock's, which answers and cancels where asyncio runs the "
                "application: not on a trio loop, and not under WSGI",
                "fine under uvicorn and hypercorn as they come",
                path=("routes", name, key),
                severity="note",
            )


def _cancelled(case: Case) -> None:
    """Find work that may be cancelled when the clock answers, where it has nothing to send."""
    for name, route in case.policy.routes.items():
        if not (route.cancel_safe and route.match) or route.answers:
            continue
        if case.marks.intact("routes", name):
            case.found.report(
                "cancel-without-answers",
                "nothing is ever cancelled: the route has no `answers` to send in its place",
                "add some, such as `answers: [cached, reject]`, or remove `cancel_safe`",
                path=("routes", name, "cancel_safe"),
                severity="warning",
            )


def _overruns(case: Case) -> None:
    """Find stages that are to answer on routes that have nothing to send.

    A default of the file may well be meant for some of the routes, so it has to be in vain on all.
    """
    inherited = [name for name, stage in case.policy.stages.items() if stage.answers]
    in_vain = dict.fromkeys(inherited, case.marks.intact("routes") and case.marks.intact("stages"))
    for name, route in case.policy.routes.items():
        for stage_name, stage in route.stages.items():
            path: Path = ("routes", name, "stages", stage_name, "on_overrun")
            if not stage.answers:
                continue
            if not case.marks.has(*path):
                in_vain[stage_name] = in_vain[stage_name] and not route.answers
            elif not route.answers and case.marks.intact("routes", name):
                _report_overrun(case, path, f"route {shown(name)} has no `answers`")
    for stage_name, vain in in_vain.items():
        if vain:
            path = ("stages", stage_name, "on_overrun")
            _report_overrun(case, path, "no route that has the stage has `answers`")


def _report_overrun(case: Case, path: Path, why: str) -> None:
    case.found.report(
        "overrun-without-answers",
        f"the stage has nothing to answer with: {why}",
        "add some, such as `answers: [cached, reject]`, or remove `on_overrun`",
        path=path,
        severity="warning",
    )


def _lack(cache: CachePolicy | None) -> str:
    """Return why nothing is ever stored, empty when something may be."""
    if cache is None:
        return "the route has no `cache`"
    return "" if cache.fresh or cache.stale else "its `cache` keeps none, fresh or stale"


def _jobs(case: Case) -> None:
    """Find what is said about the response of a job, which sends none."""
    for name, route in case.policy.routes.items():
        if route.match or not case.marks.intact("routes", name):
            continue
        for key in _OF_RESPONSES:
            if case.marks.has("routes", name, key):
                message = f"`{key}` is about responses, and without `match` this is a job"
                hint = f"add `match`, or remove `{key}`"
                case.found.report(
                    "job-with-response",
                    message,
                    hint,
                    path=("routes", name, key),
                    severity="warning",
                )


def _assets(case: Case) -> None:
    """Find one kind of asset that is allowed more than all of them together."""
    assets: Mapping[str, int] = case.policy.checks.get("assets", {})  # type: ignore[assignment]
    total = assets.get("total", LARGEST_BYTES)
    for pattern, size in assets.items():
        if size > total:
            case.found.report(
                "asset-over-total",
                f"{shown(pattern)} may have {format_size(size)}, all together {format_size(total)}",
                "raise the total, or lower this one",
                path=("checks", "assets", pattern),
            )


RULES = (
    _order,
    _material,
    _shared,
    _accepted,
    _left_alone,
    _timed,
    _cancelled,
    _overruns,
    _jobs,
    _assets,
)
