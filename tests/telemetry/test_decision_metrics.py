"""How the deciding fares, through a real SDK: forecasts checked, smaller answers, their share."""

from __future__ import annotations

from dataclasses import replace

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from tests.telemetry.driving import (
    POLICY,
    Numbers,
    ReadyMade,
    Service,
    labels,
    metrics_of,
    numbers,
    points,
    provider_with,
)

from budgetware import names
from budgetware._core.course import Course
from budgetware._core.policy import Mode, Objectives, Plan, Policy, TierPolicy
from budgetware._core.quota import DegradedQuota
from budgetware.telemetry import Telemetry

PRO = Plan(route="signals", tier="pro", limit_s=0.1)
FREE = Plan(route="signals", tier="free", limit_s=1.0)


@pytest.fixture
def reader() -> ReadyMade:
    """Return a reader that receives our histograms."""
    return ReadyMade()


@pytest.fixture
def service(reader: ReadyMade) -> Service:
    """Return a service whose totals *reader* collects."""
    return Service(Telemetry(provider_with(reader)))


def _said(said: str, tier: str = "pro") -> frozenset[tuple[str, str]]:
    return labels(route="signals", tier=tier) | {(names.FORECAST_SAID, said)}


def test_a_forecast_can_be_compared_with_what_happened(service: Service, reader: ReadyMade) -> None:
    """Expected and actual late requests are counted side by side, by what was said of them."""
    tally = service.engine.tally
    for fits, late in ((0.75, False), (0.75, True), (0.25, True)):
        tally.foreseen(PRO, fits, late=late)
    tally.foreseen(FREE, 1.0, late=False)

    data = reader.get_metrics_data()

    in_time, late_said, free = _said("in_time"), _said("late"), _said("in_time", "free")
    assert numbers(data, names.FORECAST_CHECKED) == {in_time: 2, late_said: 1, free: 1}
    assert numbers(data, names.FORECAST_EXPECTED_LATE) == {
        in_time: 0.5,
        late_said: 0.75,
        free: 0.0,
    }
    assert numbers(data, names.FORECAST_LATE) == {in_time: 1, late_said: 1, free: 0}


def test_checked_forecasts_of_engines_add_up(reader: ReadyMade) -> None:
    """Engines that share a provider are one, those that are gone included."""
    provider = provider_with(reader)
    first, second = Service(Telemetry(provider)), Service(Telemetry(provider))
    first.engine.tally.foreseen(PRO, 0.5, late=True)
    second.engine.tally.foreseen(PRO, 0.75, late=False)
    del first

    data = reader.get_metrics_data()

    assert numbers(data, names.FORECAST_CHECKED) == {_said("in_time"): 2}
    assert numbers(data, names.FORECAST_EXPECTED_LATE) == {_said("in_time"): 0.75}
    assert numbers(data, names.FORECAST_LATE) == {_said("in_time"): 1}


def _quota(service: Service, plan: Plan, most: float, smaller: int, answers: int) -> DegradedQuota:
    quota = DegradedQuota(most)
    for number in range(answers):
        quota.count(service.clock.now, degraded=number < smaller)
    service.engine.tally.watch_quota(plan, quota)
    return quota


def _shares(reader: ReadyMade) -> tuple[Numbers, Numbers]:
    data = reader.get_metrics_data()
    return numbers(data, names.DEGRADED_SHARE), numbers(data, names.DEGRADED_LIMIT)


def test_the_degraded_share_is_seen_against_its_limit(service: Service, reader: ReadyMade) -> None:
    """Both are reported where there is a quota, and the share only where there were answers."""
    kept = [_quota(service, PRO, 0.25, 1, 8), _quota(service, FREE, 0.5, 0, 0)]
    pro, free = labels(route="signals", tier="pro"), labels(route="signals", tier="free")
    service.serve()

    assert _shares(reader) == ({pro: 0.125}, {pro: 0.25, free: 0.5})

    service.clock.now += 4000.0
    kept[0].count(service.clock.now, degraded=False)
    assert _shares(reader) == ({pro: 0.0}, {pro: 0.25, free: 0.5})


def test_no_quota_no_share(service: Service, reader: ReadyMade) -> None:
    """Where no share of smaller answers is promised, nothing is reported."""
    service.serve()

    assert _shares(reader) == ({}, {})


def test_the_share_of_engines_is_that_of_all_their_answers(reader: ReadyMade) -> None:
    """It is neither their sum nor the last one's, for they may have served quite unlike numbers."""
    provider = provider_with(reader)
    services = [Service(Telemetry(provider)) for _ in range(2)]
    kept = [_quota(services[0], PRO, 0.25, 1, 1), _quota(services[1], PRO, 0.25, 1, 7)]
    pro = labels(route="signals", tier="pro")
    for service in services:
        service.serve()

    assert _shares(reader) == ({pro: 0.25}, {pro: 0.25})
    assert len(kept) == 2


def test_the_share_follows_a_reload(service: Service, reader: ReadyMade) -> None:
    """What the new policy does not have is not reported, though a request may still use it."""
    kept = _quota(service, PRO, 0.25, 1, 8)
    service.engine.adopt(replace(POLICY, tiers={"free": TierPolicy(budget=1.0)}))
    newer = _quota(service, FREE, 0.5, 1, 4)

    free = labels(route="signals", tier="free")
    service.serve()
    assert _shares(reader) == ({free: 0.25}, {free: 0.5})
    assert dict(service.engine.tally.quotas) == {
        ("signals", "pro"): kept,
        ("signals", "free"): newer,
    }


def _promising(most: float | None) -> Policy:
    """Return a policy whose decisions go by a share of smaller answers."""
    route = replace(POLICY.routes["signals"], objectives=Objectives(degraded=most))
    return replace(POLICY, mode=Mode.SHADOW, routes={"signals": route})


def test_what_is_decided_is_seen(reader: ReadyMade) -> None:
    """An engine that decides has its forecasts checked and its shares reported by itself."""
    service = Service(Telemetry(provider_with(reader)), _promising(0.25))
    lane, clock = service.engine.lane("GET", "/signals/x", "pro", None), service.clock
    steering = lane.steering
    assert steering is not None
    for number in range(80):
        course = Course(steering, clock())
        course.at(None, 0.1, clock(), answers=True)
        course.smaller = number % 10 == 0
        clock.now += 0.2 if number % 4 == 0 else 0.01
        course.leave(clock(), full=True)

    data = reader.get_metrics_data()
    checked, late, expected = (
        sum(numbers(data, name).values())
        for name in (names.FORECAST_CHECKED, names.FORECAST_LATE, names.FORECAST_EXPECTED_LATE)
    )
    pro, free = labels(route="signals", tier="pro"), labels(route="signals", tier="free")
    assert 40 <= checked <= 80
    assert late == pytest.approx(checked / 4, abs=1)
    assert 0 < expected < checked
    assert _shares(reader) == ({pro: 0.1}, {pro: 0.25, free: 0.25})

    del lane, steering, course
    service.engine.adopt(_promising(0.5))
    assert _shares(reader) == ({}, {pro: 0.5, free: 0.5})
    service.engine.adopt(_promising(None))
    assert _shares(reader) == ({}, {})
    assert len(service.engine.tally.quotas) == 0


def test_neither_shares_nor_counts_get_a_suffix(service: Service, reader: ReadyMade) -> None:
    """An annotation is a unit every exporter leaves out of a name; ``1`` is not."""
    service.engine.tally.foreseen(PRO, 0.5, late=False)
    kept = _quota(service, PRO, 0.25, 1, 8)

    units = {name: metric.unit for name, metric in metrics_of(reader.get_metrics_data()).items()}

    assert kept.most == 0.25
    assert units[names.DEGRADED_SHARE] == units[names.DEGRADED_LIMIT] == "{share}"
    for name in (names.FORECAST_CHECKED, names.FORECAST_EXPECTED_LATE, names.FORECAST_LATE):
        assert units[name] == "{request}"


@pytest.mark.parametrize("kind", [ReadyMade, InMemoryMetricReader])
def test_smaller_answers_reach_both_histograms(kind: type[InMemoryMetricReader]) -> None:
    """Ready-made or recorded one by one, durations and outcomes agree at every collection."""
    reader = kind()
    service = Service(Telemetry(provider_with(reader)))
    series = service.engine.tally.request("signals", "pro")
    pro = labels(route="signals", tier="pro")
    for count in range(1, 4):
        service.serve(tier="pro", rest_s=0.5)
        service.engine.tally.smaller.append((series, "degraded", 0.01))
        service.engine.tally.smaller.append((series, "rejected", 0.02))
        data = reader.get_metrics_data()
        point = points(data, names.REQUEST_DURATION)[pro]
        outcomes = numbers(data, names.REQUESTS)
        assert point.count == sum(outcomes.values()) == 3 * count
        assert point.sum == pytest.approx(0.53 * count)
        assert point.min == 0.01
        assert point.max == pytest.approx(0.5)
        for outcome in ("degraded", "rejected"):
            assert outcomes[labels(route="signals", tier="pro", outcome=outcome)] == count


def test_a_policy_cannot_add_more_shares_than_the_sdk_keeps_apart(reader: ReadyMade) -> None:
    """Past the limit there is no share to speak of; none is reported under a wrong name."""
    policy = Policy(tiers={f"t{number}": TierPolicy(budget=1.0) for number in range(2100)})
    service = Service(Telemetry(provider_with(reader)), policy)
    plans = [Plan(route="_unmatched", tier=tier, limit_s=1.0) for tier in policy.tiers]
    kept = [_quota(service, plan, 0.5, 1, 2) for plan in plans]
    service.serve()

    share, limit = _shares(reader)

    assert len(kept) == 2100
    assert 0 < len(share) == len(limit) < 2000
    assert not any(("budgetware.route", "_OTHER") in attributes for attributes in share)
