"""The demo believes nothing that does not add up.

The figures come from a real engine on a fake clock; then somebody tampers with them.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence

import pytest
import structlog
from prometheus_client import CollectorRegistry, generate_latest
from tests.telemetry.driving import Service, Step, provider_with

from budgetware.policyfile import load
from budgetware.telemetry import Telemetry
from budgetware.telemetry.prometheus import BudgetPrometheusReader
from examples.demo.checks import check
from examples.demo.load import Answer, Tape
from examples.demo.scrape import Scrape
from examples.demo.story import (
    Phase,
    Row,
    Story,
    fields,
    percentile,
    rows,
    stage_rows,
    violations_to_show,
)
from examples.fastapi_app.app import POLICY

TITLES = ("as usual", "busy disk", "recovered")
NETWORK_S = 0.001


@dataclasses.dataclass
class Evidence:
    """What a run leaves behind.

    Attributes:
        scrapes: What the server said at the start and after each phase, as text.
        tapes: What the client saw of each phase.
        logs: What the server logged in each phase.

    """

    scrapes: list[str]
    tapes: list[Tape]
    logs: list[list[str]]

    def story(self) -> Story:
        """Put it together as the demo does."""
        parsed = [Scrape.parse(text) for text in self.scrapes]
        before, during, after = (
            Phase(title, tape, parsed[number + 1].since(parsed[number]), self.logs[number])
            for number, (title, tape) in enumerate(zip(TITLES, self.tapes, strict=True))
        )
        return Story(before, during, after, parsed[-1], [line for log in self.logs for line in log])

    def problems(self, change: Callable[[list[Row]], list[Row]] = lambda shown: shown) -> str:
        """Return what the checks find, after a *change* to what is shown."""
        story = self.story()
        lines = violations_to_show(story.during.log)
        checks = check(story, change(rows(story)), lines)
        return "\n".join(problem for one in checks for problem in one.problems)

    def tamper(self, pattern: str, replacement: str) -> None:
        """Change what the last scrape says; the pattern has to be there."""
        self.scrapes[-1], changed = re.subn(pattern, replacement, self.scrapes[-1], count=1)
        assert changed, pattern


@pytest.fixture
def evidence() -> Evidence:
    """Run three phases, the second with a slow database."""
    registry, log = CollectorRegistry(), list[str]()
    provider = provider_with(BudgetPrometheusReader(registry=registry, scope_info_enabled=False))
    service = Service(Telemetry(provider, logger=_logger(log)), load(POLICY))
    scrapes, tapes, logs = [_scrape(registry)], [], []
    for db_s in (0.002, 0.06, 0.002):
        logged = len(log)
        tapes.append(_phase(service, db_s))
        scrapes.append(_scrape(registry))
        logs.append(log[logged:])
    return Evidence(scrapes, tapes, logs)


def _logger(log: list[str]) -> structlog.typing.FilteringBoundLogger:
    def keep(_logger: object, _method: str, event: structlog.typing.EventDict) -> str:
        log.append(structlog.processors.LogfmtRenderer()(None, "", event))
        raise structlog.DropEvent

    logger: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
        None,
        processors=[keep],
        wrapper_class=structlog.BoundLogger,
    )
    return logger


def _scrape(registry: CollectorRegistry) -> str:
    return generate_latest(registry).decode()


def _phase(service: Service, db_s: float) -> Tape:
    tape = Tape()
    for number in range(24):
        route = ("signals", "quotes")[number % 2]
        tier = ("enterprise", "pro", "free")[number % 3]
        service.clock.now += 1.0
        began = service.clock.now
        service.serve(
            f"/{route}/ACME",
            tier=tier,
            steps=[Step("db", db_s), Step("response", 0.001)],
            rest_s=number / 2000,
        )
        took_s = service.clock.now - began + NETWORK_S
        tape.answers.append(Answer(route, tier, 200, took_s, began))
    return tape


def test_what_adds_up_is_believed(evidence: Evidence) -> None:
    """Untouched figures have no problem, and they are the ones of the run."""
    story = evidence.story()
    shown = {row.key: row for row in rows(story)}
    enterprise = shown["signals", "enterprise"]

    assert evidence.problems() == ""
    assert len(shown) == 6
    assert (enterprise.limit_s, enterprise.requests) == (0.03, 12)
    assert (enterprise.in_time, enterprise.late) == (8, 4)
    assert enterprise.overspent == ("db", 4)
    # 61 ms of stages, 18 / 2000 s of rest and the network.
    assert enterprise.p99_s == pytest.approx(0.061 + 0.009 + NETWORK_S)
    assert enterprise.headroom_s == pytest.approx(0.03 - 0.071)


def test_stages_are_shown_per_request(evidence: Evidence) -> None:
    """The mean of each phase, and by how much the worst is over the allocation."""
    signals_db, signals_response, quotes_db = stage_rows(evidence.story())

    assert (signals_db.stage, signals_db.limit_s) == ("db", 0.005)
    assert signals_db.means_s == pytest.approx((0.002, 0.06, 0.002))
    assert signals_db.overspent_s == pytest.approx(0.055)
    assert signals_db.violations == 12
    assert (signals_response.stage, signals_response.overspent_s) == ("response", 0.0)
    assert (quotes_db.route, quotes_db.stage) == ("quotes", "db")


@pytest.mark.parametrize(
    ("pattern", "replacement", "found"),
    [
        pytest.param(
            r'(requests_total\{budgetware_outcome="met",budgetware_route="quotes",'
            r'budgetware_tier="pro"\}) \d+',
            r"\1 99",
            "quotes pro: the client had 4 answers, the server counted",
            id="requests",
        ),
        pytest.param(
            r'(request_duration_seconds_count\{budgetware_route="signals",'
            r'budgetware_tier="free"\}) 12',
            r"\1 11",
            "signals free: 12 requests, but 11 durations",
            id="durations",
        ),
        pytest.param(
            r'(request_duration_seconds_bucket\{budgetware_route="signals",'
            r'budgetware_tier="enterprise",le="0.03"\}) 8',
            r"\1 9",
            "signals enterprise: 4 late, but 3 durations above le=0.03",
            id="buckets",
        ),
        pytest.param(
            r'(violations_total\{[^}]*breach[^}]*"signals"[^}]*"enterprise"[^}]*"request"\}) 4',
            r"\1 3",
            "signals enterprise: 3 breach violations, 4 breached",
            id="violations",
        ),
        pytest.param(
            r'(violations_total\{[^}]*breach[^}]*"signals"[^}]*"db"[^}]*"enterprise"[^}]*"stage"\})'
            r" 4",
            r"\1 0",
            "signals db: 8 violations, 12 above le=0.005",
            id="stage violations",
        ),
        pytest.param(
            r'(request_duration_seconds_sum\{budgetware_route="quotes",'
            r'budgetware_tier="free"\}) \S+',
            r"\1 99",
            "s served",
            id="times",
        ),
        pytest.param(
            r'(request_errors_total\{budgetware_route="quotes",budgetware_tier="free"\}) 0',
            r"\1 1",
            "the client saw 0 errors, the server counted 1",
            id="errors",
        ),
        pytest.param(
            "# HELP budgetware_requests_total",
            'budgetware_internal_errors_total{budgetware_internal_step="end"} 2.0\n'
            "# HELP budgetware_requests_total",
            "budgetware counted 2 faults of its own",
            id="faults",
        ),
    ],
)
def test_a_tampered_scrape_is_found_out(
    evidence: Evidence,
    pattern: str,
    replacement: str,
    found: str,
) -> None:
    """One number of the server changed, and the demo says which two figures differ."""
    evidence.tamper(pattern, replacement)

    assert found in evidence.problems()


def test_an_answer_the_client_forgot_is_found_out(evidence: Evidence) -> None:
    """The server counted a request more than the client knows of."""
    evidence.tapes[2].answers.pop()

    assert "the client had 3 answers, the server counted 4" in evidence.problems()


def test_more_log_lines_than_violations_are_found_out(evidence: Evidence) -> None:
    """Whatever was logged was counted as well."""
    line = next(line for line in evidence.logs[1] if "scope=stage" in line)
    evidence.logs[1].append(line.replace("suppressed=0", "suppressed=20"))

    assert "events logged" in evidence.problems()


def _breach(evidence: Evidence) -> str:
    """Return a line of the log about a stage that was far over."""
    lines = evidence.logs[1]
    return next(line for line in lines if "scope=stage" in line and "level=breach" in line)


def _of_operation(line: str, operation: str) -> str:
    return line.replace(" budget_level=", f" operation={operation} budget_level=")


def test_a_stage_is_counted_once_with_the_highest_rung_of_it_and_its_operations(
    evidence: Evidence,
) -> None:
    """A stage that was close and an operation far over are two events of one violation."""
    breach = _breach(evidence)
    close = breach.replace("event=budget_exceeded", "event=budget_warning")
    close = close.replace("budget_level=breach", "budget_level=warning")
    evidence.logs[1].remove(breach)
    evidence.logs[1] += [close, _of_operation(close, "read"), _of_operation(breach, "write")]

    assert evidence.problems() == ""


def test_more_events_of_an_operation_than_its_stage_has_violations_are_found_out(
    evidence: Evidence,
) -> None:
    """An operation cannot have been over more often than its stage was counted."""
    breach = _breach(evidence).replace("suppressed=0", "suppressed=99")
    evidence.logs[1].append(_of_operation(breach, "read"))

    assert "read: 100 breach events logged, " in evidence.problems()


def test_requests_without_an_answer_are_named(evidence: Evidence) -> None:
    """What was lost or withheld is never passed over."""
    evidence.tapes[0].lost["signals", "pro"] += 1
    evidence.tapes[1].withheld = 2
    problems = evidence.problems()

    assert "as usual: signals pro: 1 requests had no answer" in problems
    assert "busy disk: 2 requests were not sent" in problems


def _prettier(shown: Sequence[Row]) -> list[Row]:
    return [row._replace(late=0, in_time=row.requests) for row in shown]


def _shorter(shown: Sequence[Row]) -> list[Row]:
    return list(shown[1:])


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (_prettier, "signals enterprise: 0 late, but 4 durations above le=0.03"),
        (_shorter, "the routes and tiers that are shown are not those that were asked for"),
    ],
)
def test_a_tampered_table_is_found_out(
    evidence: Evidence,
    change: Callable[[list[Row]], list[Row]],
    found: str,
) -> None:
    """What is shown has to be what the server's histograms say."""
    assert found in evidence.problems(change)


def test_a_slow_phase_that_was_not_slow_is_found_out(evidence: Evidence) -> None:
    """With the phases mixed up there is nothing to see, and that is no success."""
    story = evidence.story()
    mixed = dataclasses.replace(story, before=story.during, during=story.before)
    found = [problem for one in check(mixed, rows(mixed), []) for problem in one.problems]

    assert "no enterprise request was late while the database was slow" in found
    assert "busy disk: 8 of 8 late, slow: 0 of 8" in found


def test_an_invented_log_line_is_found_out(evidence: Evidence) -> None:
    """A line that the server did not write, or whose figures do not add up, is not shown."""
    story = evidence.story()
    lines = violations_to_show(story.during.log)
    invented = lines[0].replace("overage_ms=", "overage_ms=1")
    found = [problem for one in check(story, rows(story), [invented]) for problem in one.problems]

    assert found == [
        f"this line is not one the server logged, or does not add up: {invented}",
        "there are 1 violation lines to show",
    ]


def test_the_lines_shown_are_of_different_kinds(evidence: Evidence) -> None:
    """Three lines of three kinds are picked, word for word."""
    lines = violations_to_show(evidence.story().during.log)
    kinds = {
        (names["scope"], names["route"], names.get("stage"), names["tier"])
        for names in map(fields, lines)
    }

    assert len(kinds) == len(lines) == 3
    assert ("request", "signals", None, "enterprise") in kinds
    assert set(lines) <= set(evidence.story().log)


def test_quoted_fields_are_read() -> None:
    """A value with spaces is one value."""
    assert fields('a=1 error="it broke: \\"x\\"" b=2')["b"] == "2"


@pytest.mark.parametrize(("share", "value"), [(0.0, 1.0), (0.5, 2.0), (0.75, 3.0), (1.0, 4.0)])
def test_percentiles_are_values_that_occurred(share: float, value: float) -> None:
    """The nearest rank, without interpolation."""
    assert percentile([1.0, 2.0, 3.0, 4.0], share) == value
