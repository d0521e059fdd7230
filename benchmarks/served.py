"""A server for ``uvicorn_wrk.py``: ``python -m benchmarks.served NAME``.

It prints the port it listens on, and when it is told to stop, what it counted.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable

import uvicorn
from benchmarks.asgi import App, application, hello, hello_in_floors, hello_in_stages
from benchmarks.floor import PassThrough
from benchmarks.serving import serve
from benchmarks.telemetry import Telemetry

from budgetware import BudgetMiddleware


def main(name: str) -> None:
    """Serve the application called *name* until a signal comes."""
    telemetry = Telemetry()
    apps: dict[str, Callable[[], App]] = {
        "bare": lambda: application(hello),
        "floor8": lambda: PassThrough(application(hello_in_floors)),
        "eight": lambda: BudgetMiddleware(application(hello_in_stages), **telemetry.options),
    }
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        apps[name](),
        loop="uvloop",
        http="httptools",
        lifespan="off",
        log_level="error",
        access_log=False,
    )
    serve(config, listening)
    print(json.dumps(telemetry.counts()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
