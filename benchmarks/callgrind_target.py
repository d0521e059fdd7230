"""What runs under valgrind: ``python -m benchmarks.callgrind_target FEW MANY``.

The applications are made once; then a fork for each of them and each number of requests serves
these and ends. It prints which process was which: ``PID NAME REQUESTS``.
"""

from __future__ import annotations

import gc
import os
import sys
import traceback

from benchmarks.asgi import (
    STAGES,
    App,
    Client,
    application,
    hello,
    hello_in_floors,
    hello_in_stages,
)
from benchmarks.floor import PassThrough
from benchmarks.telemetry import Telemetry

from budgetware import BudgetMiddleware


def serve(app: App, requests: int, telemetry: Telemetry | None, stages: tuple[str, ...]) -> None:
    """Serve so many requests, and make sure that they were counted."""
    Client().timing("", app)(requests)
    if telemetry is not None:
        telemetry.verify("under valgrind", requests, stages)


def main(numbers: list[int]) -> int:
    """Serve each application each of *numbers* times; return the exit code."""
    none, eight = Telemetry("slow_motion"), Telemetry("slow_motion")
    zero_app = BudgetMiddleware(application(hello), **none.options)
    eight_app = BudgetMiddleware(application(hello_in_stages), **eight.options)
    apps: dict[str, tuple[App, Telemetry | None, tuple[str, ...]]] = {
        "bare": (application(hello), None, ()),
        "floor8": (PassThrough(application(hello_in_floors)), None, ()),
        "zero": (zero_app, none, ()),
        "eight": (eight_app, eight, STAGES),
    }
    gc.disable()
    children: list[int] = []
    for name, (app, telemetry, stages) in apps.items():
        for requests in numbers:
            child = os.fork()
            if child == 0:
                try:
                    serve(app, requests, telemetry, stages)
                except BaseException:  # noqa: BLE001 - a fork must not go on as its parent
                    traceback.print_exc()
                    os._exit(1)
                os._exit(0)
            children.append(child)
            print(child, name, requests, flush=True)
    return max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)


if __name__ == "__main__":
    sys.exit(main([int(number) for number in sys.argv[1:]]))
