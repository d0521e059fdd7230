"""A process that has served nothing has nothing to export: at its exit nobody is waited for."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from tests.doors.wsgi_play import Wire, answer, environ
from tests.telemetry.driving import (
    POLICY,
    ReadyMade,
    Service,
    labels,
    metrics_of,
    numbers,
    provider_with,
)

from budgetware import budget, names
from budgetware._core.policy import Mode, Objectives, TierPolicy
from budgetware.telemetry import Telemetry
from budgetware.wsgi import BudgetMiddleware

PROMISING = replace(
    POLICY,
    mode=Mode.SHADOW,
    routes={
        "signals": replace(POLICY.routes["signals"], objectives=Objectives(degraded=0.25)),
    },
)
"""A policy with a limit of every kind: budgets, allocations, shares of smaller answers."""

LIMITS = (names.REQUEST_BUDGET_LIMIT, names.STAGE_BUDGET_LIMIT, names.DEGRADED_LIMIT)


@pytest.mark.parametrize("kind", [ReadyMade, InMemoryMetricReader])
@pytest.mark.parametrize("histograms", ["aggregated", "recorded", "off"])
def test_nothing_is_exported_before_something_was_served(kind: Any, histograms: Any) -> None:
    """Not one data point; once there was a request, every limit and the zeros of all counters."""
    reader = kind()
    service = Service(Telemetry(provider_with(reader), histograms=histograms), PROMISING)

    assert reader.get_metrics_data() is None
    service.serve("/no/where")
    data = reader.get_metrics_data()

    assert set(LIMITS) < metrics_of(data).keys()
    counted = numbers(data, names.REQUESTS)
    assert counted[labels(route="signals", tier="pro", outcome="breached")] == 0


def test_a_job_is_something_served() -> None:
    """Scripts and consumers have no requests."""
    reader = ReadyMade()
    service = Service(Telemetry(provider_with(reader)), PROMISING)

    service.engine.finish(service.engine.begin_job("nightly"))

    assert set(LIMITS) < metrics_of(reader.get_metrics_data()).keys()


def test_a_fault_is_something_to_tell_of() -> None:
    """Where every request fails to be begun, that is seen."""
    reader = ReadyMade()
    service = Service(Telemetry(provider_with(reader)))

    service.engine.fault("begin", ValueError("x"))

    assert numbers(reader.get_metrics_data(), names.INTERNAL_ERRORS) == {labels(step="begin"): 1}


def test_an_engine_that_is_not_used_adds_nothing_to_one_that_is() -> None:
    """Its limits and its zeros appear with its own first request, and go with it unless used."""
    reader, other = ReadyMade(), replace(POLICY, tiers={"team": TierPolicy(budget=3.0)})
    provider = provider_with(reader)
    used = Service(Telemetry(provider))
    idle, gone = Service(Telemetry(provider), other), Service(Telemetry(provider), other)
    used.serve()
    del gone

    def tiers() -> set[str]:
        data = reader.get_metrics_data()
        return {
            value
            for metric in (names.REQUESTS, names.REQUEST_BUDGET_LIMIT)
            for attributes in numbers(data, metric)
            for key, value in attributes
            if key == names.TIER
        }

    assert tiers() == {"free", "pro"}
    idle.serve()
    assert tiers() == {"free", "pro", "team"}


def test_a_door_within_a_door_exports_nothing_of_its_own() -> None:
    """Requests that the outer one has on its account are not the inner one's."""
    inside, outside = ReadyMade(), ReadyMade()
    inner = BudgetMiddleware(answer, policy=POLICY, meter_provider=provider_with(inside))
    outer = BudgetMiddleware(inner, policy=POLICY, meter_provider=provider_with(outside))

    Wire().run(outer, environ())

    assert inside.get_metrics_data() is None
    assert sum(numbers(outside.get_metrics_data(), names.REQUESTS).values()) == 1
    assert budget.route is None


FORKS = """
import os, signal
from tests.telemetry.driving import ReadyMade, Service, numbers, provider_with
from budgetware import names
from budgetware.telemetry import Telemetry


def forked(does):
    child = os.fork()
    if child == 0:
        signal.alarm(15)  # should it hang, it must not outlive the test
        os._exit(does())
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def exported():
    return int(sum(numbers(reader.get_metrics_data(), names.REQUESTS).values()))


def served():
    service.serve()
    return exported()


def passed_on():
    return 10 * forked(exported) + forked(served)


reader = ReadyMade()
provider = provider_with(reader)
service, gone = Service(Telemetry(provider)), Service(Telemetry(provider))
print(forked(exported), forked(served), reader.get_metrics_data())
gone.serve()
del gone
print(exported(), forked(exported), forked(served), exported())
service.serve()
print(exported(), forked(exported), forked(served), forked(passed_on), exported())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_what_the_parent_has_served_is_not_the_childs_to_export() -> None:
    """A worker exports once it has served; its master, and workers without work, do not."""
    run = subprocess.run(
        # From Python 3.12 on it is said that a fork may meet with another thread.
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKS],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert run.stderr == ""
    assert run.stdout.splitlines() == ["0 1 None", "1 0 2 1", "2 0 3 3 2"]
