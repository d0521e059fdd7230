"""Instructions instead of seconds: nearly the same every time, whatever else the machine does.

Each application serves two numbers of requests; the difference has no start-up in it. Where
things lie in memory still decides which of them meet in the interpreter's caches, so the median of
several runs counts, each with another seed for the hashes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.compare import CannotMeasureError, WrongCountError, report

ROOT = Path(__file__).resolve().parent.parent
FEW, MANY = 256, 1536
"""Multiples of the 128 requests after which a lane sorts its durations into buckets."""

_COLLECTED: Final = re.compile(r"==(\d+)== Collected : (\d+)")


def instructions_per_request(seed: int) -> dict[str, float]:
    """Return the instructions of one request by application; *seed* is that of hashes."""
    done = subprocess.run(
        [
            *("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"),
            *(sys.executable, "-m", "benchmarks.callgrind_target", str(FEW), str(MANY)),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": str(seed)},
        capture_output=True,
        text=True,
        check=False,
    )
    collected = {pid: int(count) for pid, count in _COLLECTED.findall(done.stderr)}
    totals: dict[str, dict[int, int]] = {}
    for line in done.stdout.splitlines():
        pid, name, requests = line.split()
        totals.setdefault(name, {})[int(requests)] = collected.get(pid, 0)
    if done.returncode or not totals:
        raise WrongCountError(f"under valgrind: {done.stderr[-600:]}")
    return {name: (total[MANY] - total[FEW]) / (MANY - FEW) for name, total in totals.items()}


def measure(quick: bool) -> dict[str, Any]:  # noqa: FBT001 - the one switch there is
    """Return the values of this group's rows."""
    if shutil.which("valgrind") is None:
        raise CannotMeasureError("valgrind is not installed: apt-get install valgrind")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = list(pool.map(instructions_per_request, range(1 if quick else 3)))
    eight = [(run["eight"] - run["bare"]) / (run["floor8"] - run["bare"]) for run in runs]
    zero = [run["zero"] / run["bare"] for run in runs]
    added = {name: median(run[name] - run["bare"] for run in runs) for name in runs[0]}
    span = f"{min(eight):.2f} to {max(eight):.2f}; " if len(eight) > 1 else ""
    return {
        "rows": {
            "callgrind-8": {
                "value": median(eight),
                "remark": f"{span}{added['eight']:.0f} / {added['floor8']:.0f} instructions",
            },
            "callgrind-0": {
                "value": median(zero),
                "remark": f"{added['zero']:.0f} instructions added",
            },
        },
        "details": {"runs": runs},
    }


if __name__ == "__main__":
    sys.exit(report(measure))
