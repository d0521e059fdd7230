"""Whose budget is it? The ASGI door's answer against the routers of real frameworks."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from tests.doors.asgi_play import Door, Wire, answer, http

from budgetware._core.policy import Match, Policy
from budgetware._core.policy import Route as Listed
from budgetware.asgi import Scope

TEMPLATES = {
    "home": "/",
    "list": "/items",
    "item": "/items/{id}",
    "parts": "/items/{id}/parts",
    "files": "/files/{rest:path}",
}


def _policy(prefix: str = "") -> Policy:
    return Policy(
        routes={
            name: Listed(name=name, match=(Match("GET", (prefix + template)),))
            for name, template in TEMPLATES.items()
        },
    )


def _endpoint(name: str) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> PlainTextResponse:
        return PlainTextResponse(name)

    return endpoint


def _routes(wrap: Callable[[str], Any] = _endpoint) -> list[Route]:
    return [Route(template, wrap(name)) for name, template in TEMPLATES.items()]


async def _missing(request: Request, error: Exception) -> PlainTextResponse:
    return PlainTextResponse("Not Found", 404)


def _app() -> Starlette:
    # Older releases answer with 404 from a thread, which takes an event loop.
    return Starlette(routes=_routes(), exception_handlers={404: _missing})


def _door(app: Any, policy: Policy) -> Door:
    return Door(app, policy=policy)


def _serve(door: Door, scope: Scope) -> tuple[int, str]:
    wire = Wire()
    wire.run(door, scope)
    return wire.sent[0]["status"], wire.body.decode()


PIECES = ["/", "//", "items", "files", "%2f", "%2F", ";", "@", "..", ".", "a", "\n", "é", "?", "#"]
PIECES += ["items/", "x" * 300, "\udcff", "\x00", "*", "{id}", "parts", ";v=1", "@evil", ":80"]


def _hostile(count: int) -> Iterable[str]:
    pick = random.Random(14)
    yield from ["", "/", "//", "///", "/items//", "//items", "/items/", "/items/a/", "/items/a//"]
    yield from ["/items/a%2fparts", "/items;a", "@items", "/items/@/parts", "/items/\n", "/items\n"]
    for _ in range(count):
        yield "/" * pick.randrange(2) + "".join(pick.choices(PIECES, k=pick.randrange(6)))


def test_hostile_paths_belong_to_the_routers_route_or_to_none() -> None:
    """Doubled slashes, escapes, semicolons, at-signs: never another route than Starlette's."""
    app = _app()
    door = _door(app, _policy())
    agreed = 0
    for path in _hostile(3000):
        status, served = _serve(door, http(path=path, headers=[(b"host", b"x/items?")]))
        ours = door.records.pop().route
        if status == 200:
            assert ours in {served, "_unmatched"}, path
            agreed += ours == served
        elif status == 307:  # Starlette sends the client to the path with or without the slash
            assert ours in {"_unmatched", "list", "item", "parts", "files"}, path
        else:
            assert ours == "_unmatched", path
    assert agreed > 300


def test_any_number_of_unknown_paths_is_one_series() -> None:
    """A hundred thousand random paths and methods leave the labels as the policy bounds them."""
    door = Door(answer, observers=[])
    pick = random.Random(921)
    wire = Wire()
    for _ in range(100_000):
        path = f"/{pick.getrandbits(40):x}/{pick.getrandbits(20)}"
        wire.run(door, http(pick.choice(["GET", "POST", f"M{pick.random()}"]), path))
        wire.sent.clear()

    series = door._engine.tally.requests
    used = {key: sum(one.outcomes.values()) for key, one in series.items()}
    assert sum(door.outcomes.values()) == 100_000
    assert {route for route, _ in used} <= {"signals", "report", "home", "_unmatched"}
    assert len(used) <= 4 * 2


OUTSIDE: dict[str, Callable[[Door], Any]] = {
    "": lambda door: door,
    "/sub": lambda door: Starlette(routes=[Mount("/sub", door)]),
    "/a/b": lambda door: Starlette(routes=[Mount("/a", Starlette(routes=[Mount("/b", door)]))]),
}


@pytest.mark.parametrize(
    ("mount", "server"),
    [*((mount, "prefixed") for mount in OUTSIDE), ("", "bare")],
)
@pytest.mark.parametrize("root", ["", "/api", "/api/v1"])
@pytest.mark.parametrize("templates", ["relative", "mounted", "public"])
def test_the_same_route_with_and_without_prefixes(
    mount: str,
    server: str,
    root: str,
    templates: str,
) -> None:
    """Proxy prefix, mount, both or none; templates as the app, the server or clients see them.

    A server either puts its root path in front of the path, as uvicorn does, or leaves it out;
    Starlette's own mounts understand only the first.
    """
    prefix = {"relative": "", "mounted": mount, "public": root + mount}[templates]
    door = _door(_app(), _policy(prefix))
    app = OUTSIDE[mount](door)
    examples = {
        "/items": "list",
        "/items/7": "item",
        "/items/7/parts": "parts",
        "/files/a/b/c": "files",
        "/nowhere": "_unmatched",
    }
    for path, name in examples.items():
        full = mount + path if server == "bare" else root + mount + path
        wire = Wire()
        wire.run(app, http(path=full, root_path=root))
        assert wire.sent[0]["status"] == (404 if name == "_unmatched" else 200)
        assert door.records.pop().route == name, (prefix, full)
    assert door.faults == {}


def test_a_root_path_ends_at_a_slash() -> None:
    """The root ``/api`` is no prefix of ``/apiitems``: that is another path altogether."""
    door = _door(answer, _policy())
    for path in ("/apiitems", "/api-items/7", "/ap"):
        Wire().run(door, http(path=path, root_path="/api"))
        assert door.records.pop().route == "_unmatched"
    for path in ("/api", "/api/"):
        Wire().run(door, http(path=path, root_path="/api"))
        assert door.records.pop().route == "home"


def test_the_host_header_decides_nothing() -> None:
    """Only the scope's path is looked at: a Host that looks like a path changes no label."""
    door = _door(_app(), _policy())
    for host in (b"x/items?", b"/items", b"@/items", b"", b"\xff"):
        status, _ = _serve(door, http(path="/nowhere", headers=[(b"host", host)]))
        assert status == 404
        assert door.records.pop().route == "_unmatched"
