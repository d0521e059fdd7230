"""Real programs and servers for tests that need more than a function call."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)


def require_program(name: str) -> str:
    """Return the path of the program *name*; skip the test, or fail it, when there is none.

    With ``BUDGETWARE_REQUIRE_SERVERS=1`` a program that is missing is a failure.
    """
    path = shutil.which(name)
    if path is None:
        reason = f"the program {name!r} is not installed"
        if os.environ.get("BUDGETWARE_REQUIRE_SERVERS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def free_port() -> int:
    """Return a port on the loopback interface that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(happened: Callable[[], bool], what: str, timeout_s: float = 15.0) -> None:
    """Return as soon as *happened* is true; fail the test after *timeout_s* seconds."""
    deadline = time.monotonic() + timeout_s
    pause_s = 0.001
    while not happened():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {timeout_s} s in vain until {what}")
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 0.05)


class Collector:
    """Receives OTLP metrics over HTTP on a free loopback port, as a ``with`` block.

    Attributes:
        received: Every export, oldest first.

    """

    def __init__(self) -> None:
        self.received: list[ExportMetricsServiceRequest] = []
        received = self.received

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                received.append(ExportMetricsServiceRequest.FromString(body))
                answer = ExportMetricsServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def endpoint(self) -> str:
        """Where exporters send metrics to."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1/metrics"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Prometheus:
    """A Prometheus that scrapes every second.

    Args:
        program: Its path.
        folder: Where its configuration and its data go.
        targets: The port of each job on the loopback interface.

    """

    def __init__(self, program: str, folder: Path, targets: dict[str, int]) -> None:
        jobs = [
            {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
            for job, port in targets.items()
        ]
        config = folder / "prometheus.json"  # JSON is YAML
        config.write_text(
            json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": jobs}),
        )
        self._port = free_port()
        self._process = subprocess.Popen(
            [
                program,
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self._port}",
                "--log.level=error",
            ],
        )

    def query(self, expression: str) -> dict[frozenset[tuple[str, str]], float]:
        """Return the values of *expression* now, by our attributes and the bucket's bound."""
        url = f"http://127.0.0.1:{self._port}/api/v1/query?" + urllib.parse.urlencode(
            {"query": expression},
        )
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                answer = json.load(response)
        except OSError:  # not up yet
            return {}
        return {
            frozenset(
                (label, value)
                for label, value in one["metric"].items()
                if label.startswith("budgetware_") or label == "le"
            ): float(one["value"][1])
            for one in answer["data"]["result"]
        }

    def stop(self) -> None:
        """Stop it and wait for its end."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(timeout=10)
