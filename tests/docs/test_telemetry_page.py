"""Every example of ``docs/telemetry.md`` runs and does what the page says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.integration.otlp_backend import Backend
from tests.servers import Collector

from budgetware import names
from budgetware._core.decide import Reason
from budgetware._core.reasons import OURS
from budgetware.answers.rejection import _STATUSES, Rejection
from budgetware.answers.storable import NotKept
from budgetware.telemetry.metrics import COUNTERS, GAUGES, HISTOGRAMS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "telemetry.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def _run(mark: str, check: str, folder: Path, **environment: str) -> str:
    (example,) = [one for one in EXAMPLES if mark in one]
    run = subprocess.run(
        [sys.executable, "-c", f"{example}\n{check}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={"PATH": "", "PYTHONPATH": str(ROOT), **environment},
        timeout=30,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout + run.stderr


ASK_ASGI = """
import asyncio, httpx2

async def ask():
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://x") as one:
        for _ in range(3):
            assert (await one.get("/signals/X")).json() == {"symbol": "X"}
        print((await one.get("/metrics/")).text)

asyncio.run(ask())
"""


def test_the_prometheus_example_serves_our_histograms(tmp_path: Path) -> None:
    """A scrape of the example application has its requests and its stages."""
    text = _run("BudgetPrometheusReader", ASK_ASGI, tmp_path)

    stage = r'budgetware_stage_duration_seconds_count\{.*budgetware_stage="db".*\} 3\.0'
    request = r'budgetware_requests_total\{.*budgetware_route="_unmatched".*\} [34]\.0'
    assert re.search(stage, text)
    assert re.search(request, text)


ASK_WSGI = """
client = app.test_client()
for _ in range(3):
    client.get("/signals/X").close()
metrics.get_meter_provider().shutdown()
"""


def test_the_otlp_example_pushes_our_histograms(tmp_path: Path) -> None:
    """The collector named in the environment receives the example's requests and stages."""
    with Collector() as collector:
        endpoint = collector.endpoint.removesuffix("/v1/metrics")
        _run("OTLPMetricExporter", ASK_WSGI, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint)

    backend = Backend()
    backend.take(collector.received)
    (stage,) = backend.histograms[names.STAGE_DURATION].values()
    assert stage.count == 3
    assert sum(backend.numbers[names.REQUESTS].values()) == 3


ASK_READER = """
from budgetware._core.engine import Engine
from budgetware.telemetry import Telemetry
engine = Engine()
Telemetry(provider).watch(engine)
engine.finish(engine.begin("GET", "/"))
print(reader.get_metrics_data().to_json())
"""


def test_the_reader_of_your_own_receives_our_histograms(tmp_path: Path) -> None:
    """Any reader class becomes one of ours by the mixin."""
    assert names.REQUEST_DURATION in _run("AggregatedHistograms", ASK_READER, tmp_path)


ASK_LOG = """
from budgetware.telemetry import Telemetry
structlog.contextvars.bind_contextvars(request_id="r-1")
Telemetry().no_policy()
import time
deadline = time.monotonic() + 5
while not lines.empty() and time.monotonic() < deadline:
    time.sleep(0.01)
time.sleep(0.05)
"""


def test_the_queue_example_writes_our_events(tmp_path: Path) -> None:
    """Events arrive as JSON through the queue, with the application's request id."""
    text = _run("QueueHandler", ASK_LOG, tmp_path)

    assert '"event": "budgetware_no_policy"' in text
    assert '"request_id": "r-1"' in text


def test_every_example_is_tested() -> None:
    """A new example needs a test here."""
    assert len(EXAMPLES) == 4


@pytest.mark.parametrize(
    "name",
    [
        *(name for name, _, _ in (*COUNTERS, *GAUGES)),
        *HISTOGRAMS,
        *(value for name, value in sorted(vars(names).items()) if name.startswith("EVENT_")),
    ],
)
def test_every_metric_and_event_is_documented(name: str) -> None:
    """The page has a row for each name."""
    assert f"| `{name}` |" in PAGE


def _table(page: str, head: str) -> list[tuple[str, ...]]:
    """Return the cells of the first two columns below a table's head, code marks left out."""
    rows = page.partition(f"\n{head}\n")[2].partition("\n\n")[0].splitlines()[1:]
    return [tuple(cell.strip(" `") for cell in row.split("|")[1:3]) for row in rows]


def test_every_reason_is_listed() -> None:
    """Each word that budgetware has of its own, and no other."""
    listed = [reason for reason, _ in _table(PAGE, "| `reason` | Why |")]

    assert sorted(listed) == sorted(OURS - {Rejection.DEADLINE_SPENT})
    assert set(Reason) <= set(listed)


def test_every_refusal_is_listed_with_its_status() -> None:
    """As its problem details have it."""
    listed = _table(PAGE, "| `reason` of problem details | Status | Why |")

    assert {reason: int(status) for reason, status in listed} == dict(_STATUSES)
    assert {reason for reason, _ in listed} == set(Rejection)


def test_every_reason_not_to_keep_a_response_is_listed() -> None:
    """On the page about smaller answers, two of them in one row."""
    page = (ROOT / "docs" / "degrading-by-tier.md").read_text(encoding="utf-8")
    cells = [cell for cell, _ in _table(page, "| reason | what it means |")]

    assert sorted(re.findall(r"\w+", " ".join(cells))) == sorted(NotKept)
