"""The FastAPI example keeps account of what it promises."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.testclient import TestClient
from tests.examples.conftest import Trading

from budgetware._core.record import Outcome, RequestRecord
from examples.fastapi_app import app as served
from examples.fastapi_app.market import SYMBOLS
from examples.fastapi_app.model import Model, features_of


def spent(record: RequestRecord) -> dict[str, int]:
    """Return how often each stage was opened."""
    return {total.name: total.calls for total in record.stages if total.operation is None}


@pytest.mark.parametrize(
    ("key", "tier", "limit_s"),
    [
        (None, "free", 1.0),
        ("demo-free", "free", 1.0),
        ("demo-pro", "pro", 0.1),
        ("demo-enterprise", "enterprise", 0.03),
    ],
)
def test_the_key_decides_on_the_tier(
    trading: Trading,
    key: str | None,
    tier: str,
    limit_s: float,
) -> None:
    """The tier is what the server's own table says about the key."""
    status, record = trading.call("/quotes/ACME", key)

    assert (status, record.route, record.tier) == (200, "quotes", tier)
    assert record.limit_s == limit_s


def test_no_header_makes_anybody_an_enterprise_caller(trading: Trading) -> None:
    """Headers that name a tier count for nothing, and a wrong key is refused."""
    headers = {"X-Tier": "enterprise", "budgetware.tier": "enterprise"}

    assert trading.call("/quotes/ACME", None, **headers)[1].tier == "free"
    status, record = trading.call("/quotes/ACME", "enterprise", **headers)
    assert (status, record.tier) == (401, "free")


def test_a_signal_goes_through_every_stage(trading: Trading) -> None:
    """A lively symbol uses all eight stages, a calm one does without the optional two."""
    found = {}
    for symbol in SYMBOLS:
        status, record = trading.call(f"/signals/{symbol}")
        assert status == 200
        found[symbol] = spent(record)

    needed = {"gateway", "auth", "db", "bridge", "hub", "response"}
    kinds = {frozenset(stages) for stages in found.values()}
    assert kinds == {frozenset(needed), frozenset(needed | {"ml", "trading"})}
    assert all(calls == 1 for stages in found.values() for calls in stages.values())


def test_a_signal_says_what_the_model_says(trading: Trading) -> None:
    """The chance in the answer is the model's, computed from the same prices."""
    prices = [row[2] for row in _lines(trading, "ticks") if row[1] == "GALE"]
    features = features_of(prices[-64:])
    answer = trading.client.get("/signals/gale").json()

    assert features.lively
    assert answer["chance_of_rise"] == Model.trained().chance_of_rise(features)
    assert answer["price"] == prices[-1]
    assert answer["desk"] in {"amsterdam", "jakarta", "chicago"}


def test_an_endpoint_in_the_threadpool_has_its_stages(trading: Trading) -> None:
    """A plain function's stages are the request's, as those of its async dependencies are."""
    _, record = trading.call("/quotes/ACME")

    assert spent(record) == {"gateway": 1, "auth": 1, "db": 1, "response": 1}


def test_the_report_ends_with_its_last_line(trading: Trading) -> None:
    """A streamed report is judged by its last byte and has a stage for each page."""
    assert len(_lines(trading, "ticks")) == 400 * len(SYMBOLS)
    record = trading.records[-1]

    assert record.route == "report"
    assert spent(record) == {"auth": 1, "db": 5, "response": 4}
    assert record.first_byte_s is not None
    assert record.first_byte_s < record.elapsed_s == record.duration_s


def test_background_work_is_not_on_the_bill(trading: Trading) -> None:
    """What happens after the answer is in no figure of the request, and does happen."""
    trading.slow_down(40)
    answer = trading.client.post(
        "/orders",
        json={"symbol": "ACME", "quantity": 2},
        headers={"X-API-Key": "demo-pro"},
    )
    (record,) = [one for one in trading.records if one.route == "orders"]

    assert answer.status_code == 201
    # The background task waits for the disk as well, twice.
    assert {(total.name, total.operation): total.calls for total in record.stages} == {
        ("auth", None): 1,
        ("gateway", None): 1,
        ("db", None): 2,
        ("trading", None): 1,
        ("response", None): 1,
        ("db", "latest"): 1,
        ("db", "insert"): 1,
    }
    assert _settled(trading) == answer.json()["order"]


def test_a_job_has_a_budget_of_its_own(trading: Trading) -> None:
    """The export runs after its request, as a job with its own promise."""
    trading.client.post("/admin/exports", headers={"X-API-Key": "demo-operator"})
    request, job = trading.records

    assert (request.route, request.status) == ("_unmatched", 202)
    assert (job.route, job.status, job.limit_s) == ("nightly-export", None, 5.0)
    assert spent(job)["db"] >= 1


def test_a_slow_database_is_told(trading: Trading) -> None:
    """A busy disk makes the db stage and the request exceed, and both are logged."""
    trading.slow_down(80)
    _, slow = trading.call("/signals/ACME")
    trading.slow_down(0)
    (db,) = [one for one in slow.stages if (one.name, one.operation) == ("db", None)]

    assert slow.outcome is Outcome.BREACHED
    assert db.spent_s >= 0.04
    assert slow.overage_s == pytest.approx(slow.elapsed_s - 0.03)
    logged = {
        (event["scope"], event.get("stage")): event
        for event in trading.logged
        if event["event"] == "budget_exceeded" and event["route"] == "signals"
    }
    assert logged["stage", "db"]["overage_ms"] == round(db.overage_s * 1000, 3)
    assert logged["request", None]["tier"] == "enterprise"
    assert logged["request", None]["budget_ms"] == 30.0


def test_the_disk_recovers_by_itself(trading: Trading) -> None:
    """A disturbance is bounded in size and ends without anybody's help."""
    key = {"X-API-Key": "demo-operator"}
    too_much = trading.client.put("/admin/disk", json={"wait_ms": 251}, headers=key)
    trading.client.put("/admin/disk", json={"wait_ms": 200, "for_s": 0}, headers=key)

    assert too_much.status_code == 422
    assert trading.client.app_state["platform"].database.disk.wait_s == 0


def test_only_operators_may_make_trouble(trading: Trading) -> None:
    """The admin routes refuse everybody else."""
    for key in ("demo-free", "demo-pro", "demo-enterprise"):
        answer = trading.client.put(
            "/admin/disk",
            json={"wait_ms": 1},
            headers={"X-API-Key": key},
        )
        assert answer.status_code == 403
    assert trading.client.post("/admin/exports").status_code == 403


def test_a_hub_that_is_down_costs_the_desk_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without the hub a signal goes without a desk."""
    monkeypatch.setenv("BUDGETWARE_MODE", "observe")
    monkeypatch.setenv("TRADING_HUB_URL", "http://127.0.0.1:9")
    with TestClient(served.create_app()) as client:
        answer = client.get("/signals/ACME")

    assert (answer.status_code, answer.json()["desk"]) == (200, None)


def test_a_scrape_has_the_stages_and_the_limits(trading: Trading) -> None:
    """Prometheus sees our histograms ready-made, and what was promised."""
    trading.call("/signals/ACME")
    text = trading.client.get("/metrics").text

    assert 'budgetware_stage_duration_seconds_count{budgetware_route="signals"' in text
    limit = (
        'budgetware_request_budget_limit_seconds{budgetware_route="signals",'
        'budgetware_tier="enterprise"} 0.03\n'
    )
    assert limit in text
    assert "budgetware_internal_errors_total{" not in text


def test_log_lines_carry_the_request_id(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service's own logging writes violations as one line each, with the request's number."""
    monkeypatch.setenv("BUDGETWARE_MODE", "observe")
    with TestClient(served.create_app()) as client:
        trouble = {"wait_ms": 120, "for_s": 30}
        client.put("/admin/disk", json=trouble, headers={"X-API-Key": "demo-operator"})
        client.get("/quotes/ACME", headers={"X-API-Key": "demo-enterprise"})
    (line,) = [
        line
        for line in capsys.readouterr().out.splitlines()
        if "event=budget_exceeded scope=request route=quotes tier=enterprise" in line
    ]

    assert "budget_ms=30.0" in line
    assert "request_id=" in line


def _lines(trading: Trading, table: str) -> list[list[Any]]:
    answer = trading.client.get(f"/reports/{table}", headers={"X-API-Key": "demo-enterprise"})
    return [json.loads(line) for line in answer.text.splitlines()]


def _settled(trading: Trading) -> int:
    """Return how many orders of the pro caller the background work has settled."""
    platform = trading.client.app_state["platform"]
    portal = trading.client.portal
    assert portal is not None
    settled: tuple[int, float] = portal.call(platform.database.position, "brook")
    return settled[0]
