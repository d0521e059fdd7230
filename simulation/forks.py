"""A child that is forked in the middle of a world: it begins with nothing, and serves."""

from __future__ import annotations

import os
import signal
import traceback
import warnings
from collections.abc import Callable
from typing import Final

CHILD_S: Final = 20
"""Real seconds after which a child that waits for its parent's locks is ended."""


def forked(serve: Callable[[], list[str]]) -> list[str]:
    """Have a child process *serve*, and return what it says did not hold."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that there are threads is the point
        child = os.fork()
    if child == 0:
        _be_a_child(serve, writing)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as said:
        broken = said.read().splitlines()
    _, status = os.waitpid(child, 0)
    if status:
        broken.append(f"fork: the child ended with {status}")
    return broken


def _be_a_child(serve: Callable[[], list[str]], writing: int) -> None:
    try:
        signal.alarm(CHILD_S)
        broken = serve()
    except BaseException:  # noqa: BLE001 - the parent is told, and nothing of its own is run here
        broken = [f"fork: {traceback.format_exc(limit=-3)!r}"]
    try:
        os.write(writing, "\n".join(broken).encode()[:60_000])
    finally:
        os._exit(0)
