"""What ``import budgetware`` adds to the start of an interpreter."""

from __future__ import annotations

import subprocess
import sys
from time import perf_counter
from typing import Any

from benchmarks.compare import Candidate, quietest, report


def starting(code: str) -> Candidate:
    """Return a new interpreter that runs *code*."""

    def run(_: int) -> float:
        before = perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return perf_counter() - before

    return Candidate(code, run, 1)


def measure(quick: bool) -> dict[str, Any]:  # noqa: FBT001 - the one switch there is
    """Return the values of this group's rows."""
    bare, ours, door = "pass", "import budgetware", "from budgetware import BudgetMiddleware"
    rounds, remark = quietest(
        [starting(bare), starting(ours), starting(door)],
        10 if quick else 25,
        lambda one: 1000 * one.added(ours, bare) <= 40,
    )
    with_door = 1000 * rounds.added(door, bare)
    note = f"BudgetMiddleware too: {with_door:.0f} ms"
    return {
        "rows": {
            "import": {
                "value": 1000 * rounds.added(ours, bare),
                "remark": f"{note}; {remark}" if remark else note,
            },
        },
        "details": rounds.figures(),
    }


if __name__ == "__main__":
    sys.exit(report(measure))
