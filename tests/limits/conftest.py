"""A real Redis, and limiters that are closed after each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.limits.faces import Looped, Make, Threaded
from tests.limits.servers import RedisServer


@pytest.fixture(params=[Threaded, Looped])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Return a constructor of limiters that are closed afterwards."""
    made: list[Threaded | Looped] = []

    def build(url: str, **options: float) -> Threaded | Looped:
        made.append(request.param(url, **options))
        return made[-1]

    yield build
    for one in made:
        one.close()


@pytest.fixture(scope="module")
def shared_server() -> Iterator[RedisServer]:
    """Return a server for tests that do it no harm."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def server(shared_server: RedisServer) -> RedisServer:
    """Return that server, empty."""
    shared_server.command("FLUSHALL")
    shared_server.command("SCRIPT", "FLUSH")
    return shared_server
