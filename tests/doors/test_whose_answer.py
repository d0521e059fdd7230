"""Whose a kept answer is, where that is only found out on the way; both doors."""

from __future__ import annotations

import io
from collections import UserDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from operator import methodcaller
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from starlette.authentication import AuthCredentials
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from structlog.testing import capture_logs
from tests.doors.steered_play import POLICY, SIGNALS, Answered, Play
from tests.doors.wsgi_steered_play import HEADERS, Stand

from budgetware import budget, names
from budgetware._core.policy import CachePolicy, Match, Policy
from budgetware.asgi import ASGIApp, BudgetMiddleware, Message
from budgetware.testing import deciding
from budgetware.wsgi import StartResponse

Env = dict[str, Any]
ANY = replace(SIGNALS, match=(Match("*", "/**"),))


async def say(_: Request) -> Response:
    """Answer as fully as it goes."""
    return PlainTextResponse("full")


def wsgi_say(_: Env, start_response: StartResponse) -> Iterable[bytes]:
    """Do the same for WSGI."""
    start_response("200 OK", HEADERS)
    return [b"full"]


def kept(play: Play, **more: Any) -> bool:
    """Tell whether a request like this one is answered from the cache."""
    with deciding("answer"):
        return play.ask(**more).kind == "cached"


def wsgi_kept(stand: Stand, path: str = "/signals", **more: Any) -> bool:
    """Do the same for WSGI."""
    with deciding("answer"):
        return stand.ask(path, **more).kind == "cached"


# -- who is found out by the application's own middlewares --------------------------------------


@pytest.mark.parametrize(
    ("found", "shared"),
    [
        ({"user": SimpleNamespace(is_authenticated=True)}, False),
        ({"session": {"user": "ann"}}, False),
        ({"auth": AuthCredentials(["admin"])}, False),
        ({"auth": {"sub": "ann"}}, False),
        ({"auth": AuthCredentials()}, True),
        ({"auth": None, "cookies": {}}, True),
        ({"state": {"user": "ann"}}, True),  # it is asked at the beginning
        ({"user": SimpleNamespace(is_authenticated=False)}, True),
        ({"session": {}, "user": None}, True),
    ],
)
def test_a_user_found_on_the_way_in_is_known(found: Mapping[str, Any], shared: bool) -> None:  # noqa: FBT001 - a table
    """By a middleware between the door and the endpoint, which may know by the address alone."""

    def wrapped(inner: ASGIApp) -> ASGIApp:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            scope.update(found)
            await inner(scope, receive, send)

        return app

    play = Play(say, wrapped=wrapped)
    play.ask()

    assert kept(play) is shared
    play.check()


@pytest.mark.parametrize(
    ("state", "shared"),
    [
        ({}, True),
        ({names.TIER_KEY: "pro"}, True),
        ({"user": None}, True),
        ({"user": "ann"}, False),
        ({"csrf": "8f3a"}, False),
        (UserDict(user="ann"), False),
    ],
)
def test_what_an_outer_middleware_leaves_in_the_state_is_of_the_request(
    state: object,
    shared: bool,  # noqa: FBT001 - a table
) -> None:
    """Who it is, a secret for its page: nobody can tell what a name means."""
    play = Play(say)
    play.ask(state=state)

    assert kept(play, state=state) is shared
    play.check()


async def _tell(_: Message) -> None:
    """Be a server that hears how the application has started."""


def test_what_the_server_gives_to_every_request_is_everybodys() -> None:
    """Its lifespan's state, of which each request has a copy; another thing there is its own."""
    pool = object()
    play, lifespan = Play(say), {"pool": pool}
    steps = iter(["lifespan.startup", "lifespan.shutdown"])

    async def step() -> Message:
        return {"type": next(steps)}

    scope = {"type": "lifespan", "asgi": {}, "state": lifespan}
    play.time.run(play.door(scope, step, _tell))
    play.ask(state={"pool": pool})

    assert kept(play, state={"pool": pool})
    assert not kept(play, state={"pool": object()})
    assert not kept(play, state={"pool": pool, "user": "ann"})
    assert not kept(play, state=lifespan)  # what requests leave there, others would meet
    play.check()


def test_a_user_found_on_the_way_in_is_known_under_wsgi() -> None:
    """Where it is the environ that says so."""

    def app(env: Env, start_response: StartResponse) -> Iterable[bytes]:
        env["REMOTE_USER"] = "ann"
        return wsgi_say(env, start_response)

    stand = Stand(app)
    stand.ask()

    assert not wsgi_kept(stand)
    stand.check()


@pytest.mark.parametrize(
    "keys",
    [
        {"gunicorn.socket": object(), "wsgi.early_hints": print, "wsgi.input_terminated": True},
        {"gunicorn.socket": SimpleNamespace(getpeercert=lambda **_: None), "HTTPS": "on"},
        {"werkzeug.socket": object(), "werkzeug.request": object(), "RAW_URI": "/signals"},
        {"waitress.client_disconnected": print, "REMOTE_HOST": "10.0.0.1"},
        {"uwsgi.version": b"2.0", "uwsgi.core": 1, "uwsgi.node": b"a"},
        {"mod_wsgi.request_id": "x", "mod_wsgi.thread_id": 7, "apache.version": (2, 4, 62)},
    ],
)
def test_what_servers_say_of_the_connection_is_nobodys(keys: Mapping[str, Any]) -> None:
    """Behind each of them a service keeps what it answers to strangers."""
    stand = Stand(wsgi_say)
    stand.ask(**keys)

    assert wsgi_kept(stand, **keys)
    stand.check()


def test_an_anonymous_users_name_is_nobodys() -> None:
    """What ``identity`` gives for strangers may be blank: they are no caller of their own."""
    play = Play(say, identity=lambda _: "")
    stand = Stand(wsgi_say, identity=lambda _: " ")
    cookie: dict[str, Any] = {"headers": [(b"cookie", b"session=1")]}
    play.ask(**cookie)
    stand.ask(HTTP_COOKIE="session=1")

    assert not kept(play, **cookie)
    assert not wsgi_kept(stand, HTTP_COOKIE="session=1")


def raising(_: object) -> object:
    """Be a directory that is down."""
    raise ConnectionError


@pytest.mark.parametrize("identity", [raising, lambda _: b"me", lambda _: ("acme", "me")])
@pytest.mark.parametrize("public", [False, True])
def test_who_cannot_be_named_is_somebody(
    identity: Callable[[object], object],
    public: bool,  # noqa: FBT001 - a table
) -> None:
    """Nothing is kept for them or for anybody else, and nothing kept is sent to them."""
    who: list[Callable[[object], object]] = [identity]
    cache = CachePolicy(fresh=600.0, public=public)

    def identify(asked: object) -> object:
        return who[0](asked)

    play = Play(say, replace(SIGNALS, cache=cache), identity=identify)
    stand = Stand(wsgi_say, replace(SIGNALS, cache=cache), identity=identify)
    for named in (identity, lambda _: None, identity):
        who[0] = named
        play.ask()
        stand.ask()
        assert kept(play) is wsgi_kept(stand) is (named is not identity)
    faults = play.door._engine.tally.faults, stand.door._engine.tally.faults
    assert faults == ({"identity": 4}, {"identity": 4})


def test_a_number_and_the_same_in_text_are_two_callers() -> None:
    """An account of one table, and a name of another."""
    who: list[object] = [7]
    play = Play(say, identity=lambda _: who[0])
    play.ask()

    assert kept(play)
    who[0] = "7"
    assert not kept(play)
    play.check()


# -- what was asked -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [
        {"path": "/signals", "raw_path": b"/admin"},
        {"path": "/signals", "raw_path": b"/signals", "root_path": "/app"},
        {"path": "/signals", "raw_path": b"/signals", "query_string": b"a"},
        {"server": ("testserver", 8081)},
        {"server": ("other", 80)},
        {"path": "/signals", "raw_path": b"/signals", "headers": [(b"forwarded", b"host=evil")]},
        {"path": "/signals", "raw_path": b"/signals", "headers": [(b"x-script-name", b"/a")]},
    ],
)
def test_whatever_an_outer_middleware_has_rewritten_is_another_address(
    other: Mapping[str, Any],
) -> None:
    """The path as it was sent and as it is seen, where it is mounted, and where it says it is."""
    here: Env = {"server": ("testserver", 80)}
    there = here | dict(other)
    play = Play(say, ANY)
    play.ask(**here)

    assert kept(play, **here)
    assert not kept(play, **there)
    play.ask(**there)
    assert kept(play, **there)


@pytest.mark.parametrize(
    "other",
    [
        {"RAW_URI": "/admin"},
        {"REQUEST_URI": "http://evil/signals"},
        {"SCRIPT_NAME": "/signals", "PATH_INFO": ""},
        {"QUERY_STRING": "a"},
        {"SERVER_PORT": "8081"},
        {"SERVER_NAME": "other"},
        {"SSL_TLS_SNI": "internal"},
        {"HTTP_FORWARDED": "host=evil"},
        {"HTTP_X_SCRIPT_NAME": "/a"},
    ],
)
def test_the_same_under_wsgi(other: Mapping[str, Any]) -> None:
    """A server tells what was sent, and a middleware puts something else in its place."""
    stand = Stand(wsgi_say, ANY)
    stand.ask()

    assert wsgi_kept(stand)
    assert not wsgi_kept(stand, **other)
    stand.ask(**other)
    assert wsgi_kept(stand, **other)


def test_hosts_that_share_a_store_have_addresses_of_their_own() -> None:
    """The server's own name counts only where the client has not said whom it asks."""
    play, stand = Play(say), Stand(wsgi_say)
    host: dict[str, Any] = {"headers": [(b"Host", b"api.example")]}
    play.ask(server=("10.0.0.1", 80), **host)
    stand.ask(SERVER_NAME="10.0.0.1", HTTP_HOST="api.example")

    assert kept(play, server=("10.0.0.2", 80), **host)
    assert wsgi_kept(stand, SERVER_NAME="10.0.0.2", HTTP_HOST="api.example")
    for odd in (None, (), "testserver", ("/run/app.sock", None)):
        assert play.ask(server=odd, **host).body == b"full"
    play.check()


def test_a_query_in_text_is_a_query() -> None:
    """Django's test client has it as text, where the specification has bytes."""
    play = Play(say)
    play.ask(query_string="a=\u00fc")

    assert kept(play, query_string="a=\u00fc")
    assert kept(play, query_string="a=\u00fc".encode())
    assert not kept(play)
    play.check()


def test_a_body_nothing_has_announced_is_no_part_of_any_key() -> None:
    """HTTP/2 has no length to see it by: what is made of it is not kept."""

    async def echo(request: Request) -> Response:
        return PlainTextResponse(await request.body() or b"none")

    def bringing(body: bytes) -> Callable[[], Any]:
        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        return receive

    play = Play(echo)
    assert play.ask(receive=bringing(b"evil")).body == b"evil"
    assert not kept(play)
    assert play.ask(receive=bringing(b"")).body == b"none"
    assert kept(play)
    play.check()


@pytest.mark.parametrize(
    "read",
    [
        methodcaller("read"),
        methodcaller("readline"),
        lambda stream: b"".join(stream.readlines()),
        b"".join,
        lambda stream: next(stream, b""),
        methodcaller("read1"),
    ],
    ids=["read", "readline", "readlines", "iter", "next", "read1"],
)
def test_the_same_of_a_body_under_wsgi(read: Callable[[Any], bytes]) -> None:
    """In whichever way it is read."""

    def echo(env: Env, start_response: StartResponse) -> Iterable[bytes]:
        made = read(env["wsgi.input"]) or b"none"
        start_response("200 OK", HEADERS)
        return [made]

    stand = Stand(echo)
    evil: Env = {"wsgi.input": io.BytesIO(b"evil")}
    none: Env = {"wsgi.input": io.BytesIO()}
    assert stand.ask(**evil).body == b"evil"
    assert not wsgi_kept(stand)
    assert stand.ask(**none).body == b"none"
    assert wsgi_kept(stand)
    stand.check()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_who_has_brought_a_body_is_not_sent_what_was_kept_without_one(method: str) -> None:
    """Nor when that is found out on the way."""
    turns = False

    async def reads(request: Request) -> Response:
        body = await request.body()
        if turns:
            budget.degrade("slow")
        return PlainTextResponse(body or b"none")

    def reads_wsgi(env: Env, start_response: StartResponse) -> Iterable[bytes]:
        body = env["wsgi.input"].read()
        if turns:
            budget.degrade("slow")
        start_response("200 OK", HEADERS)
        return [body or b"none"]

    async def evil() -> Message:
        return {"type": "http.request", "body": b"evil", "more_body": False}

    def bringing(body: bytes) -> Env:
        return {"wsgi.input": io.BytesIO(body)}

    play, stand = Play(reads), Stand(reads_wsgi)
    play.ask()
    stand.ask(**bringing(b""))
    turns = True

    assert play.ask(method).kind == "cached"
    assert play.ask(method, receive=evil).kind == "static"
    assert stand.ask(method=method, **bringing(b"")).kind == "cached"
    assert stand.ask(method=method, **bringing(b"evil")).kind == "static"
    play.check()
    stand.check()


# -- what is told of it ---------------------------------------------------------------------------


def of_policy(cache: CachePolicy, **more: Any) -> Policy:
    """Return a policy whose one route keeps answers like that."""
    return replace(POLICY, routes={"signals": replace(SIGNALS, cache=cache)}, **more)


def cache_counts(reader: InMemoryMetricReader) -> dict[tuple[str, str | None], float]:
    """Return ``budgetware.cache`` by result and reason."""
    data = reader.get_metrics_data()
    assert data is not None
    found = {}
    for resource in data.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                if metric.name == names.CACHE:
                    for point in metric.data.data_points:
                        attributes: Any = point.attributes
                        key = attributes[names.RESULT], attributes.get(names.REASON)
                        found[key] = point.value  # type: ignore[union-attr]
    return found


def test_what_is_not_kept_is_counted_and_said_once() -> None:
    """A service that varies by cookie and names nobody learns it at the first time."""
    reader = InMemoryMetricReader()

    async def varying(_: Request) -> Response:
        return PlainTextResponse("full", headers={"vary": "Cookie"})

    with capture_logs() as logs:
        play = Play(varying, meter_provider=MeterProvider([reader]), logger=None)
        for _ in range(3):
            play.ask()
        kept(play)
        play.ask(headers=[(b"x-tenant", b"acme")])

    assert cache_counts(reader) == {
        ("not_kept", "varies_by_caller"): 3,
        ("miss", None): 1,
        ("not_kept", "unlisted_field"): 1,
    }
    said = [line for line in logs if line["event"] == names.EVENT_NOT_KEPT]
    assert [(line["route"], line["tier"], line["reason"], line["detail"]) for line in said] == [
        ("signals", "pro", "varies_by_caller", "cookie"),
        ("signals", "pro", "unlisted_field", "x-tenant"),
    ]
    assert "identity" in said[0]["hint"]
    assert "public: true" in said[1]["hint"]


def test_a_request_that_is_odd_by_itself_is_only_counted() -> None:
    """There is nothing anybody could do about it."""
    reader = InMemoryMetricReader()
    with capture_logs() as logs:
        stand = Stand(wsgi_say, meter_provider=MeterProvider([reader]))
        stand.ask(HTTP_RANGE="bytes=0-1")
        stand.ask(method="POST")

    assert cache_counts(reader) == {("not_kept", "request"): 1}
    assert [line for line in logs if line["event"] == names.EVENT_NOT_KEPT] == []


def test_a_logger_that_fails_costs_nothing() -> None:
    """What is said of the cache is said as everything else is."""

    class Broken:
        def __getattr__(self, _: str) -> Any:
            raise OSError

    play = Play(say, logger=Broken())
    answered = play.ask(headers=[(b"x-tenant", b"acme")])

    assert isinstance(answered, Answered)
    assert answered.body == b"full"
    assert play.door._engine.tally.faults == {"log": 1}


# -- others on the same server --------------------------------------------------------------------


class Kept:
    """A store that several services use."""

    def __init__(self) -> None:
        self.entries: dict[bytes, Any] = {}

    async def get(self, key: bytes, *_: object) -> None:
        """Find nothing."""

    def put(self, key: bytes, *more: Any) -> None:
        """Keep it."""
        self.entries[key] = more


class Counted:
    """Rates that several services use."""

    def __init__(self) -> None:
        self.namespaces: set[str] = set()
        self.callers: set[str | None] = set()

    async def take(self, *asked: Any) -> float:
        """Admit, and remember for whom."""
        self.namespaces.add(asked[-1])
        self.callers.add(asked[1])
        return 0.0


def test_services_and_environments_have_names_of_their_own() -> None:
    """Two services that share a store and callers' names share neither answers nor rates."""
    store, rates = Kept(), Counted()
    tiers = {"pro": replace(POLICY.tiers["pro"], rate=5.0)}
    for service, environment in (("shop", None), ("bank", None), ("bank", "staging")):
        policy = of_policy(
            CachePolicy(fresh=60.0), service=service, environment=environment, tiers=tiers
        )
        play = Play(say)
        options: Any = {"clock": play.time, "store": store, "rates": rates}
        play.door = BudgetMiddleware(play.door._app, policy=policy, **options)
        play.ask()

    assert len(store.entries) == 3
    assert rates.namespaces == {"shop\0", "bank\0", "bank\0staging"}


def test_whoever_is_told_apart_has_a_rate_of_his_own() -> None:
    """A number and the same in text have; who cannot be named shares that of nobody."""
    tiers = {"pro": replace(POLICY.tiers["pro"], rate=5.0)}
    rates, who = Counted(), [7, "7", None, "", b"7"]
    play = Play(say, tiers=tiers, rates=rates, identity=lambda _: who.pop())
    while who:
        play.ask()

    assert rates.callers == {"\0int 7", "7", None}
