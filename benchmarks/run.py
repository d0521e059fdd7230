"""Measure what budgetware promises of itself: ``python3 benchmarks/run.py``.

This file needs nothing but Python: it makes the environment of the measurements in
``benchmarks/.env``, apart from the project's own and one per interpreter, and hands over to
``benchmarks/table.py`` there.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
ENVIRONMENT = HERE / ".env" / f"{sys.version_info.major}.{sys.version_info.minor}"
PYTHON = ENVIRONMENT / "bin" / "python"
STAMP = ENVIRONMENT / ".installed"
OLDEST = (3, 11)


def wanted() -> str:
    """Return what identifies the environment: the interpreter and everything it is made from."""
    content = sys.version.encode()
    for file in (HERE / "requirements.txt", ROOT / "pyproject.toml"):
        content += file.read_bytes()
    return hashlib.sha256(content).hexdigest()


def make_environment() -> None:
    """Make the environment, unless it is there and as it should be."""
    if STAMP.is_file() and STAMP.read_text("ascii") == wanted():
        return
    print(f"making {ENVIRONMENT.relative_to(ROOT)} ...", flush=True)
    venv.create(ENVIRONMENT, with_pip=True, clear=True)
    subprocess.run(
        [
            *(PYTHON, "-m", "pip", "install", "-qq", "--disable-pip-version-check"),
            *("--requirement", HERE / "requirements.txt"),
            *("--editable", f"{ROOT}[prometheus]"),
        ],
        check=True,
    )
    STAMP.write_text(wanted(), "ascii")


def main() -> int:
    """Return the exit code: 0 passed, 1 failed, 2 cannot start, 3 something was not measured."""
    if sys.version_info < OLDEST:
        print(f"budgetware needs Python {OLDEST[0]}.{OLDEST[1]}, this is {sys.version.split()[0]}")
        return 2
    if not {"--list", "--help", "-h"} & set(sys.argv):
        try:
            make_environment()
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"benchmarks/.env could not be made: {error}")
            return 2
    python = PYTHON if PYTHON.is_file() else sys.executable
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    command = [python, "-m", "benchmarks.table", *sys.argv[1:]]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
