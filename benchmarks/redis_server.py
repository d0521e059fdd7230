"""Where does the Redis come from that ``redis_down.py`` takes away? It is run here."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from types import TracebackType
from typing import Final, Self

from benchmarks.compare import CannotMeasureError

HOST: Final = "127.0.0.1"
_STARTS_WITHIN_S: Final = 10.0


class RedisServer:
    """A Redis on a free loopback port that keeps nothing on disk, as a ``with`` block.

    Attributes:
        port: Where it listens, also after it was started again.

    Raises:
        CannotMeasureError: There is no ``redis-server``, or it does not answer.

    """

    def __init__(self) -> None:
        program = shutil.which("redis-server")
        if program is None:
            raise CannotMeasureError("redis-server is not installed: apt-get install redis-server")
        self._program = program
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            self.port: int = probe.getsockname()[1]
        self._folder = tempfile.mkdtemp(prefix="budgetware-bench-redis-")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"redis://{HOST}:{self.port}/0"

    def start(self) -> None:
        """Start it, empty, and wait until it answers."""
        self._process = subprocess.Popen(
            [
                self._program,
                *("--port", str(self.port), "--bind", HOST, "--dir", self._folder),
                *("--save", "", "--appendonly", "no", "--loglevel", "warning"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until_s = time.monotonic() + _STARTS_WITHIN_S
        while not self._answers():
            if time.monotonic() > until_s or self._process.poll() is not None:
                raise CannotMeasureError("redis-server did not start")
            time.sleep(0.01)

    def kill(self) -> None:
        """End it at once; what was open to it is reset."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(timeout=10)

    def freeze(self) -> None:
        """Have connections accepted and nothing answered, as behind a network that swallows it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on with all it was sent meanwhile."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            with socket.create_connection((HOST, self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64) == b"+PONG\r\n"
        except OSError:
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
