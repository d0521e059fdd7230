"""Clients of many kinds: patient and impatient, slow and rude. Each knows what is meant for it."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Final

from soak.served import STREAMED_LINES, STREAMED_PARTS, made_for

HOST: Final = "127.0.0.1"
LONGEST_S: Final = 60.0
"""No response takes so long, on however busy a machine; a client that waited has lost it."""

ROUTES: Final = ("full", "full", "public", "slow", "slow", "behind", "group", "optional", "thread")
CALLERS: Final = 24
ITEMS: Final = 4
STATUSES: Final = {200, 202, 429, 503, 504}


class LostError(Exception):
    """A response did not come, or not whole, to a client that has stayed."""


@dataclass(slots=True)
class Seen:
    """What all clients have seen.

    Attributes:
        counts: How often what happened.
        foreign: Bodies that were not for whoever got them.
        odd: Statuses that nothing explains.
        lost: Responses that did not come.

    """

    counts: Counter[str] = field(default_factory=Counter)
    foreign: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Ask:
    """One request.

    Attributes:
        method: Its method.
        path: Its path.
        query: Its query.
        caller: Who sends it.
        plan: His tier.
        body: Its body.

    """

    method: str
    path: str
    query: str
    caller: str
    plan: str
    body: bytes = b""

    @property
    def head(self) -> bytes:
        """Its first lines."""
        length = f"content-length: {len(self.body)}\r\n" if self.method == "POST" else ""
        return (
            f"{self.method} {self.path}{self.query} HTTP/1.1\r\nhost: soak\r\n"
            f"x-caller: {self.caller}\r\nx-plan: {self.plan}\r\n{length}\r\n"
        ).encode()


class Line:
    """One connection.

    Args:
        port: Of the server.

    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def send(self, data: bytes) -> None:
        """Send *data*, on a new connection if there is none."""
        if self._writer is None:
            # A small window, so that the server notices who does not read.
            made = socket.socket()
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
            made.setblocking(False)  # noqa: FBT003 - its signature
            await asyncio.get_running_loop().sock_connect(made, (HOST, self._port))
            self._reader, self._writer = await asyncio.open_connection(sock=made, limit=16_384)
        self._writer.write(data)
        await self._writer.drain()

    async def receive(self, size: int) -> bytes:
        """Return up to *size* bytes."""
        assert self._reader is not None
        return await self._reader.read(size)

    async def response(self) -> tuple[int, dict[str, str], bytes]:
        """Return the next response: status, fields and body.

        Raises:
            LostError: It is not whole.

        """
        assert self._reader is not None
        try:
            async with asyncio.timeout(LONGEST_S):
                head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = head.rstrip("\r\n").split("\r\n")
                fields = {
                    name.lower(): value.strip()
                    for name, _, value in (line.partition(":") for line in lines)
                }
                body = await self._body(fields)
        except (TimeoutError, OSError, EOFError) as error:
            raise LostError(repr(error)) from None
        return int(first.split(" ")[1]), fields, body

    async def _body(self, fields: dict[str, str]) -> bytes:
        assert self._reader is not None
        if fields.get("transfer-encoding") != "chunked":
            return await self._reader.readexactly(int(fields.get("content-length", "0")))
        parts = []
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            parts.append((await self._reader.readexactly(size + 2))[:-2])
        await self._reader.readexactly(2)
        return b"".join(parts)

    def close(self) -> None:
        """Hang up."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None

    def reset(self) -> None:
        """Hang up rudely: the server is told by a reset."""
        if self._writer is not None:
            found = self._writer.get_extra_info("socket")
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._writer.transport.abort()
        self._reader = self._writer = None


class Client:
    """One client, who does one thing after another.

    Args:
        port: Of the server.
        seed: Draws what it does.
        seen: Where it tells what it has seen.

    """

    def __init__(self, port: int, seed: int, seen: Seen) -> None:
        self._port = port
        self._rng = Random(seed)
        self._seen = seen
        self._line = Line(port)

    async def run(self, goes_on: Callable[[], bool]) -> None:
        """Do one thing after another as long as *goes_on*."""
        ways: tuple[tuple[int, Callable[[], Awaitable[None]]], ...] = (
            (40, self.ask),
            (6, self.ask_at_once),
            (6, self.leave_while_downloading),
            (6, self.leave_while_uploading),
            (4, self.leave_at_once),
            (3, self.read_slowly),
            (4, self.upload),
            (3, self.upload_slowly),
            (1, self.say_half),
        )
        weights, kinds = zip(*ways, strict=True)
        while goes_on():
            (does,) = self._rng.choices(kinds, weights)
            self._seen.counts[does.__name__] += 1
            try:
                await does()
            except (LostError, OSError) as error:
                self._seen.lost.append(f"{does.__name__}: {error!r}")
                self._line.close()
            await asyncio.sleep(self._rng.uniform(0.0, 0.05))
        self._line.close()

    async def ask(self) -> None:
        """Ask, wait and look, on a connection that is kept, or not."""
        await self._asked(self._ask())
        if self._rng.random() < 0.1:
            self._line.close()

    async def ask_at_once(self) -> None:
        """Ask for several things before the first has come."""
        asks = [self._ask() for _ in range(3)]
        await self._send(b"".join(ask.head for ask in asks))
        for ask in asks:
            self._look(ask, *await self._line.response())

    async def leave_while_downloading(self) -> None:
        """Read a little of much, and be gone."""
        line = Line(self._port)
        await line.send(self._ask("stream").head)
        await line.receive(self._rng.choice((1, 1000, 20_000)))
        line.reset()

    async def leave_while_uploading(self) -> None:
        """Announce more than is sent, and be gone."""
        line = Line(self._port)
        ask = self._ask("upload", body=b"x" * 50_000)
        await line.send(ask.head + ask.body[:10_000])
        await asyncio.sleep(self._rng.choice((0.0, 0.02)))
        line.reset()

    async def leave_at_once(self) -> None:
        """Ask, and be gone before anything has come."""
        line = Line(self._port)
        await line.send(self._ask().head)
        await asyncio.sleep(self._rng.choice((0.0, 0.01, 0.1)))
        line.reset()

    async def read_slowly(self) -> None:
        """Read much, a little at a time."""
        line = Line(self._port)
        ask = self._ask("stream")
        await line.send(ask.head)
        await asyncio.sleep(self._rng.uniform(0.3, 1.0))
        self._look(ask, *await line.response())
        line.close()

    async def upload(self) -> None:
        """Send something, all at once."""
        await self._asked(self._ask("upload", body=b"x" * self._rng.choice((0, 10, 50_000))))

    async def upload_slowly(self) -> None:
        """Send something, part by part."""
        ask = self._ask("upload", body=b"x" * 3000)
        line = Line(self._port)
        await line.send(ask.head)
        for at in range(0, 3000, 1000):
            await asyncio.sleep(self._rng.uniform(0.05, 0.3))
            await line.send(ask.body[at : at + 1000])
        self._look(ask, *await line.response())
        line.close()

    async def say_half(self) -> None:
        """Begin a request, think again, and be gone."""
        line = Line(self._port)
        await line.send(self._ask().head[:20])
        await asyncio.sleep(0.05)
        line.close()

    async def _asked(self, ask: Ask) -> None:
        await self._send(ask.head + ask.body)
        self._look(ask, *await self._line.response())

    async def _send(self, data: bytes) -> None:
        if self._rng.random() < 0.02:
            self._line.close()
        await self._line.send(data)

    def _ask(self, route: str | None = None, body: bytes = b"") -> Ask:
        rng = self._rng
        route = rng.choice(ROUTES) if route is None else route
        seconds = rng.choice((0.0, 0.0, 0.005, 0.02, 0.2, 0.3))
        gives = "&gives=up" if rng.random() < 0.3 else ""
        return Ask(
            method="POST" if route == "upload" else "GET",
            path=f"/{route}/{rng.randrange(ITEMS)}",
            query=f"?s={seconds}{gives}",
            caller=f"caller-{rng.randrange(CALLERS)}",
            plan=rng.choice(("free", "pro", "vip", "nobody")),
            body=body,
        )

    def _look(self, ask: Ask, status: int, fields: dict[str, str], body: bytes) -> None:
        """Look whether a response is one of those there are, and for whoever has asked."""
        kind = fields.get("budgetware-answer", "full")
        self._seen.counts[f"{kind} responses"] += 1
        if status not in STATUSES:
            self._seen.odd.append(f"{status} to {ask.method} {ask.path}: {body[:200]!r}")
        elif kind in {"full", "partial", "cached", "fallback"}:
            who = "anybody" if ask.path.startswith("/public/") else ask.caller
            lines = STREAMED_LINES * STREAMED_PARTS if ask.path.startswith("/stream/") else 8
            expected = made_for(who, ask.path, 1 if kind == "fallback" else lines)
            if body != expected.encode():
                self._seen.foreign.append(f"{ask.caller} at {ask.path} got {body[:200]!r}")
