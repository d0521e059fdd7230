"""The floors: the least a stage can cost, whoever writes it. See ``README.md``."""

from __future__ import annotations

from time import perf_counter_ns
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.asgi import App, Message, Receive, Scope, Send


class Floor:
    """A timer made beforehand, with two clocks and one ``append``; not safe to share."""

    __slots__ = ("kept", "since")

    def __init__(self) -> None:
        self.kept: list[int] = []

    def __enter__(self) -> None:
        self.since = perf_counter_ns()

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.kept.append(perf_counter_ns() - self.since)


class FloorPerUse:
    """The same with one object per use, which whatever may run concurrently needs."""

    __slots__ = ("kept", "since")

    def __init__(self, kept: list[int]) -> None:
        self.kept = kept

    def __enter__(self) -> None:
        self.since = perf_counter_ns()

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.kept.append(perf_counter_ns() - self.since)


class PassThrough:
    """The least an ASGI middleware that looks at messages can be: one await and one wrapper."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""

        async def passing(message: Message) -> None:
            await send(message)

        await self.app(scope, receive, passing)
