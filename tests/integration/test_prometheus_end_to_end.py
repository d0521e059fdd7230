"""Metrics all the way to a real Prometheus: what it stores is what the records say."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import pytest
from tests.integration.prometheus_scrapes import answers, labelled, scraped
from tests.servers import Prometheus, wait_until
from tests.telemetry.driving import Service, durations, outcomes, serve_some, stage_durations


@pytest.mark.server
def test_prometheus_stores_what_the_records_say(tmp_path: Path) -> None:
    """Counters, buckets and sums queried from Prometheus equal the records, in both modes."""
    with scraped(tmp_path) as (prometheus, services):
        for job, service in services.items():
            serve_some(service, random.Random(job), 150)
            arrived = f'budgetware_requests_total{{job="{job}"}}'
            wait_until(partial(answers, prometheus, arrived), "there was a scrape")
            # More between two scrapes: totals must go on where they were.
            serve_some(service, random.Random(1), 150)
        for job, service in services.items():
            total = f'sum(budgetware_requests_total{{job="{job}"}})'
            wait_until(partial(answers, prometheus, f"{total} == 300"), "all was scraped")
            _check_prometheus(prometheus, job, service)


def _check_prometheus(prometheus: Prometheus, job: str, service: Service) -> None:
    counted = prometheus.query(f'budgetware_requests_total{{job="{job}"}} > 0')
    assert counted == {labelled(key): value for key, value in outcomes(service.records).items()}
    for metric, wanted in (
        ("budgetware_request_duration_seconds", durations(service.records)),
        ("budgetware_stage_duration_seconds", stage_durations(service.records)),
    ):
        counts = prometheus.query(f'{metric}_count{{job="{job}"}}')
        sums = prometheus.query(f'{metric}_sum{{job="{job}"}}')
        buckets = prometheus.query(f'{metric}_bucket{{job="{job}"}}')
        assert counts == {labelled(key): len(values) for key, values in wanted.items()}
        assert sums == {labelled(key): pytest.approx(sum(values)) for key, values in wanted.items()}
        bounds = {dict(series)["le"] for series in buckets}
        assert {"0.1", "+Inf"} < bounds
        assert buckets == {
            labelled(key, le=bound): sum(value <= float(bound) for value in values)
            for key, values in wanted.items()
            for bound in bounds
        }
