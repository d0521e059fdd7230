"""How the deciding fares, all the way to a real Prometheus and through the questions we suggest."""

from __future__ import annotations

import json
import re
import subprocess
from functools import partial
from pathlib import Path

import pytest
from tests.integration.otlp_backend import Series
from tests.integration.prometheus_scrapes import answers, labelled, scraped
from tests.servers import require_program, wait_until
from tests.telemetry.driving import Service

from budgetware import names
from budgetware._core.policy import Plan
from budgetware._core.quota import DegradedQuota

PRO = Plan(route="signals", tier="pro", limit_s=0.1)


def _decide_some(service: Service) -> DegradedQuota:
    """Have forecasts checked and smaller answers counted, as steered requests do."""
    engine, quota = service.engine, DegradedQuota(0.25)
    engine.tally.watch_quota(PRO, quota)
    for number in range(8):
        quota.count(engine.clock(), degraded=number < 1)
        engine.tally.foreseen(PRO, 0.75, late=number < 3)
        engine.tally.foreseen(PRO, 0.125, late=number < 6)
    series = engine.tally.request("signals", "pro")
    engine.tally.smaller.append((series, "degraded", 0.01))
    return quota


_SERIES: Series = frozenset({(names.ROUTE, "signals"), (names.TIER, "pro")})
_IN_TIME = _SERIES | {(names.FORECAST_SAID, names.SAID_IN_TIME)}
_LATE = _SERIES | {(names.FORECAST_SAID, names.SAID_LATE)}

DECIDED: dict[str, dict[Series, float]] = {
    names.FORECAST_CHECKED: {_IN_TIME: 8, _LATE: 8},
    names.FORECAST_EXPECTED_LATE: {_IN_TIME: 2.0, _LATE: 7.0},
    names.FORECAST_LATE: {_IN_TIME: 3, _LATE: 6},
    names.DEGRADED_SHARE: {_SERIES: 0.125},
    names.DEGRADED_LIMIT: {_SERIES: 0.25},
}
"""What ``_decide_some`` comes to, by metric."""

PAGE = Path(__file__).resolve().parents[2] / "docs" / "telemetry.md"


@pytest.mark.server
def test_prometheus_shows_how_the_deciding_fares(tmp_path: Path) -> None:
    """Forecasts, shares and smaller answers arrive under the documented names, in both modes."""
    with scraped(tmp_path) as (prometheus, services):
        kept = [_decide_some(service) for service in services.values()]
        for job in services:
            here = f'{{job="{job}"}}'
            arrived = partial(answers, prometheus, f"budgetware_degraded_share{here}")
            wait_until(arrived, "there was a scrape")
            for metric, wanted in DECIDED.items():
                ending = "" if metric in {names.DEGRADED_SHARE, names.DEGRADED_LIMIT} else "_total"
                found = prometheus.query(metric.replace(".", "_") + ending + here)
                assert found == {labelled(series): value for series, value in wanted.items()}
            took = prometheus.query(f"budgetware_request_duration_seconds_sum{here}")
            assert took == {labelled(_SERIES): pytest.approx(0.01)}
        assert len(kept) == len(services) == 2


@pytest.mark.server
def test_the_documented_questions_have_answers(tmp_path: Path) -> None:
    """Each PromQL expression of the page, over made-up series, says what the page says it does."""
    promtool = require_program("promtool")
    asked = re.findall(r"^```promql\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    pro = 'budgetware_route="signals",budgetware_tier="pro"'
    both = f"{{{pro}}}"
    wanted = [(both, 2.0), (both, 0.1), ('{budgetware_route="signals"}', 0.75)]
    wanted += [(f"budgetware_degraded_share{both}", 0.46), (both, 0.01)]
    # Per minute: 10 were checked, and 2 of them late where 1 was expected.
    series = {
        f'forecast_checked_total{{{pro},budgetware_forecast_said="in_time"}}': "0+6x120",
        f'forecast_checked_total{{{pro},budgetware_forecast_said="late"}}': "0+4x120",
        f'forecast_expected_late_total{{{pro},budgetware_forecast_said="in_time"}}': "0+0.25x120",
        f'forecast_expected_late_total{{{pro},budgetware_forecast_said="late"}}': "0+0.75x120",
        f'forecast_late_total{{{pro},budgetware_forecast_said="in_time"}}': "0+1x120",
        f'forecast_late_total{{{pro},budgetware_forecast_said="late"}}': "0+1x120",
        f"degraded_share{both}": "0.46x120",
        f"degraded_limit{both}": "0.5x120",
        f'requests_total{{{pro},budgetware_outcome="degraded"}}': "0+1x120",
        f'requests_total{{{pro},budgetware_outcome="met"}}': "0+99x120",
    }
    test = {
        "interval": "1m",
        "input_series": [
            {"series": f"budgetware_{name}", "values": values} for name, values in series.items()
        ],
        "promql_expr_test": [
            {
                "expr": expression,
                "eval_time": "2h",
                "exp_samples": [{"labels": labels, "value": value}],
            }
            for expression, (labels, value) in zip(asked, wanted, strict=True)
        ],
    }
    path = tmp_path / "questions.json"  # JSON is YAML
    path.write_text(json.dumps({"rule_files": [], "tests": [test]}), "utf-8")
    done = subprocess.run(
        [promtool, "test", "rules", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
