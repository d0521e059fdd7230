"""Redis as it may be met: up, gone, restarted, or silent."""

from __future__ import annotations

import socket
import subprocess
import threading
from types import TracebackType
from typing import Any, Self

import redis
from tests.servers import free_port, require_program, wait_until


class RedisServer:
    """A real Redis on a free loopback port that keeps nothing on disk."""

    def __init__(self) -> None:
        self._program = require_program("redis-server")
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, anew and empty, and wait until it answers."""
        self._process = subprocess.Popen(
            [
                self._program,
                *("--port", str(self.port), "--bind", "127.0.0.1"),
                *("--save", "", "--appendonly", "no", "--loglevel", "warning"),
            ],
            stdout=subprocess.DEVNULL,
        )
        wait_until(self._answers, "redis answers")

    def _answers(self) -> bool:
        try:
            return self.command("PING") is True
        except redis.RedisError:
            return False

    def command(self, *words: str) -> Any:
        """Send one command on a connection of its own."""
        with redis.Redis(port=self.port, socket_timeout=5) as client:
            return client.execute_command(*words)

    def stop(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


class Talker:
    """A listener that answers whatever it is sent with the same bytes; with none, never.

    Args:
        answer: The bytes.

    """

    def __init__(self, answer: bytes = b"") -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    @property
    def met(self) -> int:
        """How many connections were made to it."""
        return len(self._open)

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(peer)
            thread = threading.Thread(target=self._talk, args=(peer,))
            self._threads.append(thread)
            thread.start()

    def _talk(self, peer: socket.socket) -> None:
        with peer:
            while self._received(peer):
                if self._answer:
                    peer.sendall(self._answer)

    def _received(self, peer: socket.socket) -> bytes:
        try:
            return peer.recv(65536)
        except OSError:
            return b""

    def __enter__(self) -> Self:
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join()
        for peer in self._open:
            try:
                peer.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        for thread in self._threads:
            thread.join()
