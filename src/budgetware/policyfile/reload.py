"""When the file changes: read again, and handed over only when there is nothing wrong with it.

A thread looks at the file's size, time and inode. A change counts once two looks in a row agree,
so files that are still being written are left alone. Nothing starts before ``ensure_started``.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import weakref
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final

from budgetware.errors import PolicyError, Problem
from budgetware.names import EVENT_POLICY_REJECTED, SCOPE
from budgetware.policyfile.discover import read

if TYPE_CHECKING:
    from os import PathLike
    from types import FrameType

    from budgetware._core.policy import Policy

Signature = tuple[int, int, int]
"""Modification time in ns, size and inode; equal as long as a file was not touched."""

_GONE: Final = (0, 0, 0)


def signature_of(path: str) -> Signature:
    """Return the signature of the file at *path*, all zero when there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116 - one system call, asked once a second for ever
    except OSError:
        return _GONE
    return status.st_mtime_ns, status.st_size, status.st_ino


def _log(error: PolicyError) -> None:
    logging.getLogger(SCOPE).warning(
        "%s: the policy in force stays: %s", EVENT_POLICY_REJECTED, error
    )


class PolicyWatch:
    """Hands over a file's policy whenever it changes; a broken file changes nothing.

    Args:
        path: The policy file.
        apply: Called with each new policy, from the watching thread.
        interval_s: Seconds between two looks.
        environment: The layer to apply; ``BUDGETWARE_ENV`` when it is not given.
        on_problem: Called once per change that cannot be used; logs a warning unless given.
        current: Digest of the policy in force, so that the same content is not applied again.
        signature: Looks at the file; for tests.

    """

    _thread: threading.Thread | None
    _starting: threading.Lock
    # Its put may be called at any moment, even from a signal handler during another put.
    _orders: SimpleQueue[str]

    def __init__(  # noqa: PLR0913 - one door to everything about watching
        self,
        path: str | PathLike[str],
        apply: Callable[[Policy], object],
        *,
        interval_s: float = 1.0,
        environment: str | None = None,
        on_problem: Callable[[PolicyError], object] = _log,
        current: str = "",
        signature: Callable[[str], Signature] = signature_of,
    ) -> None:
        self._path = os.fspath(path)
        self._apply = apply
        self._interval_s = interval_s
        self._environment = environment
        self._on_problem = on_problem
        self._digest = current
        self._signature = signature
        self._handled: Signature | None = None
        self._seen: Signature | None = None
        self._forget_thread()
        _watches.add(self)

    def ensure_started(self) -> None:
        """Start the watching thread unless it runs already; after a fork, in the child too."""
        # Not waiting: a signal handler may call this while the same thread is in here.
        if self._starting.acquire(blocking=False):
            try:
                if self._thread is None or not self._thread.is_alive():
                    thread = threading.Thread(
                        target=self._watch, name="budgetware-policy", daemon=True
                    )
                    thread.start()
                    self._thread = thread
            finally:
                self._starting.release()

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the watching thread and wait for it, at most *timeout_s* seconds."""
        thread, self._thread = self._thread, None
        if thread is not None and thread.is_alive():
            self._orders.put("stop")
            if thread is not threading.current_thread():
                thread.join(timeout_s)

    def reload_now(self) -> None:
        """Have the file read at the thread's next step, changed or not; safe in signal handlers."""
        self._orders.put("reload")
        self.ensure_started()

    def install_signal(self, signum: int) -> Callable[[], None]:
        """Reload on the signal *signum*, then do what its handler did before.

        Only the main thread may install signal handlers. Returns what takes it back.
        """
        previous = signal.getsignal(signum)

        def handle(number: int, frame: FrameType | None) -> None:
            self.reload_now()
            if callable(previous):
                previous(number, frame)

        signal.signal(signum, handle)

        def take_back() -> None:
            if signal.getsignal(signum) is handle:
                signal.signal(signum, previous)

        return take_back

    def look(self, *, now: bool = False) -> None:
        """Take one look at the file, and read it if it changed and has come to rest.

        With *now* it is read as it is. The watching thread does nothing else.
        """
        signature = self._signature(self._path)
        at_rest = signature == self._seen
        self._seen = signature
        if now or (at_rest and signature != self._handled):
            self._read(signature)

    def _read(self, signature: Signature) -> None:
        document = read(self._path, environment=self._environment)
        if self._signature(self._path) != signature:
            self._seen = None
            return
        self._handled = signature
        if document.policy is None:
            self._report(PolicyError(document.errors, self._path))
        elif document.policy.digest != self._digest:
            try:
                self._apply(document.policy)
            except Exception as error:  # noqa: BLE001 - the thread outlives whoever it calls
                problem = Problem(
                    message=f"the policy was not taken: {error!r}", code="not-applied"
                )
                self._report(PolicyError((problem,), self._path))
            else:
                self._digest = document.policy.digest

    def _report(self, error: PolicyError) -> None:
        try:
            self._on_problem(error)
        except Exception:
            logging.getLogger(SCOPE).exception("a problem with the policy could not be reported")

    def _watch(self) -> None:
        orders = self._orders
        while True:
            try:
                order = orders.get(timeout=self._interval_s)
            except Empty:
                order = "look"
            if order == "stop":
                return
            self.look(now=order == "reload")

    def _forget_thread(self) -> None:
        """Start over without a thread, as in a new process."""
        self._thread = None
        self._starting = threading.Lock()
        self._orders = SimpleQueue()


_watches: weakref.WeakSet[PolicyWatch] = weakref.WeakSet()


def _forget_threads() -> None:
    for watch in list(_watches):
        watch._forget_thread()  # noqa: SLF001 - the parent's threads are not in the child


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)
