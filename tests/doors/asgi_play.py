"""Plays an ASGI server for one exchange at a time, without an event loop or with any."""

from __future__ import annotations

import types
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from budgetware._core.policy import Amount, Match, Policy, Route, StagePolicy, TierPolicy
from budgetware._core.policy import Clock as JudgedBy
from budgetware._core.record import RequestRecord
from budgetware.asgi import ASGIApp, BudgetMiddleware, Message, Receive, Scope, Send

POLICY = Policy(
    tiers={"free": TierPolicy(budget=1.0), "pro": TierPolicy(budget=0.1)},
    routes={
        "signals": Route(
            name="signals",
            match=(Match("*", "/signals/{symbol}"),),
            stages={"db": StagePolicy(budget=Amount(0.02), operations={"select": Amount(0.01)})},
        ),
        "report": Route(
            name="report",
            match=(Match("*", "/reports/**"),),
            clock=JudgedBy.LAST_BYTE,
        ),
        "home": Route(name="home", match=(Match("*", "/"),)),
    },
    digest="d1gest",
)

START: Message = {"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"1")]}
LAST: Message = {"type": "http.response.body", "body": b"ok"}
BODY: Message = {"type": "http.request", "body": b"", "more_body": False}
GONE: Message = {"type": "http.disconnect"}


class Clock:
    """A monotonic clock that stands still until it is moved.

    Attributes:
        now: Where it stands, in seconds.
        ticks_s: How far it moves each time it is read.

    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.ticks_s = 0.0

    def __call__(self) -> float:
        """Return where it stands, in seconds."""
        self.now += self.ticks_s
        return self.now


class Door(BudgetMiddleware):
    """The middleware on a fake clock, with every record it made.

    Attributes:
        clock: Moves only when told to.
        records: What the observers were told, oldest first.

    """

    def __init__(self, app: ASGIApp, policy: Policy = POLICY, **options: Any) -> None:
        self.clock = Clock()
        self.records: list[RequestRecord] = []
        options.setdefault("clock", self.clock)
        options.setdefault("observers", [self.records.append])
        super().__init__(app, policy=policy, **options)

    @property
    def faults(self) -> dict[str, int]:
        """How often budgetware itself failed, by step."""
        return self._engine.tally.faults

    @property
    def outcomes(self) -> dict[str, int]:
        """How many requests ended how, over all routes and tiers."""
        self._engine.tally.absorb()
        counts: dict[str, int] = {}
        for series in self._engine.tally.requests.values():
            for outcome, count in series.outcomes.items():
                counts[outcome] = counts.get(outcome, 0) + count
        return {outcome: count for outcome, count in counts.items() if count}

    @property
    def errors(self) -> int:
        """How many requests failed."""
        return sum(series.errors for series in self._engine.tally.requests.values())

    @property
    def record(self) -> RequestRecord:
        """The one record there is."""
        assert len(self.records) == 1
        return self.records[0]


def http(method: str = "GET", path: str = "/signals/x", **more: Any) -> Scope:
    """Return an HTTP scope as uvicorn makes it."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(errors="replace"),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"testserver")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        **more,
    }


@dataclass
class Wire:
    """The server's side of one exchange.

    Attributes:
        incoming: What ``receive`` gives; after that it is as if the client had left.
        sent: Every message object the application sent.
        received: Every message object ``receive`` gave.
        on_receive: Runs whenever the application receives.
        on_send: Runs whenever the application sends, with the message.

    """

    incoming: Sequence[Message] = (BODY,)
    sent: list[Message] = field(default_factory=list)
    received: list[Message] = field(default_factory=list)
    on_receive: Callable[[], object] = lambda: None
    on_send: Callable[[Message], object] = lambda message: None

    async def receive(self) -> Message:
        """Give the next message."""
        self.on_receive()
        given = len(self.received)
        message = self.incoming[given] if given < len(self.incoming) else GONE
        self.received.append(message)
        return message

    async def send(self, message: Message) -> None:
        """Take a message."""
        self.on_send(message)
        self.sent.append(message)

    def run(self, app: ASGIApp, scope: Scope) -> Any:
        """Run *app* to its end where nothing has to be waited for; return what it returns."""
        return run(app(scope, self.receive, self.send))

    @property
    def body(self) -> bytes:
        """The whole body that was sent."""
        return b"".join(message.get("body", b"") for message in self.sent)


def run(awaitable: Awaitable[Any]) -> Any:
    """Run *awaitable* to its end; suspending is fine as long as nothing is awaited for real."""
    steps = awaitable.__await__()
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


@types.coroutine
def suspend() -> Generator[None, None, None]:
    """Give control back to whoever drives the coroutine, once."""
    yield


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with a short text."""
    await send(START)
    await send(LAST)
