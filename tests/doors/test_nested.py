"""One middleware around another: a request is told of once where their policies are equal."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from structlog.testing import capture_logs
from tests.doors import asgi_play, wsgi_play
from tests.doors.asgi_play import LAST, POLICY, START, http
from tests.doors.steered_play import Play
from tests.doors.wsgi_play import environ

from budgetware import budget
from budgetware._core.policy import Policy
from budgetware.asgi import ASGIApp, BudgetMiddleware, Receive, Scope, Send
from budgetware.wsgi import Environ, StartResponse

OTHER = replace(POLICY, digest="0ther", service="other")

Nest = Callable[[Policy, Policy], "tuple[Any, Any]"]


async def works(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer, with a stage."""
    with budget.stage("db"):
        await asgi_play.answer(scope, receive, send)


def works_in_a_thread(env: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer, with a stage."""
    with budget.stage("db"):
        return wsgi_play.answer(env, start_response)


def asgi(outer: Policy, inner: Policy) -> tuple[asgi_play.Door, asgi_play.Door]:
    """Return two doors, something of the application between them, that have served one request."""
    within = asgi_play.Door(works, inner)

    async def between(scope: Scope, receive: Receive, send: Send) -> None:
        await within(scope, receive, send)

    without = asgi_play.Door(between, outer)
    wire = asgi_play.Wire()
    wire.run(without, http("POST"))
    assert wire.sent == [START, LAST]
    return without, within


def wsgi(outer: Policy, inner: Policy) -> tuple[wsgi_play.Door, wsgi_play.Door]:
    """Return the same over WSGI."""
    within = wsgi_play.Door(works_in_a_thread, inner)
    without = wsgi_play.Door(within, outer)
    wire = wsgi_play.Wire()
    wire.run(without, environ("POST"))
    assert wire.parts == [b"ok"]
    assert wire.starts == [("200 OK", [("X-A", "1")], None)]
    return without, within


@pytest.mark.parametrize("nest", [asgi, wsgi])
def test_a_request_is_on_one_account(nest: Nest) -> None:
    """The outer one's, which has the stages, too; the inner one says so, and counts nothing."""
    with capture_logs() as logs:
        outer, inner = nest(POLICY, replace(POLICY))

    assert [opening.name for opening in outer.record.openings] == ["db"]
    assert (outer.outcomes, inner.outcomes) == ({"met": 1}, {})
    assert inner.records == []
    assert [(event["event"], event["log_level"]) for event in logs] == [
        ("budgetware_nested", "warning")
    ]


@pytest.mark.parametrize("nest", [asgi, wsgi])
def test_under_different_policies_each_keeps_its_own(nest: Nest) -> None:
    """They promise different things."""
    with capture_logs() as logs:
        outer, inner = nest(POLICY, OTHER)

    assert [outer.record.policy, inner.record.policy] == ["d1gest", "0ther"]
    assert [record.route for record in (outer.record, inner.record)] == ["signals", "signals"]
    assert logs == []


def test_it_is_said_once_and_no_request_after_it_either() -> None:
    """However many requests arrive."""
    outer, inner = wsgi(POLICY, POLICY)

    with capture_logs() as logs:
        for _ in range(3):
            wsgi_play.Wire().run(outer, environ())

    assert logs == []
    assert len(outer.records) == 4
    assert inner.records == []


def test_an_application_that_calls_itself_has_two_requests() -> None:
    """Also where it does so through both doors: the same door means another request."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/":
            asgi_play.run(outer(http(), receive, asgi_play.Wire().send))
        await asgi_play.answer(scope, receive, send)

    inner = asgi_play.Door(app)
    outer = asgi_play.Door(inner)
    asgi_play.Wire().run(outer, http(path="/"))

    assert [record.route for record in outer.records] == ["signals", "home"]
    assert inner.records == []


def test_a_mounted_application_with_the_policy_of_its_host_is_told_of_once() -> None:
    """The middleware is often added to each of the two by what makes applications."""
    seen: list[str | None] = []

    async def endpoint(request: Request) -> Response:
        seen.append(budget.route)
        return PlainTextResponse(request.url.path)

    def made(*routes: Any, records: list[Any]) -> Starlette:
        app = Starlette(routes=routes)
        app.add_middleware(BudgetMiddleware, policy=POLICY, observers=[records.append])
        return app

    outer: list[Any] = []
    inner: list[Any] = []
    mounted = made(Route("/{symbol}", endpoint), records=inner)
    wire = asgi_play.Wire()
    wire.run(made(Mount("/signals", app=mounted), records=outer), http(path="/signals/x"))

    assert wire.body == b"/signals/x"
    assert seen == [record.route for record in outer] == ["signals"]
    assert inner == []


def test_two_that_answer_in_time_answer_once() -> None:
    """The outer one's clock answers; the inner one has none."""

    async def endpoint(_: Request) -> Response:
        budget.degrade("no_model")
        raise AssertionError

    inside: list[Play] = []

    def wrapped(app: ASGIApp) -> ASGIApp:
        inner = Play(endpoint, wrapped=lambda _: app)
        inside.append(inner)
        return inner.door

    play = Play(endpoint, wrapped=wrapped)

    answered = play.ask()

    assert (answered.body, answered.kind) == (b"static", "static")
    assert answered.complete
    assert play.outcomes == {"degraded": 1}
    assert inside[0].outcomes == {}
    play.check()
    inside[0].check()


def test_a_request_that_has_been_answered_hides_none() -> None:
    """What is asked for in the background after it is on an account of its own."""
    later = asgi_play.Wire()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asgi_play.answer(scope, receive, send)
        later.run(other, http(path="/"))

    other = asgi_play.Door(asgi_play.answer)
    door = asgi_play.Door(app)
    asgi_play.Wire().run(door, http())

    assert [record.route for record in door.records] == ["signals"]
    assert [record.route for record in other.records] == ["home"]
