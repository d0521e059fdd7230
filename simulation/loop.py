"""An event loop whose time is virtual and whose order is drawn: whoever is ready may be next.

Only what is public about event loops is used, so it is the same on every Python. There are no
sockets: connections lead to whatever the world has put at the other end.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import Context
from itertools import count
from random import Random
from typing import Any, Final, Protocol, TypeVar

T = TypeVar("T")

MOST_STEPS: Final = 200_000
"""A world that takes more goes in circles."""


class StuckError(Exception):
    """Nothing is left to happen, or too much, and somebody still waits."""


class VirtualTime:
    """A clock that stands still while anybody has something to do.

    Attributes:
        now: Where it stands, in seconds.

    """

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return where it stands, in seconds."""
        return self.now


class Network(Protocol):
    """Leads connections to the other end."""

    async def connect(self, loop: Loop, protocol: asyncio.Protocol) -> asyncio.Transport:
        """Return the transport of a new connection, which belongs to *protocol*.

        Raises:
            OSError: There is nobody.

        """


@contextmanager
def numbered(kind: Any) -> Iterator[None]:
    """Have objects of *kind* stand in sets where a number puts them, and not their address."""
    numbers: dict[int, int] = {}
    counter = count()
    made, hashed = kind.__init__, kind.__hash__

    def make(self: object, *args: Any, **options: Any) -> None:
        numbers[id(self)] = next(counter)
        made(self, *args, **options)

    kind.__init__, kind.__hash__ = make, lambda self: numbers.get(id(self), 0)
    try:
        yield
    finally:
        kind.__init__, kind.__hash__ = made, hashed


class Task(asyncio.Task[Any]):
    """A task that stands in sets where its number puts it, and not its address."""

    number: int

    def __hash__(self) -> int:
        return self.number


class Loop(asyncio.AbstractEventLoop):
    """Runs whoever is ready, and lets time pass when nobody is.

    Args:
        time: Its clock.
        order: Draws whose turn it is among those who are ready; ``None`` for first come, first
            served.
        stepped: Called after every step.
        network: Where connections lead, if anywhere.

    Attributes:
        tasks: All that were ever made, oldest first.
        troubles: What nobody was there to hear: errors of callbacks, and of tasks nobody awaits.
        steps: How many there were.
        turns: How often everybody who was ready has had a turn.

    """

    def __init__(
        self,
        time: VirtualTime,
        order: Random | None,
        stepped: Callable[[], None],
        network: Network | None = None,
    ) -> None:
        self._time = time
        self._draw = None if order is None else order.random
        self._stepped = stepped
        self._network = network
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._numbers = count()
        self._closed = False
        self.tasks: list[Task] = []
        self.troubles: list[dict[str, Any]] = []
        self.steps = self.turns = 0

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run *main* to its end, and return what it returns.

        Raises:
            StuckError: It waits for something that will not happen.

        """
        asyncio.set_event_loop(None)
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        try:
            task = self.create_task(main)
            while not task.done():
                self._turn()
            return task.result()  # type: ignore[no-any-return]
        finally:
            asyncio._set_running_loop(before)

    def pending(self) -> list[asyncio.TimerHandle]:
        """Return the appointments that were neither kept nor called off, in their order."""
        return [handle for _, _, handle in sorted(self._timers) if not handle.cancelled()]

    def _turn(self) -> None:
        """Run everybody who is ready now; those they make ready have the next turn."""
        timers, ready = self._timers, self._ready
        while timers and timers[0][2].cancelled():
            heapq.heappop(timers)
        if not ready:
            if not timers:
                raise StuckError("nothing is left to happen, and somebody still waits")
            self._time.now = max(self._time.now, timers[0][0])
        while timers and timers[0][0] <= self._time.now:
            ready.append(heapq.heappop(timers)[2])
        turn = list(ready)
        ready.clear()
        self.turns += 1
        draw = self._draw
        if draw is not None and len(turn) > 1:
            turn.sort(key=lambda _: draw())
        for handle in turn:
            if not handle.cancelled():
                handle._run()
                self.steps += 1
                self._stepped()
        if self.steps > MOST_STEPS:
            raise StuckError(f"{self.steps} steps, and no end")

    # What follows is the interface of every event loop.

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Have *callback* run in the next turn."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Have *callback* run after *delay* seconds."""
        return self.call_at(self._time.now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Have *callback* run at *when*."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._numbers), handle))
        return handle

    def time(self) -> float:
        """Return where the clock stands."""
        return self._time.now

    def create_future(self) -> asyncio.Future[Any]:
        """Return a future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, **options: Any) -> Task:
        """Run *coro* as a task."""
        task = Task.__new__(Task)
        task.number = len(self.tasks)
        task.__init__(coro, loop=self, **options)  # type: ignore[misc]
        self.tasks.append(task)
        return task

    async def create_connection(  # type: ignore[override]
        self, protocol_factory: Callable[[], asyncio.Protocol], *_: object, **__: object
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        """Connect to whoever is at the other end."""
        if self._network is None:
            raise ConnectionRefusedError("this world has no network")
        protocol = protocol_factory()
        return await self._network.connect(self, protocol), protocol

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Take note of what nobody is there to hear."""
        self.troubles.append(context)

    def get_task_factory(self) -> None:
        """Return ``None``: ``create_task`` makes tasks."""

    def get_debug(self) -> bool:
        """Return ``False``: a world is watched by its own invariants."""
        return False

    def is_running(self) -> bool:
        """Tell whether this is the running loop."""
        return asyncio._get_running_loop() is self

    def is_closed(self) -> bool:
        """Tell whether it was closed."""
        return self._closed

    def close(self) -> None:
        """Close it."""
        self._closed = True

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Do nothing: what was called off is passed over when its time comes."""
