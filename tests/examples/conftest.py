"""The FastAPI example, running within the test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog
from fastapi import FastAPI
from starlette.testclient import TestClient

from budgetware._core.record import RequestRecord
from budgetware.runtime import Runtime
from examples.fastapi_app.app import create_app


class Trading:
    """The example with a look inside.

    Attributes:
        client: Calls it.
        runtime: The runtime of its door, which jobs use.
        records: What its observer was told.
        logged: What was logged.

    """

    def __init__(self, client: TestClient, records: list[RequestRecord]) -> None:
        self.client = client
        self.runtime = Runtime.current()
        self.records = records
        self.logged: list[structlog.typing.EventDict] = []

    def call(
        self,
        path: str,
        key: str | None = "demo-enterprise",
        **headers: str,
    ) -> tuple[int, RequestRecord]:
        """Send a request and return the status of the answer and the record."""
        if key is not None:
            headers["X-API-Key"] = key
        status = self.client.get(path, headers=headers).status_code
        return status, self.records[-1]

    def slow_down(self, wait_ms: float) -> None:
        """Make the database's disk busy, or idle again."""
        answer = self.client.put(
            "/admin/disk",
            json={"wait_ms": wait_ms},
            headers={"X-API-Key": "demo-operator"},
        )
        answer.raise_for_status()

    def close(self) -> None:
        """Leave it as it was found."""
        self.slow_down(0)
        self.records.clear()
        self.logged.clear()


@pytest.fixture(autouse=True, scope="module")
def _logging_as_it_was() -> Iterator[None]:
    """Undo what the applications configure."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="module")
def running() -> Iterator[Trading]:
    """Run the example for a module's tests."""
    records: list[RequestRecord] = []
    trading: Trading
    logger = structlog.wrap_logger(
        None,
        processors=[lambda _logger, _method, event: _keep(trading, event)],
        wrapper_class=structlog.BoundLogger,
        cache_logger_on_first_use=False,
    )
    with pytest.MonkeyPatch.context() as patch:
        # What the routes do is looked at here; answering in time depends on how fast we are.
        patch.setenv("BUDGETWARE_MODE", "observe")
        app: FastAPI = create_app(observers=[records.append], logger=logger)
        with TestClient(app) as client:
            trading = Trading(client, records)
            yield trading


def _keep(trading: Trading, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    trading.logged.append(dict(event))
    raise structlog.DropEvent


@pytest.fixture
def trading(running: Trading, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trading]:
    """Give a test the running example, with nothing recorded."""
    # Every test begins without a door; this one was opened for the whole module.
    monkeypatch.setattr(Runtime, "_current", running.runtime)
    running.close()
    yield running
    running.close()
