"""Plays many worlds, on all processors, or one with everything that happens in it.

``python -m simulation --seeds 20000``; ``python -m simulation --seed 4711``.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from typing import Final

from simulation.many import TO_BE_MET, play_all
from simulation.play import play

MOST_SHOWN: Final = 10
"""Seeds that are shown when more than these fail."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Play what the command line asks for; return 1 if anything did not hold."""
    parser = argparse.ArgumentParser(prog="simulation", description=__doc__)
    parser.add_argument("--seeds", type=count, default=1000, help="how many worlds are played")
    parser.add_argument("--first", type=int, default=0, help="the first seed of them")
    parser.add_argument("--seed", type=int, help="the one world that is played and shown")
    parser.add_argument("--processes", type=count, default=os.cpu_count(), help="how many at once")
    chosen = parser.parse_args(arguments)
    if chosen.seed is not None:
        return _show(chosen.seed)
    return _play(range(chosen.first, chosen.first + chosen.seeds), chosen.processes)


def count(text: str) -> int:
    """Return how many *text* says: none would be no test, and pass."""
    if (found := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"at least 1, not {found}")
    return found


def _show(seed: int) -> int:
    verdict = play(seed)
    for event in verdict.trace:
        print(event)
    for broken in verdict.broken:
        print(f"seed {seed}: {broken}")
    if not verdict.broken:
        print(f"seed {seed}: everything holds")
    return bool(verdict.broken)


def _play(seeds: range, processes: int) -> int:
    began_s = time.monotonic()
    found = play_all(seeds, processes)
    took_s = time.monotonic() - began_s
    for what in TO_BE_MET:
        print(f"{found.met[what]:9,}  {what}")
    print(f"\n{found.worlds:,} worlds in {took_s:.0f} s, {processes} at once")
    for seed, what in found.failed[:MOST_SHOWN]:
        print(f"\nseed {seed}: {what}\n    make simulate SEED={seed}")
    if found.failed:
        print(f"\nIn {len(found.failed):,} worlds something does not hold.")
    if found.never_met:
        print(f"\nNever met: {', '.join(found.never_met)}.")
    return bool(found.failed or found.never_met)


if __name__ == "__main__":
    sys.exit(main())
