"""Nobody is sent what was made for somebody else, however the service may know its callers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from tests.answers.redis_server import RedisServer
from tests.doors.steered_play import POLICY, SIGNALS
from tests.doors.ways_to_be_known import ENVIRONS, HEADERS, SCOPES
from tests.doors.wsgi_play import Wire, environ
from tests.servers import wait_until

from budgetware._core.policy import CachePolicy, Match, Policy, TierPolicy
from budgetware.answers.redis_store import AsyncRedisStore, RedisStore
from budgetware.asgi import BudgetMiddleware as AsgiMiddleware
from budgetware.testing import deciding
from budgetware.wsgi import BudgetMiddleware as WsgiMiddleware
from budgetware.wsgi import StartResponse

# So long that a busy machine does not make a miss of a look-up in Redis.
PATIENT_S = 1.0
ROUTE = replace(SIGNALS, match=(Match("GET", "/**"),), cache=CachePolicy(fresh=600.0))
SERVICE = replace(POLICY, tiers={"pro": TierPolicy(budget=60.0)}, routes={"signals": ROUTE})
PUBLIC = replace(
    SERVICE,
    routes={"signals": replace(ROUTE, cache=CachePolicy(fresh=600.0, public=True))},
)

Known = Callable[[str], Mapping[str, Any]]
"""Makes what a request of a caller has in its scope, or in its environ."""

Ask = Callable[[int, str, str, Known], bytes]
"""Sends a request to one of two processes: for an address, by a caller; returns the body."""


def field(name: str) -> Known:
    """Return the way to be known by a request field under ASGI."""
    return lambda who: {"headers": [(name.lower().encode(), who.encode())]}


def wsgi_field(name: str) -> Known:
    """Do the same for WSGI."""
    return lambda who: {"HTTP_" + name.upper().replace("-", "_"): who}


def key(name: str, make: Callable[[str], Any]) -> Known:
    """Return the way to be known by a key of an environ."""
    return lambda who: {name: make(who)}


def asgi_ways() -> dict[str, Known]:
    """Return every way to be known under ASGI."""
    return {name: field(name) for name in HEADERS} | dict(SCOPES)


def wsgi_ways() -> dict[str, Known]:
    """Return every way to be known under WSGI."""
    found = {name: wsgi_field(name) for name in HEADERS}
    return found | {name: key(name, make) for name, make in ENVIRONS.items()}


async def echo(scope: Any, _: Any, send: Any) -> None:
    """Answer with who is asking, which only the test has in the scope."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["budgetware.who"]})


def wsgi_echo(env: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """Do the same for WSGI."""
    start_response("200 OK", [])
    return [env["budgetware.who"]]


@contextlib.contextmanager
def asgi_processes(url: str | None, policy: Policy = SERVICE) -> Iterator[Ask]:
    """Return two processes of an ASGI service, which share a Redis if there is one."""
    with asyncio.Runner() as runner:
        stores = [AsyncRedisStore(url, operation_s=PATIENT_S) if url else None for _ in "ab"]
        doors = [AsgiMiddleware(echo, policy=policy, store=store) for store in stores]

        async def ask(process: int, path: str, who: str, known: Known) -> bytes:
            parts: list[bytes] = []

            async def send(message: Any) -> None:
                parts.append(message.get("body", b""))

            scope: dict[str, Any] = {
                "type": "http",
                "method": "GET",
                "path": path,
                "query_string": b"",
                "headers": [],
                "budgetware.who": who.encode(),
                **known(who),
            }
            await doors[process](scope, _nothing, send)
            store = stores[process]
            if store is not None and store._tasks:
                await asyncio.wait(set(store._tasks))
            return b"".join(parts)

        yield lambda *asked: runner.run(ask(*asked))
        for store in stores:
            if store is not None:
                runner.run(store.close())
        assert [door._engine.tally.faults for door in doors] == [{}, {}]


async def _nothing() -> Any:
    await asyncio.Event().wait()


@contextlib.contextmanager
def wsgi_processes(url: str | None, policy: Policy = SERVICE) -> Iterator[Ask]:
    """Do the same for WSGI."""
    stores = [RedisStore(url, operation_s=PATIENT_S) if url else None for _ in "ab"]
    doors = [WsgiMiddleware(wsgi_echo, policy=policy, store=store) for store in stores]

    def ask(process: int, path: str, who: str, known: Known) -> bytes:
        wire = Wire()
        more = {"budgetware.who": who.encode(), **known(who)}
        wire.run(doors[process], environ("GET", path, **more))
        store = stores[process]
        if store is not None:
            wait_until(lambda: store._errands._underway == 0, "it is written")
        return b"".join(wire.parts)

    yield ask
    for store in stores:
        if store is not None:
            store.close()
    assert [door._engine.tally.faults for door in doors] == [{}, {}]


DOORS = pytest.mark.parametrize(
    ("processes", "ways"),
    [(asgi_processes, asgi_ways()), (wsgi_processes, wsgi_ways())],
    ids=["asgi", "wsgi"],
)
SHARED = pytest.mark.parametrize("shared", [False, True], ids=["memory", "redis"])
Processes = Callable[..., contextlib.AbstractContextManager[Ask]]


@pytest.fixture
def url(shared: bool) -> Iterator[str | None]:  # noqa: FBT001 - a table
    """Return the address of an empty Redis, if one is to be shared."""
    if not shared:
        yield None
        return
    with RedisServer() as running:
        yield running.url


def nobody(_: str) -> Mapping[str, Any]:
    """Be anybody."""
    return {}


@DOORS
@SHARED
@pytest.mark.server
def test_whoever_is_known_shares_nothing(
    processes: Processes, ways: Mapping[str, Known], url: str | None
) -> None:
    """In no way to be known is anybody sent what was made for another, nor for nobody."""
    assert len(ways) >= 80
    foreign: list[tuple[str, str]] = []
    with processes(url) as ask:
        for number, (name, known) in enumerate(ways.items()):
            path, other = f"/{number}", 1 if url else 0
            assert ask(0, path, "ann", known) == b"ann"
            with deciding("answer"):
                for who, how in (("bob", known), ("eve", nobody)):
                    if ask(other, path, who, how) not in {b"static", who.encode()}:
                        foreign.append((name, who))
            assert ask(0, f"{path}/open", "eve", nobody) == b"eve"
            with deciding("answer"):
                if ask(other, f"{path}/open", "ann", known) not in {b"static", b"ann"}:
                    foreign.append((name, "ann"))

    assert foreign == []


@DOORS
@SHARED
@pytest.mark.server
def test_what_is_nobodys_is_everybodys(
    processes: Processes, ways: Mapping[str, Known], url: str | None
) -> None:
    """The test before this one could not fail if nothing were ever shared."""
    assert ways
    with processes(url) as ask:
        assert ask(0, "/open", "ann", nobody) == b"ann"
        with deciding("answer"):
            assert ask(1 if url else 0, "/open", "bob", nobody) == b"ann"


@DOORS
@SHARED
@pytest.mark.server
def test_a_public_route_shares_all_but_what_has_credentials(
    processes: Processes, ways: Mapping[str, Known], url: str | None
) -> None:
    """``cache: {public: true}`` says that nothing else makes a difference."""
    refused = []
    with processes(url, PUBLIC) as ask:
        for number, (name, known) in enumerate(ways.items()):
            path, other = f"/{number}", 1 if url else 0
            assert ask(0, path, "ann", known) == b"ann"
            with deciding("answer"):
                found = ask(other, path, "bob", known)
            assert found in {b"ann", b"static"}
            if found != b"ann":
                refused.append(name)

    assert {"Authorization", "Cookie", "Proxy-Authorization"} <= set(refused)
    assert not set(refused) & {"X-Tenant", "X-Org-Id", "Baggage"}
