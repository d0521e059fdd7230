"""Plays many worlds on all processors, and says which do not hold and what they have met."""

from __future__ import annotations

import gc
import multiprocessing
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from simulation.play import play

CHUNK: Final = 50

ENOUGH: Final = 5000
"""With so many seeds, whatever a simulation is for has to be met."""

TO_BE_MET: Final = (
    "requests",
    "full responses",
    "partial responses",
    "cached responses",
    "fallback responses",
    "static responses",
    "reject responses",
    "torn responses",
    "requests that ask for less",
    "requests the server cancels",
    "clients that leave",
    "clients that leave a thread",
    "workers that are told to exit",
    "bodies whose close fails",
    "applications that fail",
    "sends that raise",
    "sends that raise when called",
    "queued in enforce",
    "admitted in enforce",
    "expired in enforce",
    "refused in enforce",
    "rate in enforce",
    "rate in shadow",
    "slots that are lent",
    "reloads",
    "forks",
    "responses found in a redis",
    "a redis that is slow",
    "a redis that is silent",
    "a redis that is gone",
    "a redis that is flushed",
    "a redis that is hostile",
)


@dataclass(slots=True)
class Found:
    """What came of some worlds.

    Attributes:
        worlds: How many there were.
        failed: The seed of each in which something did not hold, and the first thing.
        met: How often what was met that a simulation is for.

    """

    worlds: int = 0
    failed: list[tuple[int, str]] = field(default_factory=list)
    met: Counter[str] = field(default_factory=Counter)

    @property
    def never_met(self) -> list[str]:
        """What should have been met in so many worlds, and was not."""
        if self.worlds < ENOUGH:
            return []
        return [what for what in TO_BE_MET if not self.met[what]]


def play_all(seeds: range, processes: int) -> Found:
    """Play the worlds of *seeds*, so many at once."""
    chunks = [seeds[at : at + CHUNK] for at in range(0, len(seeds), CHUNK)]
    all_found = Found()
    # Not forked: a world forks by itself, and is to be the only one there is.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, _prepare) as pool:
        for found in pool.map(play_some, chunks):
            all_found.worlds += found.worlds
            all_found.failed += found.failed
            all_found.met += found.met
    return all_found


def _prepare() -> None:
    # What is here by now stays, and need not be looked through after every world.
    gc.collect()
    gc.freeze()


def play_some(seeds: range) -> Found:
    """Play the worlds of *seeds* in this process."""
    found = Found(worlds=len(seeds))
    for seed in seeds:
        verdict = play(seed)
        found.met.update(verdict.met)
        if verdict.broken:
            found.failed.append((seed, verdict.broken[0]))
        gc.collect()
    return found
