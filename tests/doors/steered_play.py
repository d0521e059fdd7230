"""Plays clients of a service that answers in time, over ASGI, on a time of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route as Path
from tests.doors.virtual_time import Time

from budgetware._core.policy import (
    CachePolicy,
    Match,
    Mode,
    Policy,
    Route,
    StaticAnswer,
    TierPolicy,
)
from budgetware.asgi import ASGIApp, BudgetMiddleware, Message, Receive, Send

LIMIT_S = 0.1

SIGNALS = Route(
    name="signals",
    match=(Match("*", "/signals"),),
    answers=("cached", "static"),
    static=StaticAnswer(body="static"),
    cache=CachePolicy(fresh=1.0, stale=60.0),
)

POLICY = Policy(
    mode=Mode.ENFORCE,
    tiers={"pro": TierPolicy(budget=LIMIT_S)},
    routes={"signals": SIGNALS},
)


class Answered:
    """What one client got."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.at_s: list[float] = []

    @property
    def body(self) -> bytes:
        """The whole body."""
        return b"".join(message.get("body", b"") for message in self.messages)

    @property
    def kind(self) -> str | None:
        """Which smaller answer it was, ``None`` for the full one."""
        headers = dict(self.messages[0]["headers"])
        kind = headers.get(b"budgetware-answer")
        return None if kind is None else kind.decode()

    @property
    def complete(self) -> bool:
        """Whether it is one response: begun once, ended once."""
        kinds = [message["type"] for message in self.messages]
        last = [not message.get("more_body", False) for message in self.messages[1:]]
        return (
            kinds[:1] == ["http.response.start"]
            and set(kinds[1:]) == {"http.response.body"}
            and last.index(True) == len(last) - 1
        )


class Play:
    """An application behind the door, on a time of its own."""

    def __init__(  # noqa: PLR0913 - what a test may want otherwise
        self,
        endpoint: Callable[[Request], Awaitable[Response]],
        route: Route = SIGNALS,
        *,
        mode: Mode = Mode.ENFORCE,
        tiers: Mapping[str, TierPolicy] = POLICY.tiers,
        concurrency: int | None = None,
        wrapped: Callable[[ASGIApp], ASGIApp] = lambda app: app,
        policy: Policy | None = None,
        clock_of: Callable[[Time], Callable[[], float]] = lambda time: time,
        **options: Any,
    ) -> None:
        self.time = Time()
        self.ended_at_s = 0.0
        if policy is None:
            policy = replace(
                POLICY, mode=mode, routes={"signals": route}, tiers=tiers, concurrency=concurrency
            )
        methods = ["GET", "POST", "PUT", "OPTIONS"]
        app: ASGIApp = Starlette(routes=[Path("/{any:path}", endpoint, methods=methods)])
        clock = clock_of(self.time)
        self.door = BudgetMiddleware(wrapped(app), policy=policy, clock=clock, **options)

    def ask(self, method: str = "GET", **more: Any) -> Answered:
        """Send one request and wait until the application is done with it."""
        return self.time.run(self.asking(method, **more))

    async def asking(
        self,
        method: str = "GET",
        *,
        into: Answered | None = None,
        receive: Receive | None = None,
        send: Send | None = None,
        **more: Any,
    ) -> Answered:
        """Send one request from within the loop; the server's calls may be replaced."""
        answered, began_s = into or Answered(), self.time.now
        gone = asyncio.Event()

        async def take(message: Message) -> None:
            answered.messages.append(message)
            answered.at_s.append(self.time.now - began_s)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                gone.set()

        received = False

        async def give() -> Message:
            nonlocal received
            if received:
                await gone.wait()
                return {"type": "http.disconnect"}
            received = True
            return {"type": "http.request", "body": b"", "more_body": False}

        scope = {
            "type": "http",
            "method": method,
            "path": "/signals",
            "raw_path": b"/signals",
            "query_string": b"",
            "root_path": "",
            "headers": [],
            **more,
        }
        await self.door(scope, receive or give, send or take)
        self.ended_at_s = self.time.now - began_s
        return answered

    @property
    def outcomes(self) -> dict[str, int]:
        """How many requests ended how."""
        engine = self.door._engine
        engine.tally.absorb()
        counts = engine.tally.requests["signals", "pro"].outcomes
        return {outcome: count for outcome, count in counts.items() if count}

    @property
    def actions(self) -> dict[str, int]:
        """How often what was decided, after a second thought."""
        counts: dict[str, int] = {}
        for (_, _, _, action, _), count in self.door._engine.tally.decisions.items():
            counts[action.value] = counts.get(action.value, 0) + count
        return counts

    def check(self) -> None:
        """Make sure that nothing failed and nobody is left in flight."""
        engine = self.door._engine
        assert engine.tally.faults == {}
        assert engine._traffic.now == 0


def taking(seconds: float, **headers: str) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint that takes so many seconds."""

    async def endpoint(_: Request) -> Response:
        await asyncio.sleep(seconds)
        return PlainTextResponse("full", headers=headers)

    return endpoint
