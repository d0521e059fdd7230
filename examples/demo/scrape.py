"""What the server says about itself: a parsed scrape of ``/metrics``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

Labels = frozenset[tuple[str, str]]
Key = tuple[str, str]
"""A route and a tier; a job has the tier ``""``."""

REQUESTS = "budgetware_requests_total"
ERRORS = "budgetware_request_errors_total"
VIOLATIONS = "budgetware_violations_total"
DEGRADED = "budgetware_degraded_total"
FAULTS = "budgetware_internal_errors_total"
DURATION = "budgetware_request_duration_seconds"
STAGE_DURATION = "budgetware_stage_duration_seconds"
LIMIT = "budgetware_request_budget_limit_seconds"
STAGE_LIMIT = "budgetware_stage_budget_limit_seconds"

LATE = ("exceeded", "breached")
FULL = ("met", "warning")
SMALLER = ("degraded",)
REFUSED = ("rejected",)

_PREFIX = "budgetware_"


@dataclass(frozen=True, slots=True)
class Scrape:
    """The values of budgetware's metrics at one moment, or what was added between two.

    Attributes:
        values: By metric, then by labels without their common prefix.

    """

    values: Mapping[str, Mapping[Labels, float]]

    @classmethod
    def parse(cls, text: str) -> Scrape:
        """Read the text format of Prometheus."""
        values: dict[str, dict[Labels, float]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name.startswith(_PREFIX):
                    labels = frozenset(
                        (name.removeprefix(_PREFIX), value)
                        for name, value in sample.labels.items()
                        if value  # Prometheus has no other way to leave a label out
                    )
                    values.setdefault(sample.name, {})[labels] = sample.value
        return cls(values)

    def since(self, earlier: Scrape) -> Scrape:
        """Return what was added after *earlier*; limits, which do not add up, stay as they are."""
        return Scrape(
            {
                metric: dict(series)
                if metric in (LIMIT, STAGE_LIMIT)
                else {
                    labels: value - earlier.values.get(metric, {}).get(labels, 0.0)
                    for labels, value in series.items()
                }
                for metric, series in self.values.items()
            },
        )

    def total(self, metric: str, **labels: str) -> float:
        """Add up the series of *metric* that have all of *labels*; ``""`` is a label left out."""
        wanted = {(name, value) for name, value in labels.items() if value}
        missing = {name for name, value in labels.items() if not value}
        return sum(
            value
            for series, value in self.values.get(metric, {}).items()
            if wanted <= series and not (missing and missing & {name for name, _ in series})
        )

    def count(self, metric: str, **labels: str) -> int:
        """Return ``total`` of a metric that counts."""
        return round(self.total(metric, **labels))

    def outcomes(self, key: Key, outcomes: tuple[str, ...]) -> int:
        """Return how many requests of a route and tier ended in one of *outcomes*."""
        route, tier = key
        return sum(
            self.count(REQUESTS, route=route, tier=tier, outcome=outcome) for outcome in outcomes
        )

    def smaller(self) -> Counter[tuple[Key, str]]:
        """Return how many requests were answered with something smaller, by what was sent."""
        found: Counter[tuple[Key, str]] = Counter()
        for labels, value in self.values.get(DEGRADED, {}).items():
            names = dict(labels)
            found[(names["route"], names.get("tier", "")), names["answer"]] += round(value)
        return +found

    def keys(self) -> set[Key]:
        """Return every route and tier that had a request."""
        return {
            (names["route"], names.get("tier", ""))
            for names, value in ((dict(one), value) for one, value in self._requests().items())
            if value
        }

    def limit_s(self, key: Key) -> float:
        """Return the budget of a route and tier in seconds, 0 without one."""
        return self.total(LIMIT, route=key[0], tier=key[1])

    def stages(self, route: str) -> list[str]:
        """Return the stages of *route* that were opened."""
        series = self.values.get(f"{STAGE_DURATION}_count", {})
        return sorted(
            {
                names["stage"]
                for names, value in ((dict(one), value) for one, value in series.items())
                if names["route"] == route and value
            },
        )

    def _requests(self) -> Mapping[Labels, float]:
        return self.values.get(REQUESTS, {})
