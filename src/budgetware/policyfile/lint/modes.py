"""May the policy be acted on? This release measures; it does not decide yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from budgetware._core.policy import Mode, Policy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from budgetware.policyfile.findings import Path
    from budgetware.policyfile.lint.case import Case


def _modes(policy: Policy) -> Iterator[tuple[Path, Mode | None]]:
    yield ("mode",), policy.mode
    for name, tier in policy.tiers.items():
        yield ("tiers", name, "mode"), tier.mode
    for name, route in policy.routes.items():
        yield ("routes", name, "mode"), route.mode


def _acting_modes(case: Case) -> None:
    """Refuse modes that promise more than this release does."""
    for path, mode in _modes(case.policy):
        if mode not in {None, Mode.OBSERVE}:
            case.found.report(
                "mode-not-available",
                f"`mode: {mode}` is not available: this release only observes",
                "write `mode: observe` until a release can act",
                path=path,
            )


RULES = (_acting_modes,)
