"""Who does what may take too long, while the one who asked waits only so long? A few threads.

They are daemons and begin with the first errand. They belong to one process: a fork's child
gets its own.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any


class _Errand:
    __slots__ = ("abandoned", "done", "result", "task")

    def __init__(self, task: Callable[[], Any]) -> None:
        self.task = task
        self.done = threading.Event()
        self.result: Any = None
        self.abandoned = False


class Errands:
    """Runs short tasks on threads of its own.

    Args:
        name: Begins the names of the threads.
        threads: How many there may be.
        most: How many errands may wait or run at once; more are refused.

    """

    def __init__(self, name: str, threads: int, most: int) -> None:
        self._name = name
        self._most_threads = threads
        self._most = most
        self._begin()
        _after_fork.add(self)

    def run(self, task: Callable[[], Any], wait_s: float) -> tuple[bool | None, Any]:
        """Run *task* and wait for it up to *wait_s* seconds.

        Returns:
            ``True`` and its result, ``False`` when it takes longer, ``None`` when it was refused.
            What it raises is swallowed, and its result ``None``.

        """
        errand = self._enqueue(task)
        if errand is None:
            return None, None
        if errand.done.wait(wait_s):
            return True, errand.result
        errand.abandoned = True
        return False, None

    def send(self, task: Callable[[], Any]) -> bool:
        """Run *task* some time soon; tell whether it was accepted."""
        return self._enqueue(task) is not None

    def close(self) -> None:
        """Let the threads end when nothing is left to do."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _enqueue(self, task: Callable[[], Any]) -> _Errand | None:
        with self._changed:
            if self._closed or self._underway >= self._most:
                return None
            errand = _Errand(task)
            if self._idle <= len(self._waiting) and self._threads < self._most_threads:
                name = f"{self._name}-{self._threads}"
                thread = threading.Thread(target=self._work, name=name, daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # no more threads, or the interpreter is ending
                    if not self._threads:
                        return None
                else:
                    self._threads += 1
            self._underway += 1
            self._waiting.append(errand)
            self._changed.notify()
            return errand

    def _work(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                while not self._waiting and not self._closed:
                    self._changed.wait()
                self._idle -= 1
                if not self._waiting:
                    self._threads -= 1
                    return
                errand = self._waiting.popleft()
            if not errand.abandoned:
                try:
                    errand.result = errand.task()
                except BaseException:  # noqa: BLE001 - whoever asked takes no result for an answer
                    errand.result = None
            with self._changed:
                self._underway -= 1
            errand.done.set()

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[_Errand] = deque()
        self._threads = 0
        self._idle = 0
        self._underway = 0
        self._closed = False


_after_fork: weakref.WeakSet[Errands] = weakref.WeakSet()


def _begin_anew() -> None:
    # Threads do not survive a fork, and one of the parent's may have held the lock.
    for errands in _after_fork:
        errands._begin()  # noqa: SLF001 - the same file


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
