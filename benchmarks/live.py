"""What overload does to a service that observes, and to one that answers in time.

An open loop sends requests at three times the backend's capacity, whether or not anybody answers,
then a little below it, and asks for the health check all the while. What counts is what the client
has within the budget, measured from the moment a request should have been sent.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.compare import WrongCountError, report
from benchmarks.overloaded import BUDGET_S, CAPACITY
from benchmarks.serving import stop

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
LONGEST_S = 10.0


@dataclass(frozen=True, slots=True)
class Seen:
    """One answer as its client saw it."""

    due_s: float
    took_s: float
    body: bytes


class Client:
    """Sends requests when they are due, on as many connections as that takes."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.seen: dict[str, list[Seen]] = {"/work": [], "/healthz": []}
        self.failed = {"/work": 0, "/healthz": 0}

    async def ask(self, path: str, due_s: float) -> None:
        """Ask for *path* now, which was due at *due_s*."""
        body = None
        try:
            # A server may have closed a connection it had no use for.
            while self._idle and body is None:
                body = await self._answer(path, *self._idle.pop())
            if body is None:
                body = await self._answer(path, *await asyncio.open_connection(HOST, self._port))
        except OSError:  # a time-out is one, and would be no better on another connection
            body = None
        if body is None:
            self.failed[path] += 1
        else:
            self.seen[path].append(Seen(due_s, time.perf_counter() - due_s, body))

    async def _answer(
        self, path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes | None:
        """Return the answer's body, ``None`` from a connection that was closed."""
        try:
            writer.write(b"GET " + path.encode() + b" HTTP/1.1\r\nhost: x\r\n\r\n")
            async with asyncio.timeout(LONGEST_S):
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                body = await reader.readexactly(length)
        except TimeoutError:
            writer.close()
            raise
        except (OSError, asyncio.IncompleteReadError):
            writer.close()
            return None
        self._idle.append((reader, writer))
        return body

    async def load(self, path: str, per_s: float, seconds: float) -> None:
        """Ask for *path* so often, for so long, whatever comes back."""
        asking = set()
        began_s = time.perf_counter()
        for number in range(int(per_s * seconds)):
            due_s = began_s + number / per_s
            ahead_s = due_s - time.perf_counter()
            if ahead_s > 0:
                await asyncio.sleep(ahead_s)
            task = asyncio.ensure_future(self.ask(path, due_s))
            asking.add(task)
            task.add_done_callback(asking.discard)
        await asyncio.gather(*asking)


async def drive(port: int, seconds: float) -> dict[str, float]:
    """Overload the service for *seconds*, let go for ten; return what the client had."""
    client = Client(port)
    await client.load("/work", CAPACITY / 2, 2.0)
    client.seen["/work"].clear()
    overloaded_s = time.perf_counter()
    health = asyncio.ensure_future(client.load("/healthz", 10, seconds + 10))
    await client.load("/work", 3 * CAPACITY, seconds)
    calm_s = time.perf_counter()
    await client.load("/work", 0.7 * CAPACITY, 10)
    await health
    seen = client.seen["/work"]
    during = [one for one in seen if overloaded_s <= one.due_s < overloaded_s + seconds]
    in_time = [one for one in during if one.took_s <= BUDGET_S]
    after = [one for one in seen if one.due_s >= calm_s]
    late = [one.due_s for one in after if one.took_s > BUDGET_S]
    checks = client.seen["/healthz"]
    return {
        "answered_in_time": len(in_time) / seconds / CAPACITY,
        "full_in_time": sum(one.body == b"full" for one in in_time) / seconds / CAPACITY,
        "late_share": 1 - len(in_time) / max(1, len(during)),
        "late_afterwards": len(late) / max(1, len(after)),
        "calm_after_s": max(late, default=calm_s) - calm_s,
        "health_failed": float(
            client.failed["/healthz"] + sum(one.body != b"ok" for one in checks)
        ),
        "work_failed": float(client.failed["/work"]),
        "health_p99_ms": 1e3 * sorted(one.took_s for one in checks)[int(len(checks) * 0.99) - 1],
    }


def serve(mode: str, seconds: float, environment: str = "open") -> dict[str, float]:
    """Return what the clients of a server under *mode* had, in *environment* of its policy."""
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.overloaded"],
        cwd=ROOT,
        env={**os.environ, "BUDGETWARE_MODE": mode, "BUDGETWARE_ENV": environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        return asyncio.run(drive(int(server.stdout.readline()), seconds))
    finally:
        stop(server)


def measure(quick: bool) -> dict[str, Any]:  # noqa: FBT001 - the one switch there is
    """Return the values of this group's rows."""
    seconds = 10.0 if quick else 60.0
    observed, enforced = serve("observe", seconds), serve("enforce", seconds)
    limited = serve("enforce", seconds, "limited")
    for one in (enforced, limited):
        if not one["answered_in_time"]:
            raise WrongCountError(f"nothing was answered: {one}")
    was = f"observing {100 * observed['answered_in_time']:.0f} %"
    full = f"full {100 * enforced['full_in_time']:.0f} %"
    return {
        "rows": {
            "live-goodput": {
                "value": 100 * enforced["answered_in_time"],
                "remark": f"{full}; {was}",
            },
            "live-full": {
                "value": 100 * limited["full_in_time"],
                "remark": f"all in time {100 * limited['answered_in_time']:.0f} %",
            },
            "live-late-after": {
                "value": 100 * enforced["late_afterwards"],
                "remark": f"last late one {enforced['calm_after_s']:.1f} s after",
            },
            "live-health": {
                "value": enforced["health_failed"],
                "remark": f"p99 {enforced['health_p99_ms']:.0f} ms",
            },
        },
        "details": {"observe": observed, "enforce": enforced, "limited": limited},
    }


if __name__ == "__main__":
    sys.exit(report(measure))
