"""When the file changes: read again, and handed over only when there is nothing wrong with it.

A thread reads the file about once a second. What it says is what counts, not its time: a copy that
keeps the old time is seen, and a touch is nothing. A change counts once two looks in a row agree,
so files that are still being written are left alone. Nothing starts before ``ensure_started``, and
the thread ends with the watch.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final

from budgetware.errors import PolicyError, Problem
from budgetware.names import EVENT_POLICY_REJECTED, SCOPE
from budgetware.policyfile.discover import content_of, judge

if TYPE_CHECKING:
    from os import PathLike
    from types import FrameType

    from budgetware._core.policy import Policy


_LONGEST_ERROR: Final = 500


def _log(error: PolicyError) -> None:
    logging.getLogger(SCOPE).warning(
        "%s: the policy in force stays: %s", EVENT_POLICY_REJECTED, error
    )


def _shown(error: BaseException) -> str:
    try:
        return f"{error!r:.{_LONGEST_ERROR}}"
    except Exception:  # noqa: BLE001 - not even that
        return type(error).__name__


class PolicyWatch:
    """Hands over a file's policy whenever it changes; a broken file changes nothing.

    Args:
        path: The policy file.
        apply: Called with each new policy, from the watching thread.
        interval_s: Seconds between two looks.
        environment: The layer to apply; ``BUDGETWARE_ENV`` when it is not given.
        on_problem: Called once per change that cannot be used; logs a warning unless given.
        current: Digest of the policy in force, so that the same content is not applied again.

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
    ) -> None:
        self._path = os.fspath(path)
        self._apply = apply
        self._interval_s = interval_s
        self._environment = environment
        self._on_problem = on_problem
        self._digest = current
        # What the file said at the last look, and what it said when that was acted on.
        self._seen: bytes | Problem | None = None
        self._handled: bytes | Problem | None = None
        self._failure = ""
        self._forget_thread()
        _watches.add(self)

    def ensure_started(self) -> None:
        """Start the watching thread unless it runs already; after a fork, in the child too."""
        # Not waiting: a signal handler may call this while the same thread is in here.
        if self._starting.acquire(blocking=False):
            try:
                if self._thread is None or not self._thread.is_alive():
                    orders = self._orders
                    # Whoever watches is not kept by being watched for, and its end is an order.
                    watch = weakref.ref(self, lambda _: orders.put("stop"))
                    thread = threading.Thread(
                        target=_look_again_and_again,
                        args=(watch, orders, self._interval_s),
                        name="budgetware-policy",
                        daemon=True,
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

        Raises:
            ValueError: The signal has a handler that is not Python's, as a server written in C has.

        """
        previous = signal.getsignal(signum)
        if previous is None:  # it could neither be called nor be put back
            raise ValueError(
                f"signal {int(signum)} has a handler outside Python, which must stay; "
                'choose another signal, or reload="file"'
            )

        def handle(number: int, frame: FrameType | None) -> None:
            # It would come out of whatever the main thread is at. Without a thread the order waits.
            with suppress(Exception):
                self.reload_now()
            if callable(previous):
                previous(number, frame)

        signal.signal(signum, handle)

        def take_back() -> None:
            if signal.getsignal(signum) is handle:
                signal.signal(signum, previous)

        return take_back

    def look(self, *, now: bool = False) -> None:
        """Take one look at the file, and act on it if it changed and has come to rest.

        With *now* it is taken as it is. The watching thread does nothing else.
        """
        if now:
            self._failure = ""  # whoever asks is told again
        try:
            content = content_of(self._path)
            at_rest = content == self._seen
            self._seen = content
            if now or (at_rest and content != self._handled):
                self._handled = content
                self._take(content)
        except BaseException as error:  # noqa: BLE001 - the thread outlives whoever it calls
            self._fail(error)
        else:
            self._failure = ""

    def _take(self, content: bytes | Problem) -> None:
        policy = self._judged(content)
        if policy is not None and policy.digest != self._digest:
            self._apply(policy)
            self._digest = policy.digest

    def _judged(self, content: bytes | Problem) -> Policy | None:
        """Return the policy alone: what it was made of goes before it is put in force."""
        document = judge(content, file=self._path, environment=self._environment)
        if document.policy is None:
            self._report(PolicyError(document.errors, self._path))
        return document.policy

    def _fail(self, error: BaseException) -> None:
        """Report what went wrong in a look, unless it is what did in the one before."""
        if isinstance(error, MemoryError):
            self._handled = None  # it says nothing of the file: the next look tries again
        failure = _shown(error)
        if failure != self._failure:
            self._failure = failure
            problem = Problem(message=f"the policy was not taken: {failure}", code="not-applied")
            self._report(PolicyError((problem,), self._path))

    def _report(self, error: PolicyError) -> None:
        with suppress(Exception):  # of the logger
            try:
                self._on_problem(error)
            except Exception:
                log = logging.getLogger(SCOPE)
                log.exception("a problem with the policy could not be reported")

    def _forget_thread(self) -> None:
        """Start over without a thread, as in a new process."""
        self._thread = None
        self._starting = threading.Lock()
        self._orders = SimpleQueue()


def _look_again_and_again(
    watching: weakref.ref[PolicyWatch], orders: SimpleQueue[str], interval_s: float
) -> None:
    while True:
        try:
            order = orders.get(timeout=interval_s)
        except Empty:
            order = "look"
        watch = watching()
        if order == "stop" or watch is None:
            return
        with suppress(BaseException):  # nor does telling of it end the thread
            watch.look(now=order == "reload")
        del watch


_watches: weakref.WeakSet[PolicyWatch] = weakref.WeakSet()


def _forget_threads() -> None:
    for watch in list(_watches):
        watch._forget_thread()  # noqa: SLF001 - the parent's threads are not in the child


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)
