"""Whether memory grows with what clients ask for: many requests over very many paths."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.asgi import STAGES, application, hello_in_stages, receive, scope_of, send
from benchmarks.compare import CannotMeasureError, report
from benchmarks.telemetry import Telemetry

from budgetware import BudgetMiddleware

PATHS = 100_000
STATM = Path("/proc/self/statm")


def resident() -> int:
    """Return the bytes of memory in use."""
    gc.collect()
    return int(STATM.read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def path(number: int) -> str:
    """Return one of ``PATHS`` paths; every other one is in the policy, the rest are nowhere."""
    number %= PATHS
    return f"/signals/S{number}" if number % 2 else f"/nowhere/{number}"


def measure(quick: bool) -> dict[str, Any]:  # noqa: FBT001 - the one switch there is
    """Return the values of this group's rows."""
    if not STATM.is_file():
        raise CannotMeasureError("there is no /proc here: measure on Linux")
    requests = 200_000 if quick else 1_000_000
    telemetry = Telemetry()
    app = BudgetMiddleware(application(hello_in_stages), **telemetry.options)

    async def serve(numbers: range) -> None:
        for number in numbers:
            await app(scope_of(path(number)), receive, send)

    warm_up = range(PATHS // 5)
    asyncio.run(serve(warm_up))
    before = resident()
    asyncio.run(serve(range(requests)))
    grown = resident() - before
    answered = sum(number % 2 for number in warm_up) + requests // 2
    counts = telemetry.counts()
    if counts.get("") != len(warm_up) + requests or any(
        counts.get(name) != answered for name in STAGES
    ):
        return {"failed": f"exported {counts}, but {requests} requests were made"}
    return {
        "rows": {
            "memory": {"value": grown / 1e6, "remark": f"{requests} requests, {PATHS} paths"},
        },
    }


if __name__ == "__main__":
    sys.exit(report(measure))
