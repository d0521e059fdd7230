"""The tests and benchmarks also run as a job in the background of a script: ``make test &``.

Without job control a shell starts such a job with SIGINT and SIGQUIT ignored (POSIX, Shell Command
Language, 2.11), and whatever the job starts inherits that.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.serving import stop

ROOT = Path(__file__).resolve().parents[1]
IN_THE_BACKGROUND = ("sh", "-c", 'trap "" INT QUIT; exec "$@"', "sh")

IGNORED = "import signal as s; print([s.getsignal(n) is s.SIG_IGN for n in (s.SIGINT, s.SIGQUIT)])"


def test_what_a_test_starts_hears_signals() -> None:
    """A program of a test ends when it is interrupted, whoever has started the tests."""
    command = [sys.executable, "-c", IGNORED]
    started = subprocess.run(command, capture_output=True, text=True, check=True)

    assert started.stdout == "[False, False]\n"


def test_what_a_test_in_the_background_starts_hears_signals() -> None:
    """The test before this one passes in such a job, too."""
    this = f"{__file__}::{test_what_a_test_starts_hears_signals.__name__}"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", this]
    inherited = subprocess.run(
        [*IN_THE_BACKGROUND, sys.executable, "-c", IGNORED],
        capture_output=True,
        text=True,
        check=True,
    )
    done = subprocess.run(
        [*IN_THE_BACKGROUND, *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert inherited.stdout == "[True, True]\n"
    assert done.returncode == 0, done.stdout + done.stderr


SERVER = """
import socket
import uvicorn
from benchmarks.serving import serve

async def app(scope, receive, send):
    pass

with socket.create_server(("127.0.0.1", 0)) as listening:
    serve(uvicorn.Config(app, lifespan="off", log_level="error"), listening)
print("counted")
"""


@pytest.mark.server
def test_a_measured_server_in_the_background_ends_in_order() -> None:
    """It is told in a way it hears, and still says what it has to say."""
    server = subprocess.Popen(
        [*IN_THE_BACKGROUND, sys.executable, "-c", SERVER],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    assert int(server.stdout.readline())

    assert stop(server) == "counted\n"
    assert server.returncode == 0


@pytest.mark.parametrize("files", ["benchmarks/*.py", "examples/**/*.py", ".ci/*"])
def test_nothing_is_ended_by_a_signal_it_may_not_hear(files: str) -> None:
    """Outside the tests, which see to it that it is heard, SIGINT is only ever received."""
    sent = re.compile(r"(send_signal|kill|killpg)\b.*\b(SIG)?(INT|QUIT)\b")
    texts = {path: path.read_text("utf-8") for path in ROOT.glob(files)}

    assert texts
    assert [str(path) for path, text in texts.items() if sent.search(text)] == []
