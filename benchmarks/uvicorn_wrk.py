"""A real server under load: how much of its capacity is left, by the CPU a request takes.

Requests per second depend on whatever else the machine does; the server's own processor time per
request does so much less. One worker, 32 connections over loopback, a few seconds at a time.

On two cores a server that is slower than wrk wakes it for every answer, from one core to the other,
and pays for it; one that is quicker finds it awake. On one core nobody is woken that way, so both
are measured.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks.asgi import HELLO, STAGES
from benchmarks.compare import CannotMeasureError, Rounds, WrongCountError, report
from benchmarks.serving import stop

ROOT = Path(__file__).resolve().parent.parent
NAMES: Final = ("bare", "floor8", "eight")
_REQUESTS = re.compile(r"(\d+) requests in")
_ERRORS = re.compile(r"Non-2xx or 3xx responses|Socket errors")


class Server:
    """A uvicorn process and the requests it was sent."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.requests = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.served", name],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self._said = self._process.stdout
        self._port = int(self._said.readline())

    def cpu_s(self) -> float:
        """Return the processor seconds used so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text("ascii").rsplit(")", 1)[1]
        user, system = fields.split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def move_to(self, cores: set[int]) -> None:
        """Have the server run on *cores*."""
        os.sched_setaffinity(self._process.pid, cores)

    def load(self, seconds: int) -> float:
        """Send requests for *seconds*; return the processor seconds each took."""
        url = f"http://127.0.0.1:{self._port}{HELLO}"
        before = self.cpu_s()
        done = subprocess.run(
            ["wrk", "-t1", "-c32", f"-d{seconds}s", url],
            capture_output=True,
            text=True,
            check=True,
        )
        found = _REQUESTS.search(done.stdout)
        if found is None or _ERRORS.search(done.stdout):
            raise WrongCountError(f"wrk on {self.name}: {done.stdout}")
        self.requests += int(found[1])
        return (self.cpu_s() - before) / int(found[1])

    def stop(self) -> dict[str, int]:
        """Stop the server; return what it counted."""
        said = stop(self._process)
        counts: dict[str, int] = json.loads(said.splitlines()[-1]) if said else {}
        return counts


@contextlib.contextmanager
def running() -> Iterator[tuple[list[Server], dict[str, dict[str, int]]]]:
    """Run the servers; what they counted is known afterwards."""
    servers: list[Server] = []
    counts: dict[str, dict[str, int]] = {}
    try:
        for name in NAMES:
            servers.append(Server(name))  # noqa: PERF401 - those that run are to be stopped
        time.sleep(1)
        yield servers, counts
    finally:
        for server in servers:
            counts[server.name] = server.stop()


@contextlib.contextmanager
def on_one_core(servers: list[Server]) -> Iterator[None]:
    """Have *servers*, and the wrk that is started meanwhile, share one core."""
    cores = os.sched_getaffinity(0)
    one = {max(cores)}
    for server in servers:
        server.move_to(one)
    os.sched_setaffinity(0, one)
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
        for server in servers:
            server.move_to(cores)


def loaded(servers: list[Server], times: int) -> Rounds:
    """Return the processor seconds per request of *servers*, in turns."""
    rounds = Rounds({server.name: [] for server in servers})
    for index in range(times):
        for server in servers if index % 2 else reversed(servers):
            rounds.seconds[server.name].append(server.load(1))
    return rounds


def measure(quick: bool) -> dict[str, Any]:  # noqa: FBT001 - the one switch there is
    """Return the values of this group's rows."""
    if shutil.which("wrk") is None:
        raise CannotMeasureError("wrk is not installed: apt-get install wrk")
    if not Path("/proc/self/stat").is_file():
        raise CannotMeasureError("there is no /proc here: measure on Linux")
    times = 6 if quick else 15
    with running() as (servers, counts):
        for server in servers:
            server.load(1)
        rounds = loaded(servers, times)
        with on_one_core(servers):
            alone = loaded(servers, times)
    sent = next(server.requests for server in servers if server.name == "eight")
    counted = counts["eight"]
    if set(counted) != {"", *STAGES} or any(count < sent for count in counted.values()):
        raise WrongCountError(f"exported {counted}, but {sent} were sent")
    bare, eight = 1e6 * rounds.least("bare"), 1e6 * rounds.least("eight")
    remark = f"least CPU {bare:.1f} us bare, {eight:.1f} with 8 stages"
    return {
        "rows": {
            "uvicorn": {"value": 100 / rounds.ratio_usually("eight", "bare"), "remark": remark},
            "uvicorn-floor8": {"value": 100 / rounds.ratio_usually("floor8", "bare")},
            "uvicorn-one-core": {"value": 100 / alone.ratio_usually("eight", "bare")},
            "uvicorn-one-core-floor8": {"value": 100 / alone.ratio_usually("floor8", "bare")},
        },
        "details": {"two cores": rounds.figures(), "one core": alone.figures()},
    }


if __name__ == "__main__":
    sys.exit(report(measure))
