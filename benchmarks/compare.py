"""Timing several things against each other on a machine that has other work to do.

The candidates take turns in many short rounds, so that whatever slows the machine down slows all
of them. Two figures are robust then: a candidate's least time, which is what it costs undisturbed,
and the median of the differences between two candidates of the same round.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


class CannotMeasureError(Exception):
    """A tool is missing; the text says how to get it."""


class WrongCountError(Exception):
    """What was counted is not what was run: the measurement means nothing."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something to time.

    Attributes:
        name: What the figures are called.
        run: Does it as often as it is told and returns the seconds that took.
        times: How often in a round.

    """

    name: str
    run: Callable[[int], float]
    times: int


@dataclass(slots=True)
class Rounds:
    """Seconds per operation, by candidate and round."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    def least(self, name: str) -> float:
        """Return what *name* takes undisturbed."""
        return min(self.seconds[name])

    def added(self, name: str, base: str) -> float:
        """Return what *name* takes beyond *base*, both undisturbed."""
        return self.least(name) - self.least(base)

    def added_usually(self, name: str, base: str) -> float:
        """Return the median of what *name* took beyond *base* in the same round."""
        pairs = zip(self.seconds[name], self.seconds[base], strict=True)
        return statistics.median(one - other for one, other in pairs)

    def ratio_usually(self, name: str, base: str) -> float:
        """Return the median of *name* over *base* in the same round."""
        pairs = zip(self.seconds[name], self.seconds[base], strict=True)
        return statistics.median(one / other for one, other in pairs)

    def unrest(self) -> float:
        """Return how far the rounds were from undisturbed: 1 is a quiet machine."""
        return statistics.fmean(
            statistics.median(values) / min(values) for values in self.seconds.values()
        )

    def figures(self) -> dict[str, dict[str, float]]:
        """Return the least and the median microseconds of each candidate."""
        return {
            name: {
                "least_us": round(1e6 * min(values), 3),
                "median_us": round(1e6 * statistics.median(values), 3),
            }
            for name, values in self.seconds.items()
        }


def take_turns(candidates: list[Candidate], rounds: int) -> Rounds:
    """Time *candidates* in turns, each round in the opposite order of the one before."""
    for candidate in candidates:
        candidate.run(candidate.times)
    gc.collect()
    gc.freeze()
    found = Rounds({candidate.name: [] for candidate in candidates})
    for index in range(rounds):
        for candidate in candidates if index % 2 else reversed(candidates):
            seconds = candidate.run(candidate.times) / candidate.times
            found.seconds[candidate.name].append(seconds)
    return found


def quietest(
    candidates: list[Candidate],
    rounds: int,
    good: Callable[[Rounds], bool],
    sets: int = 3,
) -> tuple[Rounds, str]:
    """Return a set of rounds that is *good*, or the one the machine disturbed least of several.

    Which set counts is decided by the rest of the machine, never by the ratio that is wanted.
    """
    taken: list[Rounds] = []
    while len(taken) < sets:
        taken.append(take_turns(candidates, rounds))
        if len(taken) == 1 and good(taken[0]):
            break
    best = min(taken, key=Rounds.unrest)
    remark = f"quietest of {len(taken)} sets" if len(taken) > 1 else ""
    return best, remark


def report(measure: Callable[[bool], Mapping[str, Any]]) -> int:
    """Print what *measure* finds as one line of JSON; the body of every group's ``main``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    try:
        found = measure(options.quick)
    except CannotMeasureError as error:
        found = {"unmeasured": str(error)}
    except WrongCountError as error:
        found = {"failed": str(error)}
    json.dump(found, sys.stdout)
    print()
    return 0
