"""What happens to the service besides requests: its Redis comes and goes, its policy changes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from pathlib import Path
from typing import Final

from benchmarks.redis_server import HOST, RedisServer

POLICY: Final = Path(__file__).with_name("policy.yaml")
AWAY_S: Final = 1.5
CALM_S: Final = 1.5


class Chaos:
    """Disturbs the service, in turns.

    Args:
        redis: What it takes away and brings back.
        policy: The file the service watches.

    Attributes:
        done: How often what was done.

    """

    def __init__(self, redis: RedisServer, policy: Path) -> None:
        self._redis = redis
        self._policy = policy
        self.done: Counter[str] = Counter()

    async def run(self, seconds: float) -> None:
        """Do one thing after another for *seconds*, and leave everything as it was."""
        ways = (self._kill, self._freeze, self._flush, self._reload, self._break)
        loop = asyncio.get_running_loop()
        until_s, number = loop.time() + seconds, 0
        while loop.time() < until_s:
            does = ways[number % len(ways)]
            await does(number)
            self.done[does.__name__.strip("_")] += 1
            await asyncio.sleep(CALM_S)
            number += 1
        self._write(POLICY.read_text("utf-8"))

    async def _kill(self, _: int) -> None:
        await asyncio.to_thread(self._redis.kill)
        await asyncio.sleep(AWAY_S)
        await asyncio.to_thread(self._redis.start)

    async def _freeze(self, _: int) -> None:
        self._redis.freeze()
        try:
            await asyncio.sleep(AWAY_S)
        finally:
            self._redis.thaw()

    async def _flush(self, _: int) -> None:
        await asyncio.to_thread(self._say, b"FLUSHALL\r\nSCRIPT FLUSH\r\n")

    async def _reload(self, number: int) -> None:
        text = POLICY.read_text("utf-8")
        self._write(text.replace("concurrency: 12", f"concurrency: {6 + number % 7}"))

    async def _break(self, _: int) -> None:
        self._write("version: 1\nroutes: {full: {budget: soon}}\n")

    def _write(self, text: str) -> None:
        written = self._policy.with_suffix(".new")
        written.write_text(text, encoding="utf-8")
        written.replace(self._policy)

    def _say(self, commands: bytes) -> None:
        with (
            contextlib.suppress(OSError),
            socket.create_connection((HOST, self._redis.port), timeout=5) as connection,
        ):
            connection.sendall(commands)
            connection.recv(64)
