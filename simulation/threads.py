"""Threads that run one at a time, on virtual time: who goes on is drawn, and only where it waits.

They are real threads with a baton. What has it runs until it waits for something of here, or looks
at the clock at the wrong moment; then whoever is ready may be next. When nobody is, time passes.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from math import inf
from random import Random
from typing import Any, Final

from simulation.loop import MOST_STEPS, StuckError, VirtualTime

PREEMPTED: Final = 0.05
"""How likely somebody else goes on when a thread looks at the clock or takes a lock."""

_LONGEST_S: Final = 30.0
"""Real seconds after which a thread that does not give the baton back is taken for stuck."""


class AbandonedError(BaseException):
    """Ends a thread that nobody needs any more."""


class ExitedError(SystemExit):
    """Ends a request whose worker is told to exit, as servers do with one that takes too long."""


class Fiber:
    """One thread.

    Args:
        threads: All of them.
        work: What it does.
        name: What it is called.
        is_service: Whether nobody waits for its end.

    Attributes:
        exits_at: When what it does is ended from outside, ``inf`` for never.

    """

    def __init__(
        self, threads: Threads, work: Callable[[], object], name: str, *, is_service: bool
    ) -> None:
        self._threads = threads
        self._work = work
        self.name = name
        self.is_service = is_service
        self.exits_at = inf
        self.until = 0.0
        self.awaited: Callable[[], bool] | None = None
        self.go = threading.Lock()
        self.go.acquire()
        self.error: BaseException | None = None
        self.abandoned = False
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    def is_ready(self, now: float) -> bool:
        """Tell whether it can go on at *now*."""
        return now >= min(self.until, self.exits_at) or (
            self.awaited is not None and self.awaited()
        )

    def _run(self) -> None:
        self.go.acquire()
        try:
            if not self.abandoned:
                self._work()
        except AbandonedError:
            pass
        except BaseException as error:  # noqa: BLE001 - said by the scheduler
            self.error = error
        finally:
            self._threads.ended(self)


class Threads:
    """All threads of a world.

    Args:
        time: Their clock.
        order: Draws whose turn it is.
        stepped: Called after every turn.

    Attributes:
        current: Whose turn it is.
        between: What is to be done when it is nobody's.

    """

    def __init__(self, time: VirtualTime, order: Random, stepped: Callable[[], None]) -> None:
        self._time = time
        self._order = order
        self._stepped = stepped
        self.between: list[Callable[[], object]] = []
        self.begin_anew()

    def begin_anew(self) -> None:
        """Begin without any thread, as a child that was forked does."""
        self._fibers: list[Fiber] = []
        self._back = threading.Lock()
        self._back.acquire()
        self.current: Fiber | None = None
        self.steps = 0

    def start(self, work: Callable[[], object], name: str, *, is_service: bool = False) -> Fiber:
        """Have *work* done by a thread of its own."""
        fiber = Fiber(self, work, name, is_service=is_service)
        self._fibers.append(fiber)
        fiber.thread.start()
        return fiber

    def run(self) -> None:
        """Let all threads come to their end, and abandon those that only serve others.

        Raises:
            StuckError: One waits for something that will not happen.

        """
        try:
            while not all(fiber.is_service for fiber in self._fibers):
                self._turn()
        finally:
            for fiber in list(self._fibers):
                fiber.abandoned = True
                self._hand_over(fiber)

    def _turn(self) -> None:
        while self.between:
            self.between.pop()()
        now = self._time.now
        ready = [fiber for fiber in self._fibers if fiber.is_ready(now)]
        if not ready:
            soonest = min(min(fiber.until, fiber.exits_at) for fiber in self._fibers)
            if soonest == inf:
                waiting = ", ".join(fiber.name for fiber in self._fibers)
                raise StuckError(f"nothing is left to happen, and these wait: {waiting}")
            self._time.now = soonest
            return
        fiber = ready[int(self._order.random() * len(ready))]
        self._hand_over(fiber)
        if fiber.error is not None:
            raise StuckError(f"{fiber.name} has ended with {fiber.error!r}") from fiber.error
        self.steps += 1
        self._stepped()
        if self.steps > MOST_STEPS:
            raise StuckError(f"{self.steps} steps, and no end")

    def _hand_over(self, fiber: Fiber) -> None:
        self.current = fiber
        fiber.go.release()
        if not self._back.acquire(timeout=_LONGEST_S):
            raise StuckError(f"{fiber.name} does not give the baton back")
        self.current = None

    def exit_all(self, name: str) -> None:
        """Tell all threads whose name begins with *name* to exit from what they are at."""
        for fiber in self._fibers:
            if fiber.name.startswith(name):
                fiber.exits_at = self._time.now

    def ended(self, fiber: Fiber) -> None:
        """Take note of the end of *fiber*."""
        self._fibers.remove(fiber)
        self._back.release()

    def wait(
        self,
        awaited: Callable[[], bool] | None,
        timeout_s: float | None = None,
        *,
        may_exit: bool = True,
    ) -> bool:
        """Wait until *awaited* is true, or for so long; tell whether it is true.

        Args:
            awaited: Becomes true, or there is only time to pass.
            timeout_s: The longest wait, ``None`` for any.
            may_exit: Whether the worker may be told to exit meanwhile.

        Raises:
            AbandonedError: Nobody needs this thread any more.
            ExitedError: Its worker is told to exit.

        """
        fiber = self.current
        assert fiber is not None
        exits_at = fiber.exits_at
        if not may_exit:
            fiber.exits_at = inf
        fiber.awaited = awaited
        fiber.until = inf if timeout_s is None else self._time.now + timeout_s
        self._back.release()
        fiber.go.acquire()
        if fiber.abandoned:
            raise AbandonedError
        if not may_exit:
            fiber.exits_at = exits_at
        elif self._time.now >= exits_at:
            fiber.exits_at = inf
            raise ExitedError
        return awaited is not None and awaited()

    def sleep(self, seconds: float) -> None:
        """Let *seconds* pass."""
        self.wait(None, seconds)

    def look(self) -> float:
        """Return where the clock stands; now and then somebody else goes on before."""
        self.may_switch()
        return self._time.now

    def may_switch(self) -> None:
        """Let somebody else go on, now and then."""
        fiber = self.current
        if fiber is not None and not fiber.abandoned and self._order.random() < PREEMPTED:
            self.wait(None, 0.0, may_exit=False)


class Lock:
    """A lock of these threads."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._is_held = False

    def __enter__(self) -> bool:
        self._threads.may_switch()
        if self._is_held:
            self._threads.wait(lambda: not self._is_held, may_exit=False)
        self._is_held = True
        return True

    def __exit__(self, *_: object) -> None:
        self._is_held = False


class Event:
    """An event of these threads."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._is_set = False

    def set(self) -> None:
        """Let those who wait go on."""
        self._is_set = True

    def is_set(self) -> bool:
        """Tell whether it was set."""
        return self._is_set

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for it; tell whether it was set."""
        return self._is_set or self._threads.wait(self.is_set, timeout)


class Condition:
    """A condition of these threads."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._lock = Lock(threads)
        self._waiting: list[list[bool]] = []

    def __enter__(self) -> bool:
        return self._lock.__enter__()

    def __exit__(self, *error: object) -> None:
        self._lock.__exit__(*error)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait to be notified, without the lock; tell whether that was so."""
        told = [False]
        self._waiting.append(told)
        self._lock.__exit__()
        try:
            self._threads.wait(lambda: told[0], timeout)
        finally:
            if told in self._waiting:
                self._waiting.remove(told)
            self._lock.__enter__()
        return told[0]

    def notify(self, n: int = 1) -> None:
        """Let *n* of those who wait go on."""
        for told in self._waiting[:n]:
            told[0] = True
        del self._waiting[:n]

    def notify_all(self) -> None:
        """Let all of them go on."""
        self.notify(len(self._waiting))


class LifoQueue:
    """A stack of these threads."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._items: list[Any] = []

    def put(self, item: Any) -> None:
        """Put *item* on top."""
        self._items.append(item)

    def get_nowait(self) -> Any:
        """Take the topmost.

        Raises:
            queue.Empty: There is none.

        """
        if not self._items:
            raise queue.Empty
        return self._items.pop()

    def get(self, timeout: float | None = None) -> Any:
        """Take the topmost, once there is one.

        Raises:
            queue.Empty: There was none for so long.

        """
        if not self._items:
            self._threads.wait(lambda: bool(self._items), timeout)
        return self.get_nowait()


class Threading:
    """What stands in place of the modules ``threading``, ``queue`` and ``time``.

    Args:
        threads: Those of the world.

    """

    Empty = queue.Empty

    def __init__(self, threads: Threads) -> None:
        self._threads = threads

    def Thread(  # noqa: N802 - its name
        self,
        target: Callable[..., object],
        name: str = "thread",
        args: Iterable[Any] = (),
        *,
        daemon: bool = False,
    ) -> _Startable:
        """Return a thread that can be started."""
        return _Startable(
            lambda: self._threads.start(lambda: target(*args), name, is_service=daemon)
        )

    def Lock(self) -> Lock:  # noqa: N802 - likewise
        """Return a lock."""
        return Lock(self._threads)

    def Event(self) -> Event:  # noqa: N802 - likewise
        """Return an event."""
        return Event(self._threads)

    def Condition(self) -> Condition:  # noqa: N802 - likewise
        """Return a condition."""
        return Condition(self._threads)

    def LifoQueue(self) -> LifoQueue:  # noqa: N802 - likewise
        """Return a stack."""
        return LifoQueue(self._threads)

    def monotonic(self) -> float:
        """Return where the clock stands."""
        return self._threads.look()


class _Startable:
    def __init__(self, start: Callable[[], object]) -> None:
        self.start = start
