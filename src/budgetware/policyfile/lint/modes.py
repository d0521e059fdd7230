"""May anything be decided? What is enforced should have something to fall back on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from budgetware._core.policy import Mode
from budgetware.policyfile.marks import tiers_of
from budgetware.units import shown

if TYPE_CHECKING:
    from budgetware._core.policy import Policy, Route
    from budgetware.policyfile.findings import Path
    from budgetware.policyfile.lint.case import Case

_MOST_NAMED: Final = 5


def _without_answers(case: Case) -> None:
    """Find routes that are enforced and list no smaller answer; one note for each mode's place."""
    bare: dict[Path, list[str]] = {}
    for name, route in case.policy.routes.items():
        if route.match and not route.answers and case.marks.intact("routes", name):
            for path in _enforcing(case.policy, route):
                bare.setdefault(path, []).append(name)
    for path, names in bare.items():
        if not case.marks.intact(*path):
            continue
        rest = len(names) - _MOST_NAMED
        listed = ", ".join(shown(name) for name in names[:_MOST_NAMED])
        more = f" and {rest} more" if rest > 0 else ""
        case.found.report(
            "enforce-without-answers",
            f"`mode: enforce` has only the stages' own fallbacks to act with: "
            f"no `answers` on {listed}{more}",
            "fine where stages have some; else list answers, such as `[fallback, reject]`",
            path=path,
            severity="note",
        )


def _enforcing(policy: Policy, route: Route) -> list[Path]:
    """Return the entries that have *route* enforced for some tier."""
    places: dict[Path, None] = {}
    for name in tiers_of(policy, route):
        if policy.mode_of(route, name) is not Mode.ENFORCE:
            continue
        if route.mode is not None:
            places["routes", route.name, "mode"] = None
        elif name is not None and policy.tiers[name].mode is not None:
            places["tiers", name, "mode"] = None
        else:
            places["mode",] = None
    return list(places)


RULES = (_without_answers,)
