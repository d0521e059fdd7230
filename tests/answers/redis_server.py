"""A real Redis, a port that never answers, and a road to a server that is slow."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

import redis
from tests.servers import free_port, require_program, wait_until

from budgetware.answers.redis_store import AsyncRedisStore


class RedisServer:
    """A Redis of its own on a free loopback port, as a ``with`` block.

    Attributes:
        port: Where it listens, also after it was started again.

    """

    def __init__(self) -> None:
        self._program = require_program("redis-server")
        self.port = free_port()
        self._folder = tempfile.mkdtemp(prefix="budgetware-redis-")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def socket_url(self) -> str:
        """Its address on this machine's file system."""
        return f"unix://{self._folder}/socket"

    def client(self) -> redis.Redis:
        """Return an ordinary client; close it."""
        return redis.Redis(port=self.port)

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._process = subprocess.Popen(
            [
                self._program,
                *("--port", str(self.port), "--bind", "127.0.0.1", "--save", ""),
                *("--unixsocket", f"{self._folder}/socket"),
                *("--appendonly", "no", "--dir", self._folder, "--loglevel", "warning"),
            ],
            stdout=subprocess.DEVNULL,
        )
        wait_until(self._answers, "redis-server answers")

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=10)
            self._process = None

    def freeze(self) -> None:
        """Let it accept connections and say nothing."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        with contextlib.closing(self.client()) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


class BlackHole:
    """A port where connections are accepted by the system and nobody ever answers."""

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._listener.setblocking(False)  # noqa: FBT003 - its signature
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        return self

    def connections(self) -> int:
        """Return how many came since this was last asked, and drop them."""
        count = 0
        while True:
            try:
                accepted, _ = self._listener.accept()
            except BlockingIOError:
                return count
            accepted.close()
            count += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.close()


class SlowRoad:
    """Passes bytes to *port* and holds every answer back, as an ``async with`` block."""

    def __init__(self, port: int, delay_s: float) -> None:
        self._port = port
        self._delay_s = delay_s
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        tasks = [
            asyncio.create_task(self._pass(reader, back, 0.0)),
            asyncio.create_task(self._pass(there, writer, self._delay_s)),
        ]
        self._tasks.update(tasks)

    async def _pass(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, delay_s: float
    ) -> None:
        try:
            while data := await source.read(65_536):
                await asyncio.sleep(delay_s)
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.close()


async def with_store(
    url: str, work: Callable[[AsyncRedisStore], Awaitable[None]], **options: Any
) -> None:
    """Do *work* with a store for tasks, and close it."""
    made = AsyncRedisStore(url, **{"operation_s": 1.0} | options)
    try:
        await work(made)
    finally:
        await made.close()


async def written(store: AsyncRedisStore) -> None:
    """Wait until nothing of *store* is under way."""
    while store._tasks:
        await asyncio.wait(set(store._tasks))
