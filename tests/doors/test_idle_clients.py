"""Clients that only hold a connection open keep nobody out: a slot that waits for one is lent."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from tests.doors import wsgi_play
from tests.doors.steered_play import POLICY, SIGNALS, Answered
from tests.doors.virtual_time import Time
from tests.doors.wsgi_steered_play import Stand

from budgetware import budget
from budgetware._core.admit import LENT_AFTER_S
from budgetware._core.policy import Policy, TierPolicy
from budgetware.asgi import BudgetMiddleware, Message, Receive, Scope, Send
from budgetware.wsgi import StartResponse

ONE = replace(
    POLICY,
    concurrency=1,
    tiers={"pro": TierPolicy(budget=10.0)},
    routes={"signals": replace(SIGNALS, answers=("reject",), static=None, cache=None)},
)
OK, NO = 200, 503


class Server:
    """An ASGI server on a time of its own, whose clients may be slow."""

    def __init__(
        self, app: Callable[[Scope, Receive, Send], Awaitable[None]], policy: Policy = ONE
    ) -> None:
        self.time = Time()
        self.door = BudgetMiddleware(app, policy=policy, clock=self.time)

    async def ask(
        self,
        method: str = "GET",
        sends_after_s: float = 0.0,
        reads_after_s: float = 0.0,
        begins_after_s: float = 0.0,
    ) -> int:
        """Send a request whose client takes so long for each message; return the status."""
        answered = Answered()

        sent = False

        async def receive() -> Message:
            nonlocal sent
            if sent:
                await asyncio.Event().wait()
            await asyncio.sleep(sends_after_s)
            sent = True
            return {"type": "http.request", "body": b"x" * (sends_after_s > 0), "more_body": False}

        async def send(message: Message) -> None:
            answered.messages.append(message)
            is_body = message["type"] == "http.response.body"
            await asyncio.sleep(reads_after_s if is_body else begins_after_s)

        scope = {"type": "http", "method": method, "path": "/signals", "headers": []}
        await self.door(scope, receive, send)
        assert answered.complete
        status: int = answered.messages[0]["status"]
        return status

    def statuses(self, slow: dict[str, Any], *others_at_s: float) -> list[int]:
        """Return what others get who come so many seconds after the *slow* one, and what that."""

        async def other(at_s: float) -> int:
            await asyncio.sleep(at_s)
            return await self.ask()

        async def main() -> list[int]:
            first = asyncio.create_task(self.ask(**slow))
            await asyncio.sleep(0)
            return [
                *await asyncio.gather(*(other(at_s) for at_s in others_at_s)),
                await first,
            ]

        found = self.time.run(main())
        engine = self.door._engine
        assert engine.tally.faults == {}
        assert engine._traffic.now == 0
        assert engine.entrance.enforced is not None
        assert engine.entrance.enforced.in_flight == 0
        return found


async def reads_it_all(scope: Scope, receive: Receive, send: Send) -> None:
    """Wait for the request's body, then work for a second if there was any, and answer."""
    if (await receive())["body"]:
        await asyncio.sleep(1.0)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"full"})


async def streams(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer in three parts, the last of which is empty."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for part in (b"fu", b"ll"):
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


SOON_S, LATER_S = LENT_AFTER_S / 2, LENT_AFTER_S * 2


@pytest.mark.parametrize("method", ["POST", "DELETE", "GET"])
def test_an_upload_that_stalls_holds_no_slot(method: str) -> None:
    """Others come in; once it goes on it is served, and has its slot again."""
    server = Server(reads_it_all)

    assert server.statuses({"method": method, "sends_after_s": 5.0}, SOON_S, LATER_S, 4.9, 5.5) == [
        NO,
        OK,
        OK,
        NO,
        OK,
    ]


@pytest.mark.parametrize("app", [reads_it_all, streams])
def test_a_client_that_does_not_read_holds_no_slot(app: Any) -> None:
    """Whether the response leaves in one part or in several."""
    server = Server(app)

    found = server.statuses({"reads_after_s": 5.0}, SOON_S, LATER_S, 4.0, 4.9)

    assert found == [NO, OK, OK, OK, OK]


def test_a_client_that_has_not_read_the_response_before_holds_no_slot() -> None:
    """A server holds back the start of the second response on its connection."""
    server = Server(streams)

    found = server.statuses({"begins_after_s": 5.0}, SOON_S, LATER_S, 4.0, 5.5)

    assert found == [NO, OK, OK, OK, OK]


def test_who_waits_is_let_in_as_soon_as_a_slot_may_be_lent() -> None:
    """And not when its time is up."""
    entered_s: list[float] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        entered_s.append(server.time.now - began_s)
        await reads_it_all(scope, receive, send)

    queued = replace(ONE, tiers={"pro": TierPolicy(budget=10.0, queue=2.0)})
    server = Server(app, queued)
    began_s = server.time.now

    assert server.statuses({"method": "POST", "sends_after_s": 5.0}, SOON_S, SOON_S) == [OK, OK, OK]
    assert max(entered_s) < 2 * LENT_AFTER_S


async def listens_and_streams(
    send: Send, receive: Receive, works_s: float, parts: Iterable[Message]
) -> None:
    """Send a response while another task listens for the client's leaving, as Starlette does."""

    async def listens() -> None:
        while True:
            await receive()

    listener = asyncio.create_task(listens())
    await asyncio.sleep(0)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await asyncio.sleep(works_s)
    for part in parts:
        await send(part)
    listener.cancel()


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_who_only_listens_for_the_clients_leaving_is_not_idle(method: str) -> None:
    """A body that is announced and never sent makes no room beside work that does not need it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        works_s = 5.0 if scope["method"] == method else 0.0
        parts = [{"type": "http.response.body", "body": b"full"}]
        await listens_and_streams(send, receive, works_s, parts)

    server = Server(app)
    slow = {"method": method, "sends_after_s": 60.0}

    assert server.statuses(slow, SOON_S, LATER_S, 4.9) == [NO, NO, NO, OK]


@pytest.mark.parametrize("late_s", [0.01, 0.5, 3.0])
def test_a_late_byte_of_the_request_makes_no_slow_reader_busy(late_s: float) -> None:
    """Its slot is lent as long as the response waits for it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        parts: list[Message] = [
            {"type": "http.response.body", "body": b"fu", "more_body": True},
            {"type": "http.response.body", "body": b"ll"},
        ]
        await listens_and_streams(send, receive, 0.0, parts)

    server = Server(app)
    slow = {"sends_after_s": late_s, "reads_after_s": 5.0}

    assert server.statuses(slow, LATER_S, 1.0, 4.0, 6.0) == [OK, OK, OK, OK, OK]


def test_work_is_not_idle() -> None:
    """However long it takes."""

    async def works(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(5.0)
        await streams(scope, receive, send)

    server = Server(works)

    assert server.statuses({}, SOON_S, LATER_S, 4.9) == [NO, NO, NO, OK]


def test_a_smaller_answer_that_is_not_read_holds_no_slot() -> None:
    """Nor does the request it was given for, once its work is over."""
    slow: list[None] = [None]

    async def degrades(scope: Scope, receive: Receive, send: Send) -> None:
        if slow:
            slow.pop()
            budget.degrade("no_model")
        await streams(scope, receive, send)

    server = Server(degrades)

    assert server.statuses({"reads_after_s": 5.0}, SOON_S, LATER_S) == [NO, OK, NO]


class Stalls(io.BytesIO):
    """A request's body whose client stops for so long, in which another request comes."""

    def __init__(self, stand: Stand, seconds: float) -> None:
        super().__init__(b"body")
        self.stand = stand
        self.seconds = seconds
        self.others: list[int] = []

    def read(self, *size: Any) -> bytes:
        """Read once the other has been served."""
        self.stand.time.now += self.seconds
        self.others.append(int(self.stand.ask().status[:3]))
        return super().read(*size)


@pytest.mark.parametrize("method", ["POST", "DELETE", "GET"])
def test_an_upload_that_stalls_holds_no_thread_of_others(method: str) -> None:
    """Over WSGI the same."""

    def app(env: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        body = env["wsgi.input"].read()
        if env["REQUEST_METHOD"] == method and body == b"body":
            working.append(int(stand.ask().status[:3]))
        start_response("200 OK", [])
        return [b"full"]

    stand = Stand(app, policy=ONE)
    working: list[int] = []
    for seconds, expected in ((SOON_S, NO), (LATER_S, OK)):
        stalls = Stalls(stand, seconds)
        more: dict[str, Any] = {"wsgi.input": stalls}
        got = stand.ask("/signals", method, **more)
        assert (stalls.others, got.status) == ([expected], "200 OK")

    assert working == [NO, NO]
    stand.check()


def in_parts(_: dict[str, Any], start_response: StartResponse) -> Iterator[bytes]:
    """Answer step by step."""
    start_response("200 OK", [])
    yield b"fu"
    yield b"ll"


def written(_: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """Answer in the old way."""
    write = start_response("200 OK", [])
    write(b"fu")
    return [b"ll"]


def a_file(env: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """Answer with a file that the server sends by itself."""
    start_response("200 OK", [])
    wrapped: Iterable[bytes] = env["wsgi.file_wrapper"](io.BytesIO(b"full"), 2)
    return wrapped


def ready(_: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """Answer all at once: nothing is at work when the server sends it."""
    start_response("200 OK", [])
    return [b"fu", b"ll"]


@pytest.mark.parametrize(
    ("app", "soon"), [(in_parts, NO), (written, NO), (a_file, NO), (ready, OK)]
)
@pytest.mark.parametrize("observers", [[], [lambda _: None]], ids=["untold", "told"])
def test_a_client_that_does_not_read_holds_no_thread_of_others(
    app: Any, soon: int, observers: list[Any]
) -> None:
    """However the application gives its response."""
    stand = Stand(app, policy=ONE, observers=observers)
    if observers and app is ready:
        soon = NO  # it is at the observers' service until the server closes it

    for seconds, expected in ((SOON_S, soon), (LATER_S, OK)):
        others: list[int] = []

        def slow(_: bytes, seconds: float = seconds, others: list[int] = others) -> None:
            if not others:
                stand.time.now += seconds
                others.append(0)
                others[0] = int(stand.ask().status[:3])

        assert stand.ask(wire=wsgi_play.Wire(on_part=slow)).body == b"full"
        assert others == [expected]

    stand.check()
    admission = stand.door._engine.entrance.enforced
    assert admission is not None
    assert admission.in_flight == 0
