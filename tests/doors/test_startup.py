"""A door that cannot be opened as it was asked for says so before the first request."""

from __future__ import annotations

import gc
import subprocess
import sys
import traceback
import weakref
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import anyio
import anyio.lowlevel
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import use_span
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.testclient import TestClient
from structlog.testing import capture_logs
from tests.doors.asgi_play import Wire, http
from tests.servers import free_port

from budgetware import BudgetMiddleware, Policy, PolicyError, budget, names
from budgetware._core.policy import Match, Mode, Route
from budgetware.answers.redis_store import AsyncRedisStore, RedisStore
from budgetware.asgi import Message, Receive, Scope, Send
from budgetware.limits.tasks import AsyncSharedRates
from budgetware.limits.threads import SharedRates
from budgetware.wsgi import BudgetMiddleware as WsgiMiddleware


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with one byte."""
    with budget.stage("db"):
        await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x"})


def wsgi_app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Answer with one byte."""
    start_response("200 OK", [])
    return [b"x"]


async def coroutine(_: object) -> str:
    """Be what no door can call for each request."""
    return "pro"


class Tasks:
    """A store and rates for coroutines."""

    async def get(self, *_: object) -> None:
        """Find nothing."""

    def put(self, *_: object) -> None:
        """Keep nothing."""

    async def take(self, *_: object) -> float:
        """Admit."""
        return 0.0


class Threads:
    """A store and rates for threads."""

    def get(self, *_: object) -> None:
        """Find nothing."""

    def put(self, *_: object) -> None:
        """Keep nothing."""

    def take(self, *_: object) -> float:
        """Admit."""
        return 0.0


@pytest.mark.parametrize(
    ("door", "given", "kind"),
    [(BudgetMiddleware, Threads(), "coroutines"), (WsgiMiddleware, Tasks(), "threads")],
)
@pytest.mark.parametrize("option", ["store", "rates"])
def test_what_is_for_the_other_door_is_refused(
    door: Any, given: object, kind: str, option: str
) -> None:
    """It would never find anything, or fail with every request."""
    with pytest.raises(TypeError, match=f"{option} must be for {kind}") as caught:
        door(app, policy=Policy(), **{option: given})

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"server_timing": "yes"},
        {"tier": coroutine},
        {"identity": coroutine},
        {"store": Threads()},
        {"rates": Threads()},
        {"fallbacks": {"nowhere": print}},
        {"policy": "/no/such/file.yaml"},
    ],
    ids=lambda value: str(*value),
)
def test_an_application_that_makes_its_middleware_late_does_not_start(
    options: dict[str, Any],
) -> None:
    """Starlette makes it at start-up, within the running loop: its test client raises, too."""
    client = TestClient(Starlette(middleware=[Middleware(BudgetMiddleware, **options)]))

    with pytest.raises((TypeError, PolicyError)), client:
        pytest.fail("it has started")


@pytest.mark.parametrize("door", [BudgetMiddleware, WsgiMiddleware])
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"polcy": "x.yaml"}, TypeError, "did you mean 'policy'"),
        ({"tiers": print}, TypeError, "did you mean 'tier'"),
        ({"observers": print}, TypeError, "list of callables"),
        ({"observers": [1]}, TypeError, "list of callables"),
        ({"tier": "pro"}, TypeError, "tier must be a function"),
        ({"tier": coroutine}, TypeError, "tier must be a plain function"),
        ({"identity": "me"}, TypeError, "identity must be a function"),
        ({"identity": coroutine}, TypeError, "identity must be a plain function"),
        ({"server_timing": "yes"}, TypeError, "server_timing must be a function"),
        ({"fallbacks": [print]}, TypeError, "fallbacks must be a mapping"),
        ({"store": object()}, TypeError, "store must be for"),
        ({"store": "redis://localhost"}, TypeError, "store must be for"),
        ({"rates": object()}, TypeError, "rates must be for"),
        ({"reload": True}, ValueError, '"file" or the number of a signal'),
        ({"reload": "always"}, ValueError, '"file" or the number of a signal'),
    ],
    ids=lambda value: str(value)[:24],
)
def test_options_that_mean_nothing_are_refused(
    door: Any,
    options: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    """Misspelt and mistyped options raise when the door is made, and say what would be right."""
    with pytest.raises(error, match=message):
        door(app, **{"policy": Policy(), **options})


def test_a_broken_policy_raises_where_no_server_runs_yet(tmp_path: Path) -> None:
    """Made by hand, the door raises the policy's errors at once."""
    broken = tmp_path / "broken.yaml"
    broken.write_text("version: 1\nroutes: {a: {match: GET /a, budget: 30}}\n")
    with pytest.raises(PolicyError, match="30"):
        BudgetMiddleware(app, policy=str(broken))


@pytest.mark.server
def test_a_broken_policy_stops_a_server_that_makes_its_middleware_late(tmp_path: Path) -> None:
    """FastAPI makes its middleware inside the running server; that does not start all the same."""
    (tmp_path / "budgetware.yaml").write_text("version: 1\nroutes: {a: {match: GET /a, budget: 3}}")
    (tmp_path / "app.py").write_text(
        "from fastapi import FastAPI\n"
        "from budgetware import BudgetMiddleware\n"
        "app = FastAPI()\n"
        "app.add_middleware(BudgetMiddleware)\n",
    )
    done = subprocess.run(
        [sys.executable, "-m", "uvicorn", "app:app", "--port", str(free_port())],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode != 0
    assert "budgetware.yaml" in done.stderr
    assert "`3` has no unit" in done.stderr
    assert "Application startup failed" in done.stderr


@pytest.mark.anyio
async def test_a_span_that_ends_with_the_last_byte_has_the_account() -> None:
    """Instrumentations end the server's span inside ``send``; attributes and stages come before."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    span = provider.get_tracer("server").start_span("GET /")

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            span.end()

    async def receive() -> Message:
        raise AssertionError

    door = BudgetMiddleware(app, policy=Policy(), tracer_provider=provider, traces="stages")
    with use_span(span, end_on_exit=False):
        await door({"type": "http", "method": "GET", "path": "/", "headers": []}, receive, send)

    spans = {one.name: one for one in exporter.get_finished_spans()}
    assert (spans["GET /"].attributes or {})["budgetware.route"] == "_unmatched"
    assert spans["db"].parent is not None
    assert spans["db"].parent.span_id == span.get_span_context().span_id


def _of_two(scope: Any, db: Any) -> str:
    return f"{scope} {db}"


def _keyword_only(*, scope: Any) -> str:
    return str(scope)


def _parts(_: Any) -> Iterator[bytes]:
    yield b"cheap"


async def _async_parts(_: Any) -> AsyncIterator[bytes]:
    yield b"cheap"


@pytest.mark.parametrize("door", [BudgetMiddleware, WsgiMiddleware])
@pytest.mark.parametrize(
    "function",
    [
        coroutine,
        print,
        str,
        dict,
        Response,
        Response("cheap").render,
        partial(_of_two, db=1),
        partial(_of_two, 1),
        lambda *_, **__: "cheap",
        lambda scope, db=None: (scope, db),
        Mock(),
    ],
)
def test_fallbacks_that_can_be_called_are_taken(door: Any, function: Any) -> None:
    """With one argument; of some builtins nobody knows, and either door awaits what it has to."""
    policy = Policy(routes={"signals": Route(name="signals", match=(Match("GET", "/"),))})

    assert door(app, policy=policy, fallbacks={"signals": function})


def test_a_fallback_that_cannot_be_called_stops_a_start_that_is_under_way() -> None:
    """Starlette makes its middleware within the running loop, and does not start then."""
    policy = Policy(routes={"signals": Route(name="signals", match=(Match("GET", "/"),))})
    options: dict[str, Any] = {"policy": policy, "fallbacks": {"signals": _of_two}}
    client = TestClient(Starlette(middleware=[Middleware(BudgetMiddleware, **options)]))

    with pytest.raises(TypeError, match="the fallback of 'signals' is called with"), client:
        pytest.fail("it has started")


@pytest.mark.parametrize("door", [BudgetMiddleware, WsgiMiddleware])
@pytest.mark.parametrize(
    ("fallbacks", "message"),
    [
        ({"signals": "cheap"}, "must be a function"),
        ({"signal": print}, "did you mean 'signals'"),
        ({"signals": lambda: "cheap"}, r"'signals' is called with .* alone, .*<lambda>\(\) cannot"),
        (
            {"signals": _of_two},
            r"'signals' is called with .* alone, .*_of_two\(scope.*, db.*\).* cannot",
        ),
        ({"signals": partial(_of_two, 1, 2)}, "'signals' is called with .* alone"),
        ({"signals": _keyword_only}, r"'signals' .*_keyword_only\(\*, scope.*\).* cannot"),
        ({"signals": Response.render}, r"'signals' .*Response.render\(self, content.*\).* cannot"),
        ({"signals": _parts}, "'signals' .*_parts is a generator"),
        ({"signals": _async_parts}, "'signals' .*_async_parts is a generator"),
    ],
)
def test_fallbacks_that_would_never_be_called_are_refused(
    door: Any, fallbacks: dict[str, Any], message: str
) -> None:
    """Neither a name that is no route nor what is no function waits for the first overload."""
    policy = Policy(routes={"signals": Route(name="signals", match=(Match("GET", "/"),))})

    with pytest.raises(TypeError, match=message):
        door(app, policy=policy, fallbacks=fallbacks)


@pytest.mark.parametrize("word", ["Observe", " OBSERVE ", "observe"])
def test_the_kill_switch_is_found_however_it_is_spelt(
    word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is thrown in a hurry."""
    monkeypatch.setenv("BUDGETWARE_MODE", word)

    door = BudgetMiddleware(app, policy=Policy(mode=Mode.ENFORCE))

    assert door._engine.policy.most is Mode.OBSERVE


def test_a_kill_switch_that_says_nothing_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the words of a server that is already running, where there is one."""
    monkeypatch.setenv("BUDGETWARE_MODE", "off")
    with pytest.raises(ValueError, match="observe, shadow, enforce"):
        BudgetMiddleware(app, policy=Policy())
    told: list[Message] = []

    async def start() -> None:
        async def receive() -> Message:
            return {"type": "lifespan.startup"}

        async def send(message: Message) -> None:
            told.append(message)

        await BudgetMiddleware(app, policy=Policy())({"type": "lifespan"}, receive, send)

    with pytest.raises(ValueError, match="BUDGETWARE_MODE"):
        anyio.run(start)

    assert told[0]["type"] == "lifespan.startup.failed"
    assert "BUDGETWARE_MODE" in told[0]["message"]


WATCHED = """
import sys, threading, traceback
from blockbuster import blockbuster_ctx
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from budgetware import BudgetMiddleware

async def endpoint(_):
    return PlainTextResponse("full")

def made(**options):
    app = Starlette(routes=[Route("/signals", endpoint)])
    app.add_middleware(BudgetMiddleware, **options)
    return app

def watch(event, args):
    if event not in ("open", "import") or threading.current_thread() not in loops:
        return
    frames = [frame.filename for frame in traceback.extract_stack()]
    if any("/budgetware/" in frame for frame in frames):
        found.append((event, args[0]))

async def note(scope, receive, send):
    loops.add(threading.current_thread())
    await app(scope, receive, send)

loops, found = set(), []
sys.addaudithook(watch)
for options in ({}, {"policy": "budgetware.yaml", "reload": "file"}):
    app = made(**options)
    with blockbuster_ctx(), TestClient(note) as client:
        assert client.get("/signals").text == "full"
        assert "budgetware.asgi.helm" in sys.modules
print(found)
"""


def test_adding_the_middleware_blocks_no_event_loop(tmp_path: Path) -> None:
    """Nothing is read, and nothing imported for the first time, by the thread that runs it."""
    (tmp_path / "budgetware.yaml").write_text(
        "version: 1\nservice: s\nmode: enforce\n"
        "routes: {signals: {match: GET /signals, budget: 30s, answers: [reject]}}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", WATCHED],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


FIRST_REQUEST = """
import asyncio, sys
from budgetware import BudgetMiddleware

async def app(scope, receive, send):
    await asyncio.sleep(9)

async def ask():
    sys.addaudithook(lambda event, args: event == "import" and found.append(args[0]))
    scope = {"type": "http", "method": "GET", "path": "/signals", "headers": []}
    await door(scope, asyncio.Event().wait, take)

async def take(message):
    if message["type"] == "http.response.start":
        print(message["status"], [name for name in found if not name.startswith("encodings")])

found = []
door = BudgetMiddleware(app, policy="budgetware.yaml")
asyncio.run(ask())
"""


def test_the_first_request_imports_nothing(tmp_path: Path) -> None:
    """Nor does what stands between it and its answer, where no framework has done so."""
    (tmp_path / "budgetware.yaml").write_text(
        "version: 1\nservice: s\nmode: enforce\nconcurrency: 2\ntiers: {pro: {budget: 50ms}}\n"
        "routes: {signals: {match: GET /signals, answers: [reject], cancel_safe: true}}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", FIRST_REQUEST],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "504 []" in done.stdout.splitlines()


@pytest.mark.anyio
async def test_a_door_that_is_made_in_an_event_loop_is_opened_once() -> None:
    """By whichever request comes first, with or without lifespan; the others wait for it."""
    door = BudgetMiddleware(app, policy=Policy())
    wire = Wire()

    async def ask() -> None:
        await door(http(), wire.receive, wire.send)
        engines.add(door._engine)

    engines: set[object] = set()
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(ask)

    assert len(wire.sent) == 10
    assert len(engines) == 1
    assert door._engine.tally.faults == {}


class Asked(dict[str, Any]):
    """A scope that can be watched."""


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("options", "kind"), [({"policy": "/no/such/file.yaml"}, PolicyError), ({"tier": 1}, TypeError)]
)
async def test_a_refusal_keeps_nothing_of_the_requests_before_it(
    options: dict[str, Any], kind: type[Exception]
) -> None:
    """Without lifespan each request gets an error of its own, as long as that of the second one."""
    door = BudgetMiddleware(app, **options)
    wire = Wire()
    scopes, said, depths = [], set(), []

    async def ask() -> None:
        scope = Asked(http())
        scopes.append(weakref.ref(scope))
        try:
            await door(scope, wire.receive, wire.send)
        except kind as error:
            said.add((type(error), str(error)))
            depths.append(len(traceback.extract_tb(error.__traceback__)))

    for _ in range(20):
        await ask()
    await anyio.lowlevel.checkpoint()  # until then trio's task holds what it was last resumed with
    gc.collect()

    assert len(depths) == 20
    assert set(depths[1:]) == {depths[1]}
    assert len(said) == 1
    assert [scope() for scope in scopes] == [None] * 20


@pytest.mark.anyio
async def test_a_first_request_that_is_cancelled_leaves_a_door_that_opens() -> None:
    """The next one opens it."""
    door = BudgetMiddleware(app, policy=Policy())
    wire = Wire()
    with anyio.CancelScope() as cancelled:
        cancelled.cancel()
        await door(http(), wire.receive, wire.send)
    assert wire.sent == []
    await door(http(), wire.receive, wire.send)

    assert wire.body == b"x"


def test_a_policy_can_be_read_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a file that is named or found, for an environment; or from text."""
    text = (
        "version: 1\nservice: s\nroutes: {signals: {match: GET /signals, budget: 300ms}}\n"
        "environments: {staging: {routes: {signals: {budget: 1s}}}}\n"
    )
    (tmp_path / "budgetware.yaml").write_text(text)
    (tmp_path / "broken.yaml").write_text("version: 2\n")
    monkeypatch.chdir(tmp_path)
    policies = [
        Policy.load(),
        Policy.load("budgetware.yaml"),
        Policy.load(tmp_path / "budgetware.yaml", environment="staging"),
        Policy.parse(text),
        Policy.parse(text.encode(), environment="staging"),
    ]

    assert [policy.routes["signals"].budget for policy in policies] == [0.3, 0.3, 1.0, 0.3, 1.0]
    assert BudgetMiddleware(app, policy=policies[0])._engine.policy is policies[0]
    with pytest.raises(PolicyError, match="version"):
        Policy.load("broken.yaml")
    with pytest.raises(PolicyError, match="version"):
        Policy.parse("routes: 1")


CLOCKED = Route(name="signals", match=(Match("GET", "/"),), budget=1.0, answers=("reject",))


@pytest.mark.anyio
@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("scopes", [[{"type": "lifespan"}] * 2, [http(path="/")] * 2])
async def test_on_trio_it_is_said_that_there_is_no_clock(
    mode: Mode, scopes: list[Scope], anyio_backend_name: str
) -> None:
    """Once, at the start or with the first request, under a policy that decides."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await app(scope, receive, send)

    wire = Wire()
    door = BudgetMiddleware(serve, policy=Policy(mode=mode, routes={"signals": CLOCKED}))
    with capture_logs() as logs:
        for scope in scopes:
            await door(scope, wire.receive, wire.send)

    expected = ["budgetware_no_clock"] * (anyio_backend_name == "trio" and mode is not Mode.OBSERVE)
    assert [event["event"] for event in logs] == expected
    for event in logs:
        assert all(word in event["hint"] for word in ("trio", "the timer", "asyncio", "stages"))


FALLING = {
    "item": Route(name="item", match=(Match("GET", "/item"),), answers=("fallback", "reject")),
    "list": Route(name="list", match=(Match("GET", "/list"),), answers=("fallback",)),
    "calm": Route(
        name="calm", match=(Match("GET", "/calm"),), answers=("fallback",), mode=Mode.OBSERVE
    ),
    "job": Route(name="job", answers=("fallback",)),
    "other": Route(name="other", match=(Match("GET", "/other"),), answers=("reject",)),
}


@pytest.mark.parametrize("door", [BudgetMiddleware, WsgiMiddleware])
@pytest.mark.parametrize(
    ("mode", "given", "routes"),
    [
        (Mode.ENFORCE, (), ["item, list"]),
        (Mode.SHADOW, (), ["item, list"]),
        (Mode.ENFORCE, ("item",), ["list"]),
        (Mode.ENFORCE, ("item", "list"), []),
        (Mode.OBSERVE, (), []),
    ],
)
def test_a_fallback_that_nobody_has_given_is_missed(
    door: Any, mode: Mode, given: tuple[str, ...], routes: list[str]
) -> None:
    """Once, at the start, where it would be passed over in silence."""
    with capture_logs() as logs:
        door(app, policy=Policy(mode=mode, routes=FALLING), fallbacks=dict.fromkeys(given, print))

    missed = [event for event in logs if event["event"] == "budgetware_no_fallback"]
    assert [event["routes"] for event in missed] == routes
    for event in missed:
        assert event["log_level"] == "warning"
        assert "`fallbacks`" in event["hint"]


def test_where_every_mode_is_held_back_no_fallback_is_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is answered with anything smaller then."""
    monkeypatch.setenv("BUDGETWARE_MODE", "observe")
    with capture_logs() as logs:
        BudgetMiddleware(app, policy=Policy(mode=Mode.ENFORCE, routes=FALLING))

    assert logs == []


SHARED = {"store": AsyncRedisStore, "rates": partial(AsyncSharedRates, workers=2)}
SHARED_BY_THREADS = {"store": RedisStore, "rates": partial(SharedRates, workers=2)}
NOBODYS = "redis://127.0.0.1:1"


@pytest.mark.parametrize(
    ("middleware", "shared"),
    [(BudgetMiddleware, SHARED), (WsgiMiddleware, SHARED_BY_THREADS)],
    ids=["asgi", "wsgi"],
)
@pytest.mark.parametrize("name", ["store", "rates"])
def test_a_service_without_a_name_beside_others_is_warned(
    middleware: Any, shared: Mapping[str, Any], name: str
) -> None:
    """An environment tells no services apart; a prefix of its own does."""
    said = []
    for policy, options in (
        (Policy(environment="staging"), {name: shared[name](NOBODYS)}),
        (Policy(service="shop"), {name: shared[name](NOBODYS)}),
        (Policy(), {name: shared[name](NOBODYS, prefix="shop:")}),
        (Policy(), {}),
    ):
        with capture_logs() as logs:
            middleware(app, policy=policy, **options)
        said.append([line["event"] for line in logs if line["log_level"] == "warning"])

    assert said == [[names.EVENT_NO_SERVICE], [], [], []]
