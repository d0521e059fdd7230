"""Whatever could never work is refused when the door is made, by both of them, in one line."""

from __future__ import annotations

import asyncio
import functools
import logging
import queue
import re
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import redis
import redis.asyncio
import structlog
from opentelemetry import metrics, trace

from budgetware import BudgetMiddleware, Policy
from budgetware._core.policy import Match, Route
from budgetware._core.rate import Rates
from budgetware.answers.redis_store import AsyncRedisStore, RedisStore
from budgetware.limits.tasks import AsyncSharedRates
from budgetware.limits.threads import SharedRates
from budgetware.runtime import Runtime
from budgetware.wsgi import BudgetMiddleware as WsgiMiddleware

URL = "redis://:hush@localhost:1/0"
DOORS = [BudgetMiddleware, WsgiMiddleware]
POLICY = Policy(routes={"signals": Route(name="signals", match=(Match("GET", "/"),))})


def app(*_: object) -> Any:
    """Stand for an application that is never called."""


async def coroutine(_: object) -> str:
    """Name nobody before it is awaited."""
    return "pro"


def generator(_: object) -> Iterator[str]:
    """Name nobody."""
    yield "pro"


async def async_generator(_: object) -> AsyncIterator[str]:
    """Name nobody."""
    yield "pro"


def of_two(scope: object, db: object) -> str:
    """Ask for more than there is."""
    return f"{scope} {db}"


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a decorator's work, which passes on what it likes."""

    @functools.wraps(function)
    def inner(scope: object) -> Any:
        return function(scope, None)

    return inner


class Awaited:
    """An object that can be called, and then awaited."""

    async def __call__(self, _: object) -> str:
        """Name nobody before it is awaited."""
        return "pro"


class Named:
    """An object that can be called."""

    def __call__(self, _: object) -> str:
        """Name everybody."""
        return "pro"


class HalfAStore:
    """A store that can only be read."""

    def get(self, key: bytes, now: float, wait_s: float) -> None:
        """Find nothing."""


def refused(door: Any, **options: Any) -> str:
    """Return why *door* is not made, in one line that says nothing of a password."""
    with pytest.raises(TypeError) as caught:
        door(app, **{"policy": POLICY, **options})
    said = str(caught.value)
    assert "\n" not in said
    assert "hush" not in said
    return said


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("option", ["tier", "identity", "server_timing"])
@pytest.mark.parametrize(
    ("function", "why"),
    [
        (coroutine, "must be a plain function, and coroutine is a coroutine function"),
        (functools.partial(coroutine), "is a coroutine function"),
        (functools.partial(functools.partial(Awaited())), "is a coroutine function"),
        (functools.cache(coroutine), "is a coroutine function"),
        (staticmethod(coroutine), "is a coroutine function"),
        (Awaited(), "Awaited is a coroutine function"),
        (Awaited().__call__, "is a coroutine function"),
        (generator, "generator is a generator function"),
        (async_generator, "is an async generator function"),
        (of_two, r"is called with the (scope|environ) alone, and of_two\(scope.*db"),
        (lambda: "pro", r"is called with the (scope|environ) alone, and .*<lambda>\(\) cannot"),
        ("pro", "must be a function.* not 'pro'"),
        ("", "must be a function"),
        (0, "must be a function"),
        ({}, "must be a function"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_cannot_be_asked_for_each_request_is_refused(
    door: Any, option: str, function: object, why: str
) -> None:
    """Its answer would be no answer, or there would be none."""
    assert re.search(f"^{option} .*{why}", refused(door, **{option: function}))


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("option", ["tier", "identity", "clock"])
@pytest.mark.parametrize("given", [True, False])
def test_a_yes_or_a_no_is_nobodys_name(door: Any, option: str, given: object) -> None:
    """Only ``server_timing`` may be one, and its message says so."""
    assert f"{option} must be a function" in refused(door, **{option: given})
    door(app, policy=POLICY, server_timing=given)
    assert "True or False" in refused(door, server_timing="yes")


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    "function",
    [
        Named(),
        functools.partial(of_two, db=1),
        functools.cache(Named()),
        wrapped(of_two),
        lambda scope, db=None: f"{scope} {db}",
        lambda *_: "pro",
        {"a": "pro"}.get,
        Mock(),
        str,
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_can_be_asked_is_taken(door: Any, function: Any) -> None:
    """Objects, builtins, and what a decorator has made of a function that takes more."""
    made = door(app, policy=POLICY, tier=function, identity=function, server_timing=function)

    assert made._engine.policy == POLICY


@pytest.mark.parametrize(
    ("door", "store", "why"),
    [
        (BudgetMiddleware, AsyncRedisStore, "the class AsyncRedisStore, not an instance"),
        (WsgiMiddleware, RedisStore, "the class RedisStore, not an instance"),
        (BudgetMiddleware, RedisStore(URL), "RedisStore.get is no coroutine function"),
        (WsgiMiddleware, AsyncRedisStore(URL), "AsyncRedisStore.get is a coroutine function"),
        (BudgetMiddleware, asyncio.Queue(), "Queue.get is called with (key, now, wait_s)"),
        (WsgiMiddleware, queue.Queue(), "Queue.get is called with (key, now, wait_s)"),
        (BudgetMiddleware, {}, "dict.get is no coroutine function"),
        (WsgiMiddleware, {}, "dict.get is called with"),
        (BudgetMiddleware, redis.asyncio.Redis(), "Redis.get is no coroutine function"),
        (WsgiMiddleware, redis.Redis(), "Redis.get is called with"),
        (WsgiMiddleware, HalfAStore(), "HalfAStore has no method put"),
        (BudgetMiddleware, URL, "str has no method get"),
        (WsgiMiddleware, False, "bool has no method get"),
        (BudgetMiddleware, AsyncSharedRates(URL, workers=1), "has no method get"),
    ],
    ids=str,
)
def test_what_cannot_keep_responses_is_refused(door: Any, store: object, why: str) -> None:
    """Nothing would ever be found, or every request would be a fault."""
    assert why in refused(door, store=store)


@pytest.mark.parametrize(
    ("door", "rates", "why"),
    [
        (BudgetMiddleware, AsyncSharedRates, "the class AsyncSharedRates"),
        (WsgiMiddleware, SharedRates, "the class SharedRates"),
        (BudgetMiddleware, SharedRates(URL, workers=1), "is no coroutine function"),
        (WsgiMiddleware, AsyncSharedRates(URL, workers=1), "is a coroutine function"),
        (BudgetMiddleware, Rates(), "Rates.take is no coroutine function"),
        (WsgiMiddleware, Rates(), "Rates.take is called with (tier, identity"),
        (WsgiMiddleware, RedisStore(URL), "RedisStore has no method take"),
        (BudgetMiddleware, {"free": 1}, "dict has no method take"),
        (WsgiMiddleware, URL, "str has no method take"),
    ],
    ids=str,
)
def test_what_cannot_count_callers_is_refused(door: Any, rates: object, why: str) -> None:
    """Everybody would be let in."""
    assert why in refused(door, rates=rates)


@pytest.mark.parametrize(
    ("door", "store", "rates"),
    [
        (BudgetMiddleware, AsyncRedisStore(URL), AsyncSharedRates(URL, workers=1)),
        (WsgiMiddleware, RedisStore(URL), SharedRates(URL, workers=1)),
        (WsgiMiddleware, Mock(), Mock()),
    ],
)
def test_what_can_serve_is_taken(door: Any, store: Any, rates: Any) -> None:
    """Ours, and whatever has their methods."""
    assert door(app, policy=POLICY, store=store, rates=rates)._engine.policy == POLICY


@pytest.mark.parametrize("make", [AsyncRedisStore, RedisStore])
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"secret": "hush"}, TypeError, "secret must be bytes"),
        ({"prefix": None}, TypeError, "prefix must be a str"),
        ({"prefix": b"shop"}, TypeError, "prefix must be a str"),
        ({"operation_s": "1"}, TypeError, "operation_s must be a number of seconds"),
        ({"operation_s": True}, TypeError, "operation_s must be a number of seconds"),
        ({"operation_s": 0}, ValueError, "operation_s is more than 0 and at most 1"),
        ({"operation_s": float("nan")}, ValueError, "operation_s is more than 0"),
        ({"most_body_bytes": -1}, ValueError, "most_body_bytes must be at least 0"),
        ({"most_body_bytes": "1"}, TypeError, "most_body_bytes must be a whole number"),
    ],
)
def test_a_store_that_could_keep_nothing_is_not_made(
    make: Any, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    """What is wrong is named, and a secret is not repeated."""
    with pytest.raises(error, match=message) as caught:
        make(URL, **arguments)

    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("make", [AsyncSharedRates, SharedRates])
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"workers": 0}, ValueError, "workers must be at least 1"),
        ({"workers": 2.5}, TypeError, "workers must be a whole number"),
        ({"workers": "4"}, TypeError, "workers must be a whole number"),
        ({"workers": True}, TypeError, "workers must be a whole number"),
        ({"prefix": None}, TypeError, "prefix must be a str"),
        ({"timeout_s": "1"}, TypeError, "timeout_s must be a number of seconds"),
        ({"timeout_s": 0}, ValueError, "timeout_s is more than 0"),
        ({"timeout_s": -1.0}, ValueError, "timeout_s is more than 0"),
        ({"timeout_s": float("inf")}, ValueError, "timeout_s is more than 0"),
        ({"most_identities": 0}, ValueError, "most_identities must be at least 1"),
    ],
)
def test_rates_that_could_count_nobody_are_not_made(
    make: Any, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    """Not once the first request is there."""
    with pytest.raises(error, match=message):
        make(URL, **{"workers": 1, **arguments})


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"observers": [lambda: None]}, "an observer is called with one RequestRecord, and"),
        ({"observers": [print, coroutine]}, "an observer must be a plain function"),
        ({"observers": "print"}, "observers must be a list of callables"),
        ({"observers": None}, "observers must be a list of callables"),
        ({"observers": iter([print])}, "observers must be a list of callables"),
        ({"clock": lambda now: now}, "clock is called with nothing, and"),
        ({"clock": 1.0}, "clock must be a function"),
        ({"logger": "budgetware"}, "logger must be a structlog logger"),
        ({"logger": logging.getLogger("x")}, r"structlog.wrap_logger(...) returns, not Logger"),
        ({"logger": logging.LoggerAdapter(logging.getLogger("x"))}, "not LoggerAdapter"),
        ({"logger": Mock}, "not the class Mock"),
        ({"meter_provider": "otlp"}, "meter_provider must be OpenTelemetry's, with get_meter()"),
        ({"meter_provider": metrics.get_meter("x")}, "meter_provider must be"),
        ({"tracer_provider": 1}, "tracer_provider must be OpenTelemetry's, with get_tracer()"),
        ({"tracer_provider": trace.TracerProvider}, "not the class TracerProvider"),
        ({"policy": 3}, "policy must be a Policy or the path of a file, not 3"),
        ({"policy": {"version": 1}}, "policy must be a Policy or the path of a file"),
        ({"policy": None, "environment": 3}, "environment must be a name in the policy file"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_options_of_the_wrong_kind_are_refused(
    door: Any, options: dict[str, Any], why: str
) -> None:
    """As far as it can be told before they are used."""
    assert why in refused(door, **options)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    "options",
    [
        {"observers": (print, [].append, Mock())},
        {"clock": lambda *_: 1.0},
        {"logger": structlog.get_logger()},
        {"logger": structlog.wrap_logger(logging.getLogger("x"))},
        {"logger": structlog.testing.CapturingLogger()},
        {"meter_provider": metrics.get_meter_provider()},
        {"tracer_provider": trace.get_tracer_provider()},
    ],
    ids=str,
)
def test_options_of_the_right_kind_are_taken(door: Any, options: dict[str, Any]) -> None:
    """Ours, others' and made-up ones."""
    assert door(app, policy=POLICY, **options)._engine.policy == POLICY


def test_a_reload_of_what_is_no_name_is_refused() -> None:
    """In words, too, where it could not even be compared."""
    with pytest.raises(ValueError, match='"file" or the number of a signal'):
        Runtime.start(policy=POLICY, reload=[])  # type: ignore[arg-type]


@pytest.mark.parametrize("door", DOORS)
def test_an_environment_for_a_policy_that_was_read_is_refused(door: Any) -> None:
    """It would change nothing; the error says where it belongs."""
    assert "Policy.load(path, environment='prod')" in refused(door, environment="prod")


TEXT = """\
version: 1
routes: {signals: {match: GET /, budget: 50ms}}
environments: {prod: {routes: {signals: {budget: 10ms}}}}
"""


@pytest.mark.parametrize("kind", ["door", "late", "policy"])
def test_a_reload_is_for_the_environment_of_the_start(tmp_path: Path, kind: str) -> None:
    """Whoever was told its name: the door, made early or late, or the policy."""
    file = tmp_path / "budgetware.yaml"
    file.write_text(TEXT)

    async def late() -> Runtime:
        door = BudgetMiddleware(async_app, policy=file, environment="prod", reload="file")
        await door({"type": "lifespan"}, app, app)
        return door._runtime

    if kind == "late":
        runtime = asyncio.run(late())
    elif kind == "door":
        runtime = Runtime.start(policy=file, environment="prod", reload="file")
    else:
        runtime = Runtime.start(policy=Policy.load(file, environment="prod"), reload="file")
    file.write_text(TEXT.replace("10ms", "20ms"))
    runtime.engine.watch.look(now=True)  # type: ignore[attr-defined]

    assert runtime.engine.policy.routes["signals"].budget == 0.02


async def async_app(*_: object) -> None:
    """Stand for an application."""


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda: Policy.load(3), "path must be the name of a file, not 3"),  # type: ignore[arg-type]
        (lambda: Policy.load(b"x.yaml"), "path must be the name of a file"),  # type: ignore[arg-type]
        (lambda: Policy.load(environment=3), "environment must be"),  # type: ignore[arg-type]
        (lambda: Policy.parse({"version": 1}), "text must be .*YAML.* not a dict"),  # type: ignore[arg-type]
        (lambda: Policy.parse(Path("x.yaml")), "Policy.load reads a file"),  # type: ignore[arg-type]
        (lambda: Policy.parse("version: 1", environment=3), "environment must be"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_policy_is_refused_in_words(read: Callable[[], Policy], message: str) -> None:
    """What was to be given is named."""
    with pytest.raises(TypeError, match=message):
        read()
