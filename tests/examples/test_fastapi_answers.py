"""The FastAPI example answers in time, with something smaller if it has to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from budgetware.names import ANSWER_HEADER
from examples.fastapi_app import app as served
from examples.fastapi_app import door
from examples.fastapi_app.platform import Platform
from examples.fastapi_app.routes import UNDECIDED, last_score

ENTERPRISE = "demo-enterprise"
SLOW_MS = 240.0
"""No statement is done within the 30 ms of an enterprise caller, however fast this machine is."""


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """Run the example as its policy says."""
    monkeypatch.delenv("BUDGETWARE_MODE", raising=False)
    with TestClient(served.create_app()) as found:
        yield found


def signal(client: TestClient, key: str, symbol: str = "GALE") -> Response:
    """Ask for a signal."""
    answer: Response = client.get(f"/signals/{symbol}", headers={"X-API-Key": key})
    return answer


def slow_down(client: TestClient, wait_ms: float = SLOW_MS) -> None:
    """Make the database's disk busy."""
    trouble = {"wait_ms": wait_ms, "for_s": 30}
    client.put("/admin/disk", json=trouble, headers={"X-API-Key": "demo-operator"})


def test_a_slow_signal_is_answered_from_memory_and_then_from_the_cache(client: TestClient) -> None:
    """The first has the application's own cheap answer; what it still found out is the next's."""
    slow_down(client)
    quick, cached = signal(client, ENTERPRISE), signal(client, ENTERPRISE)

    assert (quick.status_code, quick.headers[ANSWER_HEADER]) == (200, "fallback")
    assert (quick.json()["action"], quick.json()["chance_of_rise"]) == ("hold", None)
    assert cached.headers[ANSWER_HEADER] == "cached"
    assert cached.json()["chance_of_rise"] is not None
    assert cached.json()["price"] == quick.json()["price"]


def test_nobody_is_sent_what_was_kept_for_another(client: TestClient) -> None:
    """What an enterprise caller's signal left in the cache is not there for a pro caller."""
    slow_down(client)
    for _ in range(2):
        signal(client, ENTERPRISE)

    assert signal(client, "demo-pro").headers[ANSWER_HEADER] == "fallback"


def test_who_has_time_waits_for_the_full_answer(client: TestClient) -> None:
    """The same trouble is none to a free caller, who was promised a second."""
    slow_down(client)
    answer = signal(client, "demo-free")

    assert answer.status_code == 200
    assert ANSWER_HEADER not in answer.headers


def test_the_short_way_refuses_whom_the_long_one_refuses(client: TestClient) -> None:
    """A wrong key and an unknown symbol are refused in memory as they are by the routes."""
    assert _quick(client, "GALE", "wrong")[0] == signal(client, "wrong").status_code == 401
    unknown = signal(client, "demo-free", "NOPE")
    assert _quick(client, "NOPE", "demo-free")[0] == unknown.status_code == 404


def test_observing_holds_the_policy_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """One environment variable, and the same file changes no answer."""
    monkeypatch.setenv("BUDGETWARE_MODE", "observe")
    with TestClient(served.create_app()) as client:
        slow_down(client)
        answer = signal(client, ENTERPRISE)

    assert ANSWER_HEADER not in answer.headers
    assert answer.json()["chance_of_rise"] is not None


def test_what_stands_in_for_the_model_is_what_it_said_last(client: TestClient) -> None:
    """Before it has said anything nobody is told to buy or to sell."""
    platform: Platform = client.app_state["platform"]
    features: Any = None

    assert last_score(platform, "GALE", features) == UNDECIDED
    chance = signal(client, "demo-free").json()["chance_of_rise"]
    assert last_score(platform, "GALE", features) == chance


def _quick(client: TestClient, symbol: str, key: str) -> Any:
    scope = {
        "path": f"/signals/{symbol}",
        "headers": [(b"x-api-key", key.encode())],
        "state": client.app_state,
    }
    assert client.portal is not None
    return client.portal.call(door.quick_signal, scope)
