"""Waits for the client that end badly are the client's all the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.doors.asgi_play import LAST, START, Door, Wire, http

from budgetware import Policy, RequestRecord
from budgetware.asgi import Message, Receive, Scope, Send
from budgetware.testing import FakeClock
from budgetware.wsgi import BudgetMiddleware

PART: Message = {"type": "http.response.body", "body": b"part", "more_body": True}


class ClientError(ConnectionError):
    """The connection broke."""


def test_a_send_that_stalls_and_fails_is_not_billed() -> None:
    """A client that does not read for a minute and then breaks the connection costs nothing."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        door.clock.now += 1
        await send(PART)

    door = Door(app)

    class Stalling(Wire):
        async def send(self, message: Message) -> None:
            if message is PART:
                door.clock.now += 60
                raise ClientError

    with pytest.raises(ClientError):
        Stalling().run(door, http())

    assert door.record.duration_s == 1
    assert door.record.waited_s == 60


def test_a_body_that_never_comes_is_not_billed() -> None:
    """Giving up on a client's upload leaves out the time it was waited for."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.raises(ClientError):
            await receive()
        door.clock.now += 1
        await send(START)
        await send(LAST)

    door = Door(app)

    class Stalling(Wire):
        async def receive(self) -> Message:
            door.clock.now += 15
            raise ClientError

    Stalling().run(door, http(method="POST"))

    assert door.record.duration_s == 1
    assert door.record.waited_s == 15


def test_a_wsgi_client_that_stalls_until_the_body_is_closed_is_not_billed() -> None:
    """The time between the last step of a body and its close is the server's."""
    clock = FakeClock()
    records: list[RequestRecord] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        clock.advance(1)
        yield b"one"
        yield b"two"

    door = BudgetMiddleware(app, policy=Policy(), clock=clock, observers=[records.append])
    body = door({"REQUEST_METHOD": "GET", "PATH_INFO": "/"}, lambda *_: lambda _data: None)
    assert next(iter(body)) == b"one"
    clock.advance(60)
    body.close()  # type: ignore[attr-defined]

    assert [record.duration_s for record in records] == [1]
