"""Run the measurements, print the table, write the results. Standard library only.

Every group of rows runs in a process of its own, so that no peer leaves anything behind in
another's interpreter; within a group everything is measured in turns.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.rows import ROWS, Row, groups

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "latest.json"
LONGEST_S = 400


def measure(group: str, *, quick: bool) -> dict[str, Any]:
    """Return what *group* reports: its rows' values, or why there are none."""
    command = [sys.executable, "-m", f"benchmarks.{group}", *(["--quick"] if quick else [])]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=LONGEST_S
        )
        report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return {"unmeasured": f"{group} took longer than {LONGEST_S} s"}
    except (IndexError, ValueError):
        return {"unmeasured": f"{group} broke down: {done.stderr[-600:].strip()}"}
    return report


def chosen(only: Sequence[str]) -> tuple[Row, ...]:
    """Return the rows called *only* or belonging to groups called so; all without any."""
    known = {name for row in ROWS for name in (row.name, row.group)}
    unknown = [name for name in only if name not in known]
    if unknown:
        raise SystemExit(f"no such row: {', '.join(unknown)}; see --list")
    return tuple(row for row in ROWS if not only or row.name in only or row.group in only)


def verdict(row: Row, report: dict[str, Any]) -> tuple[str, str, str]:
    """Return the value as text, the verdict and a remark."""
    if "failed" in report:
        return "-", "FAIL", report["failed"]
    if row.name not in report.get("rows", {}):
        return "-", "unmeasured", report.get("unmeasured", "the group did not report it")
    value = report["rows"][row.name]["value"]
    remark = report["rows"][row.name].get("remark", "")
    result = "for information" if row.goal is None else "pass" if row.passes(value) else "FAIL"
    return row.written(value), result, remark


def goal_of(row: Row) -> str:
    """Return the goal as the table shows it."""
    if row.goal is None:
        return ""
    return f"{'>=' if row.at_least else '<='} {row.written(row.goal)}"


def main() -> int:
    """Print the table; return the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks/run.py", description=__doc__)
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="a row or a group; repeatable"
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds: two minutes, not ten")
    parser.add_argument("--list", action="store_true", help="name the rows and stop")
    options = parser.parse_args()
    rows = chosen(options.only)
    if options.list:
        for row in rows:
            print(f"{row.name:16} {row.group:14} {goal_of(row):12} {row.what}")
        return 0
    print(f"Python {platform.python_version()} on {platform.machine()}, {platform.system()}\n")
    print(f"{'what':72} {'value':>10}  {'goal':>11}  result")
    began = time.monotonic()
    results: dict[str, Any] = {}
    verdicts: list[str] = []
    for group in groups(rows):
        report = measure(group, quick=options.quick)
        for row in (row for row in rows if row.group == group):
            value, result, remark = verdict(row, report)
            line = f"{row.what:72} {value:>10}  {goal_of(row):>11}  {result}"
            print(f"{line}  ({remark})" if remark else line, flush=True)
            verdicts.append(result)
            results[row.name] = {
                "what": row.what,
                "goal": row.goal,
                "at_least": row.at_least,
                "result": result,
                "remark": remark,
                **report.get("rows", {}).get(row.name, {}),
            }
        results[row.name]["details"] = report.get("details", {})
    took_s = time.monotonic() - began
    RESULTS.parent.mkdir(exist_ok=True)
    facts = {"python": sys.version, "quick": options.quick, "took_s": took_s, "rows": results}
    RESULTS.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
    print(f"\n{took_s:.0f} s; written to {RESULTS.relative_to(ROOT)}")
    if "FAIL" in verdicts:
        return 1
    return 3 if "unmeasured" in verdicts else 0


if __name__ == "__main__":
    sys.exit(main())
