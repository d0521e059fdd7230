"""What two runs of the demo leave behind: a real engine on a fake clock, observed and enforced."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence

import structlog
from prometheus_client import CollectorRegistry, generate_latest
from tests.telemetry.driving import Service, Step, provider_with

from budgetware._core.current import current_budget, handle
from budgetware.policyfile import load
from budgetware.telemetry import Telemetry
from budgetware.telemetry.prometheus import BudgetPrometheusReader
from examples.demo.checks import Check, Run, check
from examples.demo.effects import compare
from examples.demo.load import Answer, Tape
from examples.demo.scrape import Scrape
from examples.demo.story import Phase, Row, Story, lines_to_show, rows
from examples.fastapi_app.app import POLICY

TITLES = ("as usual", "busy disk", "recovered")
NETWORK_S = 0.001
ANSWER_AT_S = 0.02


@dataclasses.dataclass
class Evidence:
    """What a run leaves behind.

    Attributes:
        mode: What the server did.
        scrapes: What the server said at the start and after each phase, as text.
        tapes: What the client saw of each phase.
        logs: What the server logged in each phase.

    """

    mode: str
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
        log = [line for log in self.logs for line in log]
        return Story(self.mode, before, during, after, parsed[-1], log)

    def tamper(self, pattern: str, replacement: str) -> None:
        """Change what the last scrape says; the pattern has to be there."""
        self.scrapes[-1], changed = re.subn(pattern, replacement, self.scrapes[-1], count=1)
        assert changed, pattern


@dataclasses.dataclass
class Both:
    """The evidence of both runs."""

    observe: Evidence
    enforce: Evidence

    def stories(self) -> tuple[Story, Story]:
        """Put both together."""
        return self.observe.story(), self.enforce.story()

    def problems(self, change: Callable[[list[Row]], list[Row]] = lambda shown: shown) -> str:
        """Return what the checks find, after a *change* to what is shown."""
        stories = self.stories()
        runs = [Run(story, change(rows(story))) for story in stories]
        return told([*check(runs, lines_to_show(*stories)), *compare(*stories)])


def told(checks: Sequence[Check]) -> str:
    """Return everything that *checks* found, line by line."""
    return "\n".join(problem for one in checks for problem in one.problems)


def run(mode: str) -> Evidence:
    """Run three phases, the second with a slow database."""
    registry, log = CollectorRegistry(), list[str]()
    provider = provider_with(BudgetPrometheusReader(registry=registry, scope_info_enabled=False))
    service = Service(Telemetry(provider, logger=_logger(log)), load(POLICY))
    scrapes, tapes, logs = [_scrape(registry)], [], []
    for db_s in (0.002, 0.06, 0.002):
        logged = len(log)
        tapes.append(_phase(service, db_s, enforced=mode == "enforce"))
        scrapes.append(_scrape(registry))
        logs.append(log[logged:])
    return Evidence(mode, scrapes, tapes, logs)


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


def _phase(service: Service, db_s: float, *, enforced: bool) -> Tape:
    tape = Tape()
    for number in range(24):
        route = ("signals", "quotes")[number % 2]
        tier = ("enterprise", "pro", "free")[number % 3]
        service.clock.now += 1.0
        began = service.clock.now
        if enforced and (route, tier) == ("signals", "enterprise") and db_s > ANSWER_AT_S:
            smaller = "cached"
            took_s = _degraded(service, db_s)
        else:
            smaller = None
            service.serve(
                f"/{route}/ACME",
                tier=tier,
                steps=[Step("db", db_s), Step("response", 0.001)],
                rest_s=number / 2000,
            )
            took_s = service.clock.now - began
        tape.answers.append(Answer(route, tier, 200, took_s + NETWORK_S, began, smaller))
    return tape


def _degraded(service: Service, db_s: float) -> float:
    """Serve a signal that the clock answers while the database is asked; return when."""
    budget = service.engine.begin("GET", "/signals/ACME", "enterprise")
    token = current_budget.set(budget)
    try:
        with handle.stage("db"):
            service.clock.now += ANSWER_AT_S
            record = service.engine.answered(budget, "cached", "deadline")
            service.engine.announce(budget, record)
            service.clock.now += db_s - ANSWER_AT_S
    finally:
        current_budget.reset(token)
    service.engine.outlived(budget)
    return ANSWER_AT_S
