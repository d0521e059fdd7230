"""The processes of the demo: started here, and ended here by their own handles."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

ROOT: Final = Path(__file__).parents[2]

_ADDRESS: Final = re.compile(r"Uvicorn running on (http://127\.0\.0\.1:\d+)")
_START_S: Final = 30.0
_STOP_S: Final = 5.0


class ServiceError(Exception):
    """A service did not start."""


class Service:
    """One service in a process of its own, as a ``with`` block.

    Args:
        application: What to run, as ``package.module:function``.
        folder: Where its output goes.
        environment: Variables it gets on top of ours.

    Attributes:
        address: Where it answers.

    """

    def __init__(
        self,
        application: str,
        folder: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._application = application
        self._environment = {**os.environ, **(environment or {})}
        name = application.replace(":", ".")
        self._out = folder / f"{name}.out"
        self._err = folder / f"{name}.err"
        self.address = ""

    def __enter__(self) -> Self:
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(  # noqa: S603 - our own module, in our own Python
                [sys.executable, "-m", "examples.demo.serve", self._application],
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                # Ctrl-C is for the demo alone, which then closes the pipe.
                process_group=0,
            )
        try:
            self.address = self._wait_for_address()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def log(self) -> list[str]:
        """Return the lines it has logged so far."""
        return self._out.read_text(encoding="utf-8", errors="replace").splitlines()

    def _wait_for_address(self) -> str:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            said = self._err.read_text(encoding="utf-8", errors="replace")
            found = _ADDRESS.search(said)
            if found is not None:
                return found.group(1)
            if self._process.poll() is not None:
                raise ServiceError(f"{self._application} ended while starting:\n{said}")
            time.sleep(0.05)
        raise ServiceError(f"{self._application} did not start within {_START_S:.0f} s")

    def _stop(self) -> None:
        process = self._process
        with contextlib.suppress(OSError):
            if process.stdin is not None:
                process.stdin.close()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
