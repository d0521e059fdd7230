"""The reader for Prometheus, by the text it serves."""

from __future__ import annotations

import subprocess
import sys

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from tests.integration.prometheus_scrapes import reader_for
from tests.telemetry.driving import Service, Step, expected, provider_with

from budgetware.telemetry import Telemetry


def test_the_scraped_text_has_our_histograms_once() -> None:
    """Families have Prometheus names and cumulative buckets; a sample appears once per scrape."""
    registry = CollectorRegistry()
    service = Service(Telemetry(provider_with(reader_for(registry))))
    for number in range(5):
        service.serve(tier="pro", steps=[Step("db", 0.004 * number)])

    for _ in range(2):
        families = list(text_string_to_metric_families(generate_latest(registry).decode()))
        found = {family.name for family in families if family.name.startswith("budgetware")}
        assert sorted(found) == [
            "budgetware_request_budget_limit_seconds",
            "budgetware_request_duration_seconds",
            "budgetware_request_errors",
            "budgetware_requests",
            "budgetware_stage_budget_limit_seconds",
            "budgetware_stage_duration_seconds",
            "budgetware_violations",
        ]
        samples = [(one.name, *one.labels.items()) for family in families for one in family.samples]
        assert len(samples) == len(set(samples))
        (stages,) = [one for one in families if one.name == "budgetware_stage_duration_seconds"]
        buckets = [
            (float(sample.labels["le"]), sample.value)
            for sample in stages.samples
            if sample.name.endswith("_bucket")
        ]
        bounds = [bound for bound, _ in buckets[:-1]]
        values = [opening.duration_s for record in service.records for opening in record.openings]
        _, counts, *_ = expected(values, bounds)
        assert [value for _, value in buckets] == [
            sum(counts[: index + 1]) for index in range(len(counts))
        ]


def test_without_the_package_the_extra_is_named() -> None:
    """Importing the reader where its package is missing says what to install."""
    code = (
        "import sys; sys.modules['opentelemetry.exporter.prometheus'] = None\n"
        "from budgetware.errors import MissingExtra\n"
        "try:\n    import budgetware.telemetry.prometheus\n"
        "except MissingExtra as error:\n    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert run.stdout.strip().endswith("pip install 'budgetware[prometheus]'"), run.stderr
