"""Real servers around small applications: in a thread of the test, or as gunicorn in a process."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import uvicorn
from tests.servers import free_port, wait_until
from waitress import wasyncore  # type: ignore[import-untyped]
from waitress.server import create_server  # type: ignore[import-untyped]

from budgetware.asgi import ASGIApp
from budgetware.wsgi import WSGIApp


def connect(port: int) -> socket.socket:
    """Return a connection to the server on *port*."""
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def request(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Return the status and body of one answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def head(method: str, path: str, length: int = 0) -> bytes:
    """Return a request's head, for a connection of one's own."""
    return (f"{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n").encode()


def exchange(port: int, sent: bytes) -> bytes:
    """Return all that the server answers to *sent* before it closes the connection."""
    with connect(port) as connection:
        connection.sendall(sent)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return answer


def reset(connection: socket.socket) -> None:
    """Close *connection* with a reset, as a client that crashes does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@contextlib.contextmanager
def uvicorn_server(app: ASGIApp, **options: Any) -> Iterator[int]:
    """Run uvicorn around *app* on a free port, which is given."""
    options = {"http": "h11", "log_level": "error", "lifespan": "off", **options}
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, **options))
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive(), "uvicorn is up")
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        listening.close()
    assert not thread.is_alive()


@contextlib.contextmanager
def waitress_server(app: WSGIApp, threads: int = 8) -> Iterator[int]:
    """Run waitress around *app* on a free port, which is given."""
    # Without the temporary files that waitress forgets when a client resets.
    buffers = {"outbuf_overflow": 1 << 28, "inbuf_overflow": 1 << 28}
    server = create_server(app, host="127.0.0.1", port=0, threads=threads, **buffers)
    stopping = threading.Event()

    def serve() -> None:
        while not stopping.is_set():
            wasyncore.loop(timeout=0.05, map=server._map, count=1)
        server.task_dispatcher.shutdown()
        wasyncore.close_all(server._map)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield int(server.effective_port)
    finally:
        stopping.set()
        thread.join(timeout=20)
    assert not thread.is_alive()


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
        pass


@contextlib.contextmanager
def wsgiref_server(app: WSGIApp) -> Iterator[int]:
    """Run the standard library's server around *app* on a free port, which is given."""
    server = make_server("127.0.0.1", 0, app, WSGIServer, _QuietHandler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join(timeout=20)
        server.server_close()


class Gunicorn:
    """A gunicorn process, and the files its application leaves facts in.

    Attributes:
        port: Where it listens.
        kind: The options that say which workers it has.

    """

    def __init__(self, folder: Path, code: str, *options: str, **environ: str) -> None:
        self.kind = " ".join(options)
        (folder / "served.py").write_text(code)
        (folder / "conf.py").write_text(_CONF)
        self._folder = folder
        self.port = free_port()
        self._errors = (folder / "stderr.txt").open("wb")
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-W", "error", "-m", "gunicorn", f"--bind=127.0.0.1:{self.port}"),
                *("--chdir", str(folder), "--config", str(folder / "conf.py")),
                *("--log-level=warning", *options, "served:app"),
            ],
            env={**os.environ, **environ, "FACTS": str(folder / "facts.jsonl")},
            stderr=self._errors,
        )

    def wait(self, more: int = 0) -> None:
        """Return when all its workers serve, and *more* that took the place of others."""
        wait_until(lambda: self._all_serve(more), "gunicorn's workers serve")

    def _all_serve(self, more: int) -> bool:
        file = self._folder / "workers.txt"
        begun = file.read_text().splitlines() if file.exists() else []
        return bool(begun) and len(begun) >= int(begun[0]) + more

    def stop(self) -> None:
        """Stop it gracefully and wait for its end."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=20)
        finally:
            self.process.kill()
            self._errors.close()

    @property
    def errors(self) -> str:
        """What it has written to its standard error."""
        return (self._folder / "stderr.txt").read_text()

    @property
    def facts(self) -> list[dict[str, Any]]:
        """What the application wrote down so far, all but the requests of the tests' own."""
        file = self._folder / "facts.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        facts = [json.loads(line) for line in lines]
        return [fact for fact in facts if fact.get("route") != "ours"]


_CONF = """
def post_worker_init(worker):
    # A signal that comes to a worker before this is lost, and so is who waits for it to stop
    # (benoitc/gunicorn#1910).
    with open("workers.txt", "a") as workers:
        workers.write(f"{worker.cfg.workers}\\n")
"""


@contextlib.contextmanager
def gunicorn(folder: Path, code: str, *options: str, **environ: str) -> Iterator[Gunicorn]:
    """Run gunicorn around the ``app`` of *code*."""
    server = Gunicorn(folder, code, *options, **environ)
    try:
        server.wait()
        yield server
    finally:
        server.stop()
