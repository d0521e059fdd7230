"""What clients have of a server they ask at a steady rate, whatever comes back.

An open loop: requests leave when they are due, and their time counts from then, so a server that
stalls cannot slow down the asking. One thread; its timers are good to some microseconds, because
``select`` takes them as they are where ``epoll`` would round them up to milliseconds.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, TypeVar

HOST: Final = "127.0.0.1"
MOST_OPEN: Final = 250
"""Connections to one server; ``select`` can watch a thousand. Requests over it wait, and count."""

LONGEST_S: Final = 5.0
"""A request without an answer by then has failed."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One answer as its client saw it.

    Attributes:
        due_s: When its request should have been sent.
        took_s: Seconds from then to the answer's last byte.
        status: Its HTTP status.
        body: Its body.

    """

    due_s: float
    took_s: float
    status: int
    body: bytes


T = TypeVar("T")
Ended = Callable[["Line"], None]


class Line(asyncio.Protocol):
    """One connection with one request on it at a time.

    Args:
        ended: Called after an answer, and when the connection is gone.

    Attributes:
        due_s: When the request under way should have been sent, ``None`` between requests.
        answer: The status and the body of the last answer, ``None`` when there was none.

    """

    def __init__(self, ended: Ended) -> None:
        self._ended = ended
        self._received = b""
        self._transport: asyncio.Transport | None = None
        self.due_s: float | None = None
        self.answer: tuple[int, bytes] | None = None

    @property
    def is_open(self) -> bool:
        """Whether a request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take note of the connection."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def ask(self, request: bytes, due_s: float) -> None:
        """Send *request*."""
        assert self._transport is not None
        self.due_s, self.answer, self._received = due_s, None, b""
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Collect an answer; its length is always stated."""
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        if len(body) >= length:
            self.answer = int(head.split(b" ", 2)[1]), body
            self._ended(self)

    def connection_lost(self, _: Exception | None) -> None:
        """Take note of the end."""
        self.answer = None
        self._ended(self)

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.abort()


class Target:
    """A server under load.

    Attributes:
        seen: Every answer, in the order in which they came.
        sent: How many requests became due.
        failed: When those were due that had no answer, or one that is not 200.

    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[Line] = []
        self._lines: set[Line] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._waiting: deque[tuple[bytes, float]] = deque()
        self.seen: list[Seen] = []
        self.sent = 0
        self.failed: list[float] = []

    def ask(self, request: bytes, due_s: float) -> None:
        """Send *request*, which was due at *due_s*, as soon as there is a connection."""
        self.sent += 1
        while self._idle:
            line = self._idle.pop()
            if line.is_open:
                line.ask(request, due_s)
                return
        self._waiting.append((request, due_s))
        if len(self._lines) + len(self._opening) < MOST_OPEN:
            task = asyncio.get_running_loop().create_task(self._open())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def settle(self) -> None:
        """Wait for what is under way, hang up, and count what was never answered as failed."""
        until_s = time.perf_counter() + LONGEST_S
        while self._pending() and time.perf_counter() < until_s:  # noqa: ASYNC110 - one per answer
            await asyncio.sleep(0.05)
        for task in self._opening:
            task.cancel()
        self.failed += [due_s for _, due_s in self._waiting]
        self._waiting.clear()
        for line in list(self._lines):
            line.close()
        await asyncio.sleep(0)  # in which the lines say good-bye, and lost requests are counted

    def _pending(self) -> bool:
        return bool(self._waiting) or any(line.due_s is not None for line in self._lines)

    async def _open(self) -> None:
        try:
            _, line = await asyncio.get_running_loop().create_connection(
                lambda: Line(self._ended), HOST, self._port
            )
        except OSError:
            if self._waiting:
                self.failed.append(self._waiting.popleft()[1])
            return
        self._lines.add(line)
        self._next(line)

    def _next(self, line: Line) -> None:
        if self._waiting:
            line.ask(*self._waiting.popleft())
        else:
            self._idle.append(line)

    def _ended(self, line: Line) -> None:
        due_s, line.due_s = line.due_s, None
        if due_s is not None:
            took_s = time.perf_counter() - due_s
            if line.answer is not None:
                self.seen.append(Seen(due_s, took_s, *line.answer))
            if line.answer is None or line.answer[0] != 200 or took_s > LONGEST_S:
                self.failed.append(due_s)
        if line.is_open:
            self._next(line)
        else:
            self._lines.discard(line)


class Pace:
    """When requests leave, and how late they do.

    Attributes:
        late_s: Seconds each left after it was due: whatever is wrong here is not the server's.

    """

    def __init__(self) -> None:
        self.late_s: list[float] = []

    async def keep(self, per_s: float, seconds: float, ask: Callable[[int, float], None]) -> None:
        """Call *ask* with the number and the due time of each of *per_s* requests per second."""
        began_s = time.perf_counter()
        for number in range(int(per_s * seconds)):
            due_s = began_s + number / per_s
            ahead_s = due_s - time.perf_counter()
            await asyncio.sleep(max(0.0, ahead_s))
            self.late_s.append(time.perf_counter() - due_s)
            ask(number, due_s)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run *work* on an event loop with exact timers."""
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(work)
