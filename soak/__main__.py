"""Runs the soak: ``python -m soak --seconds 600``."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final

from benchmarks.redis_server import RedisServer

from soak.chaos import POLICY, Chaos
from soak.clients import Client, Seen
from soak.findings import Finding, findings

ROOT: Final = Path(__file__).resolve().parent.parent
CLIENTS: Final = 24
WARM_UP_S: Final = 12.0
"""Longer than anything that is held back, so that what is there then is there for good."""

SETTLED_WITHIN_S: Final = 90.0
"""An application behind an answered client may be held back for ten seconds, a thread for more."""

LOOK_EVERY_S: Final = 0.5


class Server:
    """The service in a process of its own.

    Args:
        process: It.
        said: What it has written to its standard error.

    """

    def __init__(self, process: subprocess.Popen[str], said: IO[str]) -> None:
        assert process.stdout is not None
        self._process = process
        self._said = said
        self.port: int = json.loads(process.stdout.readline())["port"]

    async def state(self, *, settled: bool = False) -> dict[str, Any]:
        """Return what it tells of itself."""
        return await asyncio.to_thread(self._state, "?settled" if settled else "")

    def _state(self, query: str) -> dict[str, Any]:
        address = f"http://127.0.0.1:{self.port}/state{query}"
        with urllib.request.urlopen(address, timeout=60) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def memory_bytes(self) -> int:
        """Return what of its memory is resident."""
        status = Path(f"/proc/{self._process.pid}/status").read_text("ascii")
        kilobytes = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(kilobytes.split()[1]) * 1024

    def said(self) -> str:
        """Return what it has written to its standard error."""
        self._said.seek(0)
        return self._said.read()


@contextlib.contextmanager
def served(policy: Path, redis: RedisServer) -> Iterator[Server]:
    """Have the service run meanwhile."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "soak.served", str(policy), redis.url],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        )
        try:
            yield Server(process, said)
        finally:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=30)
            process.kill()
            process.communicate()


async def loaded(server: Server, seconds: float, seed: int, seen: Seen) -> None:
    """Have clients ask for so long."""
    until_s = time.monotonic() + seconds
    clients = [Client(server.port, seed + number, seen) for number in range(CLIENTS)]
    await asyncio.gather(*(one.run(lambda: time.monotonic() < until_s) for one in clients))


async def settled(server: Server, like: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the state once nothing is under way, and no more is there than in the state *like*.

    When that takes too long, what there is then is returned: the findings say what is left.
    """
    until_s = time.monotonic() + SETTLED_WITHIN_S
    while True:
        state = await server.state(settled=True)
        calm = not any(state[what] for what in ("requests", "slots", "waiting", "steered"))
        if like is None:
            less = state["tasks"] <= 4  # that of the server, and of this question
        else:
            less = all(state[what] <= like[what] for what in ("tasks", "files"))
            less = less and state["policy"] == like["policy"]
        if (calm and less) or time.monotonic() > until_s:
            return state
        await asyncio.sleep(LOOK_EVERY_S)


async def watched(server: Server, seconds: float) -> list[tuple[float, int]]:
    """Return the resident memory beside the cache, and when that was, again and again."""
    samples, began_s = [], time.monotonic()
    while (passed_s := time.monotonic() - began_s) < seconds:
        state = await server.state()
        samples.append((passed_s, server.memory_bytes() - state["cache_bytes"]))
        await asyncio.sleep(LOOK_EVERY_S)
    return samples


async def soak(server: Server, chaos: Chaos, seconds: float) -> list[Finding]:
    """Run the soak, and return what was found."""
    warm, seen = Seen(), Seen()
    await loaded(server, WARM_UP_S, 1, warm)
    before = await settled(server)
    _, _, samples = await asyncio.gather(
        loaded(server, seconds, 1000, seen), chaos.run(seconds), watched(server, seconds)
    )
    after = await settled(server, before)
    return findings(before, after, seen, samples, server.said(), chaos.done)


def duration(text: str) -> float:
    """Return how many *text* says: none would be no soak, and some would have no end."""
    if not 1 <= (seconds := float(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"at least 1, and an end, not {text}")
    return seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it for as long as the command line says; return 1 if anything does not hold."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument(
        "--seconds", type=duration, default=600.0, help="under load and disturbance"
    )
    seconds = parser.parse_args(arguments).seconds
    room = Path(tempfile.mkdtemp(prefix="budgetware-soak-"))
    policy = Path(shutil.copy(POLICY, room))
    try:
        with RedisServer() as redis, served(policy, redis) as server:
            found = asyncio.run(soak(server, Chaos(redis, policy), seconds))
    finally:
        shutil.rmtree(room)
    for finding in found:
        print(finding)
    bad = [finding for finding in found if not finding.holds]
    print(f"\n{seconds:.0f} s: {'all of it holds' if not bad else f'{len(bad)} do not hold'}")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
