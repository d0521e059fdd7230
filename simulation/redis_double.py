"""A Redis that may be slow, silent, gone, flushed or hostile; redis-py takes it for a server.

It is met at the level of bytes: our stores, our rates and redis-py's connections all run as they do
in life. What it is like changes in the course of a world.
"""

from __future__ import annotations

import asyncio
import errno
import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, Final

import redis

from budgetware.limits.script import DIGEST, SCRIPT

if TYPE_CHECKING:
    from simulation.loop import Loop, VirtualTime
    from simulation.threads import Threads

MOODS: Final = ("up", "slow", "crawling", "silent", "gone", "leaving", "hostile", "loading")
"""What it may be like: answers take no time, a moment, too long, or never come; connections are
refused, or end instead of an answer; answers are wrong, or say that it is not ready."""

_WRONG_TYPE: Final = b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"


@dataclass(slots=True)
class _Entry:
    value: bytes
    until_s: float


class RedisDouble:
    """The server.

    Args:
        time: Its clock.
        rng: Draws how hostile it is.
        note: Takes down what happens.

    Attributes:
        time: Its clock.
        mood: What it is like now.
        lies: Whether it has ever been hostile.
        found: How many responses it was asked for and had.

    """

    def __init__(self, time: VirtualTime, rng: Random, note: Callable[[str], None]) -> None:
        self.time = time
        self._rng = rng
        self._note = note
        self._entries: dict[bytes, _Entry] = {}
        self._scripts: set[bytes] = set()
        self.mood = "up"
        self.lies = False
        self.found = 0

    def turn(self, mood: str) -> None:
        """Be like *mood* from now on."""
        self._note(f"is {mood} from now on")
        self.mood = mood
        self.lies = self.lies or mood == "hostile"

    def flush(self) -> None:
        """Forget everything, as a server that was started again."""
        self._note("forgets everything")
        self._entries.clear()
        self._scripts.clear()

    def connects_after_s(self) -> float | None:
        """Return how long it takes to connect, ``None`` for ever.

        Raises:
            ConnectionRefusedError: There is nobody.

        """
        if self.mood == "gone":
            raise ConnectionRefusedError("nobody listens")
        return self._delay_s()

    def _delay_s(self) -> float | None:
        if self.mood == "silent":
            return None
        ranges = {"slow": (0.0, 0.015), "crawling": (0.01, 0.3)}
        return self._rng.uniform(*ranges[self.mood]) if self.mood in ranges else 0.0

    def answer(self, commands: list[list[bytes]], queue: list[list[bytes]] | None) -> Any:
        """Return after how many seconds which bytes come back, and what is queued from then on.

        Args:
            commands: Those that have come.
            queue: What is to be executed together, ``None`` outside a transaction.

        Returns:
            The delay, ``None`` for never; the bytes, ``None`` for the connection's end; the queue.

        """
        if self.mood in {"gone", "leaving"}:
            return 0.0, None, None
        replies = []
        for command in commands:
            reply, queue = self._reply(command, queue)
            replies.append(self._distorted(reply) if self.mood == "hostile" else reply)
        return self._delay_s(), b"".join(replies), queue

    def _reply(
        self, command: list[bytes], queue: list[list[bytes]] | None
    ) -> tuple[bytes, list[list[bytes]] | None]:
        name = command[0].upper()
        if self.mood == "loading":
            return b"-LOADING Redis is loading the dataset in memory\r\n", None
        if name == b"MULTI":
            return b"+OK\r\n", []
        if name == b"EXEC":
            found = [self._executed(one) for one in queue or []]
            return b"*%d\r\n%b" % (len(found), b"".join(found)), None
        if queue is not None:
            return b"+QUEUED\r\n", [*queue, command]
        return self._executed(command), None

    def _executed(self, command: list[bytes]) -> bytes:
        name, arguments = command[0].upper().decode(), command[1:]
        known: dict[str, Callable[..., bytes]] = {
            "PING": lambda: b"+PONG\r\n",
            "SELECT": lambda _: b"+OK\r\n",
            "CLIENT": lambda *_: b"+OK\r\n",
            "GETRANGE": self._getrange,
            "PTTL": self._pttl,
            "SET": self._set,
            "EVALSHA": self._evalsha,
            "EVAL": self._eval,
        }
        if name not in known:
            return b"-ERR unknown command\r\n"
        return known[name](*arguments)

    def _found(self, key: bytes) -> _Entry | None:
        entry = self._entries.get(key)
        if entry is None or entry.until_s > self.time.now:
            return entry
        del self._entries[key]
        return None

    def _getrange(self, key: bytes, start: bytes, end: bytes) -> bytes:
        entry = self._found(key)
        self.found += entry is not None
        value = b"" if entry is None else entry.value[int(start) : int(end) + 1]
        return b"$%d\r\n%b\r\n" % (len(value), value)

    def _pttl(self, key: bytes) -> bytes:
        entry = self._found(key)
        left_ms = -2 if entry is None else int((entry.until_s - self.time.now) * 1000)
        return b":%d\r\n" % left_ms

    def _set(self, key: bytes, value: bytes, _: bytes, left_ms: bytes) -> bytes:
        self._entries[key] = _Entry(value, self.time.now + int(left_ms) / 1000)
        return b"+OK\r\n"

    def _evalsha(self, digest: bytes, *arguments: bytes) -> bytes:
        if digest not in self._scripts:
            return b"-NOSCRIPT No matching script. Please use EVAL.\r\n"
        return self._script(*arguments)

    def _eval(self, script: bytes, *arguments: bytes) -> bytes:
        assert script == SCRIPT.encode()
        self._scripts.add(DIGEST.encode())
        return self._script(*arguments)

    def _script(self, _: bytes, key: bytes, interval: bytes, tolerance: bytes) -> bytes:
        """Do what our script does."""
        now = self.time.now * 1e6
        step, most = float(interval), float(tolerance)
        entry = self._found(key)
        arrival = max(now, float(entry.value)) if entry is not None else now
        arrival = min(arrival, now + most)
        wait = math.ceil(arrival + step - most - now - step * 0.000001)
        if wait > 0:
            return b":%d\r\n" % wait
        arrival += step
        self._entries[key] = _Entry(repr(arrival).encode(), arrival / 1e6)
        return b":0\r\n"

    def _distorted(self, reply: bytes) -> bytes:
        """Return something else than *reply*, or now and then that."""
        others = [entry.value for entry in self._entries.values()]
        others.append(b"BWA\x01" + b"\0" * 60)
        value = self._rng.choice(others)
        torn = value[: self._rng.randint(0, len(value))]
        if reply.startswith(b"*") and self._rng.random() < 0.5:
            reply = b"*2\r\n$%d\r\n%b\r\n:60000\r\n" % (len(value), value)
        return self._rng.choice(
            (
                reply,
                reply,
                _WRONG_TYPE,
                b":-7\r\n",
                b":99999999999999999999\r\n",
                b"$-1\r\n",
                b"*0\r\n",
                b"*1\r\n$1\r\nx\r\n",
                b"-NOAUTH Authentication required.\r\n",
                b"HTTP/1.1 400 Bad Request\r\n\r\n",
                b"*2\r\n$%d\r\n%b\r\n:5000\r\n" % (len(torn), torn),
                reply + b"+OK\r\n",
                reply[: len(reply) // 2],
            )
        )


class Talk:
    """What is said on one connection.

    Args:
        server: The server at the other end.

    """

    def __init__(self, server: RedisDouble) -> None:
        self._server = server
        self._received = b""
        self._queue: list[list[bytes]] | None = None

    def say(self, data: bytes) -> tuple[float | None, bytes | None]:
        """Return after how many seconds which bytes come back for *data*; see ``answer``."""
        self._received += data
        commands = []
        while (command := self._command()) is not None:
            commands.append(command)
        if not commands:
            return 0.0, b""
        delay_s, reply, self._queue = self._server.answer(commands, self._queue)
        return delay_s, reply

    def _command(self) -> list[bytes] | None:
        """Take the next whole command out of what has come."""
        head, found, rest = self._received.partition(b"\r\n")
        if not found:
            return None
        command = []
        for _ in range(int(head[1:])):
            size, found, rest = rest.partition(b"\r\n")
            length = int(size[1:]) if found else 0
            if not found or len(rest) < length + 2:
                return None
            command.append(rest[:length])
            rest = rest[length + 2 :]
        self._received = rest
        return command


class Transport(asyncio.Transport):
    """One connection of an event loop.

    Args:
        loop: The loop.
        talk: The other end.
        protocol: Ours.

    """

    def __init__(self, loop: Loop, talk: Talk, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._loop = loop
        self._talk = talk
        self._protocol = protocol
        self._is_closing = False
        self._coming: list[asyncio.TimerHandle] = []

    def write(self, data: Any) -> None:
        """Send *data*, and have what comes back received."""
        if self._is_closing:
            return
        delay_s, reply = self._talk.say(bytes(data))
        if delay_s is None:
            return
        if reply is None:
            self._end()
        elif reply:
            self._coming.append(self._loop.call_later(delay_s, self._arrives, reply))

    def writelines(self, list_of_data: Any) -> None:
        """Send all of it."""
        self.write(b"".join(list_of_data))

    def _arrives(self, reply: bytes) -> None:
        if not self._is_closing:
            self._protocol.data_received(reply)

    def _end(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            for handle in self._coming:
                handle.cancel()
            self._loop.call_soon(self._protocol.connection_lost, None)

    def close(self) -> None:
        """Hang up."""
        self._end()

    abort = close

    def is_closing(self) -> bool:
        """Tell whether somebody has hung up."""
        return self._is_closing


class Lines:
    """Leads the connections of an event loop to a server.

    Args:
        server: The server.

    """

    def __init__(self, server: RedisDouble) -> None:
        self._server = server

    async def connect(self, loop: Loop, protocol: asyncio.Protocol) -> asyncio.Transport:
        """Return a new connection.

        Raises:
            OSError: There is nobody.

        """
        delay_s = self._server.connects_after_s()
        if delay_s is None:
            await loop.create_future()
        elif delay_s:
            await asyncio.sleep(delay_s)
        transport = Transport(loop, Talk(self._server), protocol)
        protocol.connection_made(transport)
        return transport


class Socket:
    """One connection of a thread.

    Args:
        threads: Those of the world.
        talk: The other end.
        time: The clock.

    """

    def __init__(self, threads: Threads, talk: Talk, time: VirtualTime) -> None:
        self._threads = threads
        self._talk = talk
        self._time = time
        self.timeout_s: float | None = None
        self._coming: list[tuple[float, bytes]] = []
        self._is_closed = False

    def settimeout(self, timeout_s: float | None) -> None:
        """Bound every wait."""
        self.timeout_s = timeout_s

    def sendall(self, data: bytes) -> None:
        """Send *data*, and have what comes back received."""
        delay_s, reply = self._talk.say(data)
        if reply is None:
            self._is_closed = True
        elif reply and delay_s is not None:
            self._coming.append((self._time.now + delay_s, reply))

    def recv(self, _: int) -> bytes:
        """Return what has come, once something has.

        Raises:
            TimeoutError: Nothing has.

        """
        if self._is_closed:
            return b""
        if not self._has_come():
            if self.timeout_s == 0:
                raise BlockingIOError(errno.EWOULDBLOCK, "nothing is there")
            ready_s = min((at_s for at_s, _ in self._coming), default=math.inf) - self._time.now
            wait_s = math.inf if self.timeout_s is None else self.timeout_s
            self._threads.wait(self._has_come, min(wait_s, ready_s), may_exit=False)
            if not self._has_come():
                raise TimeoutError("timed out")
        return self._coming.pop(0)[1]

    def _has_come(self) -> bool:
        return bool(self._coming) and self._coming[0][0] <= self._time.now + 1e-9

    def shutdown(self, _: int) -> None:
        """Hang up."""
        self._is_closed = True

    def close(self) -> None:
        """Hang up."""
        self._is_closed = True


def connected_to(server: RedisDouble, threads: Threads) -> type[redis.Connection]:
    """Return a class of connections that lead to *server*."""

    class Connection(redis.Connection):
        def _connect(self) -> Any:
            delay_s, most_s = server.connects_after_s(), self.socket_connect_timeout or 0.0
            if delay_s is None or delay_s > most_s:
                threads.sleep(most_s)
                raise TimeoutError("timed out")
            if delay_s:
                threads.sleep(delay_s)
            made = Socket(threads, Talk(server), server.time)
            made.settimeout(self.socket_timeout)
            return made

    return Connection
