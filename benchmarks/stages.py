"""One stage against the cheapest timer: inside a request and outside of any."""

from __future__ import annotations

import sys
from time import perf_counter
from typing import Any

from benchmarks.compare import Candidate, Rounds, WrongCountError, quietest, report
from benchmarks.floor import Floor, FloorPerUse
from benchmarks.telemetry import Telemetry

from budgetware import budget
from budgetware.runtime import Runtime

TIMES = 200
"""Below the 256 stages after which a budget settles the older ones."""


def looping(times: int) -> float:
    """Return the seconds of a loop around nothing."""
    turns = range(times)
    before = perf_counter()
    for _ in turns:
        pass
    return perf_counter() - before


def floor(times: int) -> float:
    """Return the seconds of *times* uses of one timer."""
    timer = Floor()
    turns = range(times)
    before = perf_counter()
    for _ in turns:
        with timer:
            pass
    return perf_counter() - before


def floor_per_use(times: int) -> float:
    """Return the seconds of *times* timers."""
    kept: list[int] = []
    turns = range(times)
    before = perf_counter()
    for _ in turns:
        with FloorPerUse(kept):
            pass
    return perf_counter() - before


def outside(times: int) -> float:
    """Return the seconds of *times* stages where no budget is open."""
    turns = range(times)
    before = perf_counter()
    for _ in turns:
        with budget.stage("db"):
            pass
    return perf_counter() - before


class Inside:
    """Times stages in budgets of their own, and counts them."""

    def __init__(self) -> None:
        self.budgets = 0
        self.stages = 0

    def __call__(self, times: int) -> float:
        """Return the seconds of *times* stages in an open budget."""
        self.budgets += 1
        self.stages += times
        turns = range(times)
        with budget.open("hello"):
            before = perf_counter()
            for _ in turns:
                with budget.stage("db"):
                    pass
            return perf_counter() - before


def ratio(rounds: Rounds, name: str) -> float:
    """Return *name* over FLOOR, both without the loop around them."""
    return rounds.added(name, "loop") / rounds.added("floor", "loop")


def measure(quick: bool) -> dict[str, Any]:  # noqa: FBT001 - the one switch there is
    """Return the values of this group's rows."""
    telemetry = Telemetry()
    Runtime.start(**telemetry.options)
    inside = Inside()
    candidates = [
        Candidate("loop", looping, TIMES),
        Candidate("floor", floor, TIMES),
        Candidate("floor_per_use", floor_per_use, TIMES),
        Candidate("stage", inside, TIMES),
        Candidate("outside", outside, TIMES),
    ]
    rounds, remark = quietest(
        candidates,
        1000 if quick else 4000,
        lambda one: ratio(one, "stage") <= 1.5 and ratio(one, "outside") <= 1.2,
    )
    counts = telemetry.counts()
    if counts != {"": inside.budgets, "db": inside.stages}:
        raise WrongCountError(f"exported {counts}; ran {inside.stages} stages")
    floor_ns = 1e9 * rounds.added("floor", "loop")
    note = f"FLOOR {floor_ns:.0f} ns; FLOOR-ALLOC {ratio(rounds, 'floor_per_use'):.2f}"
    return {
        "rows": {
            "stage": {"value": ratio(rounds, "stage"), "remark": note},
            "stage-outside": {"value": ratio(rounds, "outside"), "remark": remark},
        },
        "details": rounds.figures(),
    }


if __name__ == "__main__":
    sys.exit(report(measure))
