"""The demo, for real, in a few seconds."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from tests.servers import wait_until

from examples.demo import load, serve

ROOT = Path(__file__).parents[2]
SHORT = ["-W", "error", "-m", "examples.demo", "--seconds", "12"]
PATIENCE_S = 120.0
"""On a busy machine the services alone may take half a minute to start."""


@pytest.mark.server
def test_a_short_run_adds_up(tmp_path: Path) -> None:
    """It exits with 0, ends with its headline, and keeps a picture of that.

    So it does on a busy machine, which may be too slow to be in time.
    """
    picture = tmp_path / "demo.svg"
    run = subprocess.run(
        [sys.executable, *SHORT, "--details", "--save", str(picture)],
        cwd=ROOT,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )

    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stderr == ""
    assert re.search(r"http://127\.0\.0\.1:\d+/docs", run.stdout)
    assert len(re.findall(r"\n(?:observe|enforce): .* \d+ calls; signals: ", run.stdout)) == 6
    assert re.search(r"enterprise +observe .* \d+% +0% +\d+%", run.stdout)
    assert re.search(r"signals +enterprise +30ms( +\d+ +\d+% +\d+% +\d+% +\S+){2}", run.stdout)
    assert re.search(r"signals +db +5\.0ms .* \+\d+ms +\d+", run.stdout)
    assert run.stdout.count("event=budget_exceeded") == 2
    assert run.stdout.count("event=budget_degraded") == 1
    assert len(re.findall(r"\n  [✓~] ", run.stdout)) == 15
    assert "\x1b" not in run.stdout
    assert max(len(line) for line in run.stdout.splitlines()) <= 100
    _, headline = run.stdout.split("\nThe same requests for /signals, twice;")
    assert re.search(r"enterprise +30ms +observe +\d+ +[1-9]\d* +0 *\n", headline)
    assert re.search(r"enforce +\d+ +\d+ +[1-9]\d* +\d+ (cached|fallback)", headline)
    assert re.match(r"✓ (All 15|The other \d+) checks hold\.", headline.splitlines()[-1])
    assert max(len(line) for line in headline.splitlines()) <= 80
    drawn = picture.read_text(encoding="utf-8")
    assert ET.fromstring(drawn).tag == "{http://www.w3.org/2000/svg}svg"
    assert "@font-face" not in drawn
    assert str(Path.home()) not in drawn
    assert str(ROOT) not in drawn


def test_no_request_meets_a_connection_the_server_closes() -> None:
    """A client lets go of an idle connection first; the other way round a request may be lost."""
    assert load.KEEP_ALIVE_S < serve.KEEP_ALIVE_S


@pytest.mark.server
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_behind(how: signal.Signals, tmp_path: Path) -> None:
    """However the demo ends, its services end with it."""
    out = tmp_path / "out"
    with out.open("wb") as stdout:
        demo = subprocess.Popen(
            [sys.executable, *SHORT],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(tmp_path)},
            stdout=stdout,
            stderr=subprocess.STDOUT,
        )
    wait_until(
        lambda: "/docs" in out.read_text(encoding="utf-8"), "the demo was running", PATIENCE_S
    )
    wait_until(lambda: len(_children(demo.pid)) == 3, "all services were there")
    services = _children(demo.pid)
    demo.send_signal(how)
    code = demo.wait(timeout=PATIENCE_S)

    said = out.read_text(encoding="utf-8")
    wait_until(lambda: not any(map(_runs, services)), "the services ended")
    assert code == (-how if how is signal.SIGKILL else 128 + how), said
    if how is not signal.SIGKILL:
        assert [path for path in tmp_path.iterdir() if path != out] == []


def _children(parent: int) -> list[int]:
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(parent)],
        capture_output=True,
        text=True,
        check=True,
    )
    return [int(pid) for pid in listed.stdout.split()]


def _runs(pid: int) -> bool:
    # One that has ended and is not yet collected by anybody runs no more.
    listed = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
    )
    return listed.stdout.strip()[:1] not in {"", "Z"}
