"""What the counters and gauges say, through a real SDK."""

from __future__ import annotations

import random
import string

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from tests.telemetry.driving import (
    ReadyMade,
    Service,
    Step,
    labels,
    metrics_of,
    numbers,
    points,
    provider_with,
)

from budgetware import names
from budgetware._core.policy import Amount, Match, Policy, Route, StagePolicy, TierPolicy
from budgetware._core.tally import UNDECLARED_NAMES, Tally
from budgetware._version import __version__
from budgetware.telemetry import Telemetry
from budgetware.telemetry.snapshot import MOST_POINTS, Admission, Snapshot


@pytest.fixture
def reader() -> ReadyMade:
    """Return a reader that receives our histograms."""
    return ReadyMade()


@pytest.fixture
def service(reader: ReadyMade) -> Service:
    """Return a service whose totals *reader* collects."""
    return Service(Telemetry(provider_with(reader)))


def test_requests_are_counted_by_outcome(service: Service, reader: ReadyMade) -> None:
    """Each request is counted once, under what became of it."""
    for seconds in (0.01, 0.1, 0.09, 0.12, 0.2):
        service.serve(tier="pro", rest_s=seconds)
    lost = service.engine.begin("GET", "/signals/x", "pro")
    service.engine.lose(lost)

    counted = numbers(reader.get_metrics_data(), names.REQUESTS)

    outcomes = {
        outcome: counted[labels(route="signals", tier="pro", outcome=outcome)]
        for outcome in ("met", "warning", "exceeded", "breached", "client_gone")
    }
    by_record = [record.outcome.value for record in service.records]
    assert outcomes == {outcome: by_record.count(outcome) for outcome in outcomes}
    assert sum(outcomes.values()) == 6
    assert min(outcomes.values()) == 1


def test_counters_begin_at_zero(service: Service, reader: ReadyMade) -> None:
    """A series exists before its first request, so that its first increase can be seen."""
    service.serve("/no/where")
    counted = numbers(reader.get_metrics_data(), names.REQUESTS)

    assert counted[labels(route="signals", tier="free", outcome="breached")] == 0
    assert labels(route="signals", tier="free", outcome="unbudgeted") not in counted


def test_errors_are_counted(service: Service, reader: ReadyMade) -> None:
    """A failed request adds one to the errors of its route and tier."""
    service.engine.fail(service.serve(tier="pro"))

    counted = numbers(reader.get_metrics_data(), names.REQUEST_ERRORS)

    assert counted[labels(route="signals", tier="pro")] == 1
    assert counted[labels(route="signals", tier="free")] == 0


def test_violations_say_what_went_over_which_rung(service: Service, reader: ReadyMade) -> None:
    """Requests and stages are counted apart, each with its level."""
    service.serve(tier="pro", steps=[Step("db", 0.025)], rest_s=0.2)

    counted = numbers(reader.get_metrics_data(), names.VIOLATIONS)

    assert counted[labels(scope="request", level="breach", route="signals", tier="pro")] == 1
    assert counted[labels(scope="request", level="warning", route="signals", tier="pro")] == 0
    stage = labels(scope="stage", level="critical", route="signals", tier="pro", stage="db")
    assert counted[stage] == 1


def test_limits_are_those_in_force(service: Service, reader: ReadyMade) -> None:
    """The gauges follow a reload, and what is promised no more is not reported."""
    service.serve()
    before = reader.get_metrics_data()
    assert numbers(before, names.REQUEST_BUDGET_LIMIT)[labels(route="signals", tier="pro")] == 0.1
    stage = labels(route="signals", stage="db", tier="pro")
    assert numbers(before, names.STAGE_BUDGET_LIMIT)[stage] == 0.02

    service.engine.adopt(
        Policy(
            tiers={"pro": TierPolicy(budget=0.05)},
            routes={"report": Route(name="report", match=(Match("GET", "/reports/**"),))},
        ),
    )
    after = reader.get_metrics_data()

    assert numbers(after, names.REQUEST_BUDGET_LIMIT) == {
        labels(route="report", tier="pro"): 0.05,
        labels(route="_unmatched", tier="pro"): 0.05,
    }
    assert numbers(after, names.STAGE_BUDGET_LIMIT) == {}


def test_internal_errors_are_counted_by_step(service: Service, reader: ReadyMade) -> None:
    """A failure of budgetware itself shows up in a counter."""
    service.engine.fault("begin", ValueError("x"))

    counted = numbers(reader.get_metrics_data(), names.INTERNAL_ERRORS)

    assert counted == {labels(step="begin"): 1}


def test_without_tiers_there_is_no_tier_attribute(reader: ReadyMade) -> None:
    """What is not known is left out, not reported as empty."""
    service = Service(Telemetry(provider_with(reader)), Policy())
    service.serve("/anything", rest_s=0.01)

    data = reader.get_metrics_data()

    assert numbers(data, names.REQUESTS) == {
        labels(route="_unmatched", outcome="unbudgeted"): 1,
        labels(route="_unmatched", outcome="client_gone"): 0,
    }
    assert list(points(data, names.REQUEST_DURATION)) == [labels(route="_unmatched")]


def test_the_scope_names_its_version_and_schema(service: Service, reader: ReadyMade) -> None:
    """Our metrics come from one scope with a version and a schema."""
    service.serve()

    data = reader.get_metrics_data()

    assert data is not None
    (scope,) = data.resource_metrics[0].scope_metrics
    assert scope.scope.name == names.SCOPE
    assert scope.scope.version == __version__
    assert scope.scope.schema_url == names.SCHEMA_URL == scope.schema_url


def test_all_metrics_of_a_collection_agree(service: Service, reader: ReadyMade) -> None:
    """Counters and histograms of one collection are of the same instant."""
    for _ in range(300):
        service.serve(tier="pro", steps=[Step("db", 0.001)])
        data = reader.get_metrics_data()
        counted = sum(numbers(data, names.REQUESTS).values())
        histogram = points(data, names.REQUEST_DURATION)
        assert counted == sum(point.count for point in histogram.values())


def test_units_follow_the_conventions(service: Service, reader: ReadyMade) -> None:
    """Durations are seconds; counts are annotated, so that Prometheus names stay plain."""
    service.engine.fault("begin", ValueError("x"))
    service.serve(steps=[Step("db", 0.1)])

    units = {name: metric.unit for name, metric in metrics_of(reader.get_metrics_data()).items()}

    assert units == {
        names.REQUESTS: "{request}",
        names.REQUEST_ERRORS: "{request}",
        names.VIOLATIONS: "{violation}",
        names.INTERNAL_ERRORS: "{error}",
        names.REQUEST_BUDGET_LIMIT: "s",
        names.STAGE_BUDGET_LIMIT: "s",
        names.REQUEST_DURATION: "s",
        names.STAGE_DURATION: "s",
    }


def _bounds_of_cardinality(policy: Policy) -> dict[str, int]:
    # One more of each for what the caps put under _OTHER.
    routes = len(policy.routes) + 1
    series = routes * max(1, len(policy.tiers))
    stages = sum(len(route.stages) for route in policy.routes.values()) + len(policy.stages)
    stage_series = stages + routes * (UNDECLARED_NAMES + 1)
    return {
        names.REQUESTS: series * 6,
        names.REQUEST_ERRORS: series,
        names.VIOLATIONS: series * 3 + stages * len(policy.tiers) * 3,
        names.REQUEST_BUDGET_LIMIT: series,
        names.STAGE_BUDGET_LIMIT: stages * len(policy.tiers),
        names.REQUEST_DURATION: series,
        names.STAGE_DURATION: stage_series,
    }


@pytest.mark.parametrize("kind", [ReadyMade, InMemoryMetricReader])
def test_strangers_cannot_add_series(kind: type[InMemoryMetricReader]) -> None:
    """100,000 requests with random methods, paths, tiers and stages stay within the policy."""
    reader = kind()
    service = Service(Telemetry(provider_with(reader)))
    for observing in service.engine._audience.observers:
        service.engine.ignore(observing)
    pick = random.Random(7)  # the same strangers in every run

    def noise() -> str:
        return "".join(pick.choices(string.printable + "é\u202e\ud800", k=6))

    rounds = 100_000 if kind is ReadyMade else 5_000
    for number in range(rounds):
        budget = service.engine.begin(noise(), "/" + noise(), noise())
        if number % 4 == 0:
            budget = service.engine.begin("GET", "/signals/" + noise().replace("/", ""), noise())
        stage = budget.opens()
        stage.name, stage.operation, stage.start = noise(), noise(), service.clock.now
        stage.end = service.clock.now
        budget.append(stage)
        service.engine.finish(budget)

    data = reader.get_metrics_data()

    counted = {name: len(metric.data.data_points) for name, metric in metrics_of(data).items()}
    allowed = _bounds_of_cardinality(service.engine.policy)
    assert counted.keys() == allowed.keys() - {names.INTERNAL_ERRORS}
    assert {name: count for name, count in counted.items() if count > allowed[name]} == {}
    assert sum(numbers(data, names.REQUESTS).values()) == rounds
    seen = points(data, names.STAGE_DURATION)
    assert sum(point.count for point in seen.values()) == rounds
    for attributes in seen:
        for _, value in attributes:
            assert value.isprintable()
            value.encode()


def test_a_huge_policy_stays_below_the_sdk_limit() -> None:
    """The series an SDK would not keep apart are counted under ``_OTHER``; none is lost."""
    policy = Policy(
        tiers={tier: TierPolicy(budget=1.0) for tier in ("free", "pro", "enterprise")},
        routes={
            f"r{number}": Route(
                name=f"r{number}",
                match=(Match("GET", f"/{number}"),),
                stages={f"s{n}": StagePolicy(budget=Amount(0.1)) for n in range(3)},
            )
            for number in range(450)
        },
    )
    reader = ReadyMade()
    service = Service(Telemetry(provider_with(reader)), policy)
    for number in range(450):
        for tier in policy.tiers:
            service.serve(f"/{number}", tier=tier, steps=[Step("s0", 0.15)])

    data = reader.get_metrics_data()

    for metric in metrics_of(data).values():
        assert len(metric.data.data_points) < 2000
    counted = numbers(data, names.REQUESTS)
    assert sum(counted.values()) == 1350
    assert counted[labels(route="_OTHER", outcome="met")] > 0
    stages = points(data, names.STAGE_DURATION)
    assert sum(point.count for point in stages.values()) == 1350


def test_the_first_attribute_sets_stay() -> None:
    """Which series are told apart does not change from one collection to the next."""
    admission = Admission()
    first = [((names.ROUTE, f"r{number}"),) for number in range(MOST_POINTS)]
    for attributes in first:
        assert admission.admit("m", attributes) == attributes

    late = admission.admit("m", ((names.ROUTE, "late"), (names.TIER, "t"), (names.OUTCOME, "met")))

    assert late == ((names.ROUTE, "_OTHER"), (names.OUTCOME, "met"))
    assert admission.admit("m", first[0]) == first[0]


def test_names_that_look_alike_are_added_up() -> None:
    """Two names that become the same text when escaped share a series instead of hiding one."""
    tally = Tally()
    for name in ("\ud800", "\\ud800"):
        tally.stage("r", name).durations.add([0.5])
    snapshot = Snapshot(Admission())
    snapshot.include(tally, spreads=True)

    (spread,) = snapshot.spreads[names.STAGE_DURATION].values()

    assert spread.count == 2
