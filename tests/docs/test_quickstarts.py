"""What a newcomer gets who does nothing but follow the README and the quick starts."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.docs.test_pages import ROOT, blocks
from tests.servers import free_port, wait_until

README = ROOT / "README.md"
PYTHON = os.environ.get("NEWCOMERS_PYTHON", sys.executable)
"""What the applications run on: the tests' own environment, or one made as the page says."""

DOCS = ROOT / "docs"


@contextmanager
def serving(folder: Path, program: str) -> Iterator[str]:
    """Serve ``app:app`` of *folder* with *program*; give its address."""
    port = free_port()
    place = {
        "uvicorn": ["app:app", "--port", str(port)],
        "gunicorn": ["app:app", "--bind", f"127.0.0.1:{port}"],
    }[program]
    with (folder / "log.txt").open("w") as log:
        server = subprocess.Popen(
            [PYTHON, "-m", program, *place],
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            address = f"http://127.0.0.1:{port}"
            wait_until(lambda: answers(f"{address}/metrics/"), f"{program} answers")
            yield address
        finally:
            server.terminate()
            server.wait(10)


def answers(address: str) -> bool:
    """Tell whether *address* can be read."""
    try:
        return bool(read(address))
    except OSError:
        return False


def read(address: str, **headers: str) -> str:
    """Return what is at *address*."""
    request = urllib.request.Request(address, headers=headers)
    with urllib.request.urlopen(request, timeout=5) as answer:
        text: str = answer.read().decode()
        return text


def total(metrics: str, *wanted: str) -> float:
    """Return the sum of the samples whose lines have everything that is *wanted*."""
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in metrics.splitlines()
        if all(word in line for word in wanted)
    )


@pytest.mark.server
@pytest.mark.parametrize(
    ("page", "block", "program", "tier"),
    [
        (README, 0, "uvicorn", None),
        (README, 1, "gunicorn", None),
        (DOCS / "quickstart-fastapi.md", 0, "uvicorn", "pro"),
        (DOCS / "quickstart-flask.md", 0, "gunicorn", "pro"),
    ],
    ids=["readme-fastapi", "readme-flask", "quickstart-fastapi", "quickstart-flask"],
)
def test_a_newcomer_sees_violations_and_metrics(
    page: Path,
    block: int,
    program: str,
    tier: str | None,
    tmp_path: Path,
) -> None:
    """The page's own application logs its slow stage and serves metrics that say the same."""
    (tmp_path / "budgetware.yaml").write_text(blocks(page, "yaml")[0])
    (tmp_path / "app.py").write_text(blocks(page, "python")[block])
    with serving(tmp_path, program) as address:
        for number in range(3):
            assert read(f"{address}/items/{number}", **{"x-api-key": "key-of-a-pro"})
        metrics = read(f"{address}/metrics/")
    labels = ('budgetware_route="item"', *([f'budgetware_tier="{tier}"'] if tier else []))
    assert total(metrics, "budgetware_requests_total{", *labels) == 3
    assert total(metrics, "budgetware_violations_total{", 'stage="db"', *labels) == 3
    assert total(metrics, "budgetware_stage_duration_seconds_count", 'stage="db"', labels[0]) == 3
    log = (tmp_path / "log.txt").read_text()
    assert "budget_exceeded" in log
    assert "stage=db" in log
    assert "budget_ms=20.0" in log
