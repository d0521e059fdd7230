"""Instructions instead of seconds: the same number every time, whatever else the machine does.

Each application serves two numbers of requests; the difference has no start-up in it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from benchmarks.compare import CannotMeasureError, WrongCountError, report

ROOT = Path(__file__).resolve().parent.parent
FEW, MANY = 256, 1536
"""Multiples of the 128 requests after which a lane sorts its durations into buckets."""

_COLLECTED: Final = re.compile(r"==(\d+)== Collected : (\d+)")


def instructions_per_request() -> dict[str, float]:
    """Return the instructions of one request by application."""
    done = subprocess.run(
        [
            *("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"),
            *(sys.executable, "-m", "benchmarks.callgrind_target", str(FEW), str(MANY)),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
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


def measure(quick: bool) -> dict[str, Any]:  # noqa: ARG001, FBT001 - as short as it can be
    """Return the values of this group's rows."""
    if shutil.which("valgrind") is None:
        raise CannotMeasureError("valgrind is not installed: apt-get install valgrind")
    each = instructions_per_request()
    bare = each["bare"]
    floor8 = each["floor8"] - bare
    eight, zero = each["eight"] - bare, each["zero"] - bare
    return {
        "rows": {
            "callgrind-8": {
                "value": eight / floor8,
                "remark": f"{eight:.0f} / {floor8:.0f} instructions",
            },
            "callgrind-0": {
                "value": each["zero"] / bare,
                "remark": f"{zero:.0f} added to {bare:.0f} instructions",
            },
        },
        "details": each,
    }


if __name__ == "__main__":
    sys.exit(report(measure))
