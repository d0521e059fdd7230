"""The Flask example under a real gunicorn."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.servers import free_port, wait_until

from budgetware._core.record import RequestRecord
from examples.demo.scrape import DURATION, REQUESTS, STAGE_DURATION, Scrape
from examples.flask_app.app import create_app

ROOT = Path(__file__).parents[2]
CALLS = 40


def test_the_key_decides_on_the_tier() -> None:
    """The tier is what the server's table says about the key, and a wrong key is refused."""
    records: list[RequestRecord] = []
    client = create_app(observers=[records.append]).test_client()
    statuses = []
    for headers in ({}, {"X-API-Key": "demo-pro"}, {"X-API-Key": "no", "X-Tier": "pro"}):
        answer = client.get("/quotes/ACME", headers=headers)
        answer.close()
        statuses.append(answer.status_code)

    assert statuses == [200, 200, 401]
    assert [record.tier for record in records] == ["free", "pro", "free"]
    assert [total.name for total in records[1].stages] == ["auth", "db", "response"]


def test_the_report_ends_with_its_last_line() -> None:
    """The streamed report's stage and its end are on the account."""
    records: list[RequestRecord] = []
    client = create_app(observers=[records.append]).test_client()
    answer = client.get("/reports/ACME")
    lines = answer.text.splitlines()
    answer.close()
    (record,) = records

    assert len(lines) == 500
    assert record.elapsed_s == record.duration_s
    assert [(total.name, total.calls) for total in record.stages] == [("auth", 1), ("db", 1)]


@pytest.fixture
def gunicorn() -> Iterator[tuple[int, int]]:
    """Run the example as its README says; gives its port and the first metrics port."""
    port, metrics_port = free_port(), _two_free_ports()
    server = subprocess.Popen(
        [
            *(sys.executable, "-W", "error", "-m", "gunicorn", "--log-level=warning"),
            *("-c", "examples/flask_app/gunicorn.conf.py", "examples.flask_app.app:create_app()"),
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "BIND": f"127.0.0.1:{port}",
            "METRICS_PORT": str(metrics_port),
        },
    )
    try:
        for one in (port, metrics_port, metrics_port + 1):
            wait_until(lambda one=one: _listens(one), "gunicorn listened")  # type: ignore[misc]
        yield port, metrics_port
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=15)


@pytest.mark.server
def test_two_workers_count_every_request(gunicorn: tuple[int, int]) -> None:
    """Each worker has a metrics port of its own; together they have every request, once."""
    port, metrics_port = gunicorn
    for number in range(CALLS):
        path = "/reports/BOLT" if number % 4 == 0 else "/quotes/BOLT"
        assert _get(port, path, {"X-API-Key": "demo-enterprise"})[0] == 200
    ports = metrics_port, metrics_port + 1
    # A worker counts a request when its server has closed the answer, which may be after we
    # have read it.
    wait_until(lambda: _total(ports, REQUESTS, tier="enterprise") == CALLS, "all were counted")

    for route, calls in (("report", CALLS // 4), ("quotes", CALLS - CALLS // 4)):
        assert _total(ports, REQUESTS, route=route, tier="enterprise") == calls
        assert _total(ports, f"{DURATION}_count", route=route, tier="enterprise") == calls
        assert _total(ports, f"{STAGE_DURATION}_count", route=route, stage="db") == calls


def _total(ports: tuple[int, int], metric: str, **labels: str) -> int:
    scrapes = [Scrape.parse(_get(port, "/metrics", {})[1]) for port in ports]
    return sum(scrape.count(metric, **labels) for scrape in scrapes)


def _get(port: int, path: str, headers: dict[str, str]) -> tuple[int, str]:
    # A connection of its own each time, so that both workers have something to do.
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _two_free_ports() -> int:
    while True:
        port = free_port()
        with socket.socket() as after:
            try:
                after.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port
