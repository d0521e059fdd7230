"""The demo believes nothing that does not add up.

The figures come from a real engine on a fake clock; then somebody tampers with them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import pytest
from tests.examples.evidence import ANSWER_AT_S, NETWORK_S, Both, Evidence, run, told

from examples.demo.checks import Check, Run, check, judge
from examples.demo.effects import compare
from examples.demo.machine import BUSY
from examples.demo.story import (
    Row,
    Shares,
    fields,
    lines_to_show,
    percentile,
    rows,
    shares,
    stage_rows,
)


@pytest.fixture
def both() -> Both:
    """Run three phases, the second with a slow database, in either mode."""
    return Both(run("observe"), run("enforce"))


@pytest.fixture
def evidence(both: Both) -> Evidence:
    """Look at the run that only observes."""
    return both.observe


def test_what_adds_up_is_believed(both: Both) -> None:
    """Untouched figures have no problem, and they are the ones of the run."""
    observed, enforced = (
        {row.key: row for row in rows(story)}["signals", "enterprise"] for story in both.stories()
    )

    assert both.problems() == ""
    assert len(rows(both.observe.story())) == 6
    assert (observed.limit_s, observed.requests) == (0.03, 12)
    assert (observed.full, observed.degraded, observed.late) == (8, 0, 4)
    assert (enforced.full, enforced.degraded, enforced.late) == (8, 4, 0)
    assert (observed.smaller, enforced.smaller) == ({}, {"cached": 4})
    # 61 ms of stages, 18 / 2000 s of rest and the network.
    assert observed.p95_s == pytest.approx(0.061 + 0.009 + NETWORK_S)
    assert enforced.p95_s == pytest.approx(ANSWER_AT_S + NETWORK_S)


def test_shares_tell_how_a_phase_ended(both: Both) -> None:
    """Full, degraded and late, of one tier; of nothing every share is 0."""
    slow = [shares(story.during, "enterprise") for story in both.stories()]

    assert slow == [(0, 0, 4), (0, 4, 0)]
    assert slow[1].of(slow[1].degraded) == 1.0
    assert Shares(0, 0, 0).of(0) == 0.0


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
    both: Both,
    pattern: str,
    replacement: str,
    found: str,
) -> None:
    """One number of the server changed, and the demo says which two figures differ."""
    both.observe.tamper(pattern, replacement)

    assert found in both.problems()


@pytest.mark.parametrize(
    ("pattern", "replacement", "found"),
    [
        pytest.param(
            r"(degraded_total\{[^}]*\}) 4",
            r"\1 5",
            "enforce: recovered: signals enterprise: the client had 0 cached answers, the server"
            " counted 1",
            id="answers",
        ),
        pytest.param(
            r'(requests_total\{budgetware_outcome="degraded",budgetware_route="signals",'
            r'budgetware_tier="enterprise"\}) 4',
            r"\1 5",
            "signals enterprise: 0 smaller answers, but 1 of the outcomes are, and 0 late",
            id="outcomes",
        ),
    ],
)
def test_tampered_smaller_answers_are_found_out(
    both: Both, pattern: str, replacement: str, found: str
) -> None:
    """The header the client saw, the counter of answers and that of outcomes have to agree."""
    both.enforce.tamper(pattern, replacement)

    assert found in both.problems()


def test_more_smaller_answers_logged_than_sent_are_found_out(both: Both) -> None:
    """Whatever was logged was counted as well."""
    line = next(line for line in both.enforce.logs[1] if "budget_degraded" in line)
    both.enforce.logs[1].append(line.replace("suppressed=0", "suppressed=20"))

    assert "enforce: signals: 25 cached answers logged, 4 counted" in both.problems()


def test_an_answer_the_client_forgot_is_found_out(both: Both) -> None:
    """The server counted a request more than the client knows of."""
    both.observe.tapes[2].answers.pop()

    assert "the client had 3 answers, the server counted 4" in both.problems()


def test_more_log_lines_than_violations_are_found_out(both: Both) -> None:
    """Whatever was logged was counted as well."""
    log = both.observe.logs[1]
    line = next(line for line in log if "scope=stage" in line)
    log.append(line.replace("suppressed=0", "suppressed=20"))

    assert "events logged" in both.problems()


def _breach(evidence: Evidence) -> str:
    """Return a line of the log about a stage that was far over."""
    lines = evidence.logs[1]
    return next(line for line in lines if "scope=stage" in line and "level=breach" in line)


def _of_operation(line: str, operation: str) -> str:
    return line.replace(" budget_level=", f" operation={operation} budget_level=")


def test_a_stage_is_counted_once_with_the_highest_rung_of_it_and_its_operations(
    both: Both,
) -> None:
    """A stage that was close and an operation far over are two events of one violation."""
    breach = _breach(both.observe)
    close = breach.replace("event=budget_exceeded", "event=budget_warning")
    close = close.replace("budget_level=breach", "budget_level=warning")
    both.observe.logs[1].remove(breach)
    both.observe.logs[1] += [close, _of_operation(close, "read"), _of_operation(breach, "write")]

    assert both.problems() == ""


def test_more_events_of_an_operation_than_its_stage_has_violations_are_found_out(
    both: Both,
) -> None:
    """An operation cannot have been over more often than its stage was counted."""
    breach = _breach(both.observe).replace("suppressed=0", "suppressed=99")
    both.observe.logs[1].append(_of_operation(breach, "read"))

    assert "read: 100 breach events logged, " in both.problems()


def test_requests_without_an_answer_are_named(both: Both) -> None:
    """What was lost or withheld is never passed over."""
    both.observe.tapes[0].lost["signals", "pro"] += 1
    both.observe.tapes[1].withheld["signals", "pro"] += 2
    problems = both.problems()

    assert "as usual: signals pro: 1 requests had no answer" in problems
    assert "observe: busy disk: 2 requests were not sent" in problems


def _prettier(shown: Sequence[Row]) -> list[Row]:
    return [row._replace(late=0, full=row.full + row.late) for row in shown]


def _shorter(shown: Sequence[Row]) -> list[Row]:
    return list(shown[1:])


def _rosier(shown: Sequence[Row]) -> list[Row]:
    return [row._replace(full=row.requests) for row in shown]


def _fuller(shown: Sequence[Row]) -> list[Row]:
    return [row._replace(smaller={}) for row in shown]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (_prettier, "observe: signals enterprise: 0 late, but 4 durations above le=0.03"),
        (_shorter, "the routes and tiers that are shown are not those that were asked for"),
        (_rosier, "enforce: signals enterprise: 12 in full, 4 degraded, 0 rejected and 0 late"),
        (_fuller, "enforce: signals enterprise: none smaller shown, 4 cached sent"),
    ],
)
def test_a_tampered_table_is_found_out(
    both: Both,
    change: Callable[[list[Row]], list[Row]],
    found: str,
) -> None:
    """What is shown has to be what the server's histograms say."""
    assert found in both.problems(change)


def test_a_slow_phase_that_was_not_slow_is_found_out(both: Both) -> None:
    """With the phases mixed up there is nothing to see, and that is no success."""
    mixed = [
        dataclasses.replace(story, before=story.during, during=story.before)
        for story in both.stories()
    ]
    found = told(compare(*mixed))

    assert "observe: no enterprise signal was late while the database was slow" in found
    assert "enforce: no enterprise signal was degraded while the database was slow" in found
    assert "observe: busy disk: 0 full, 0 degraded, 4 late, slow: 4 full" in found


def test_enforcing_without_an_effect_is_found_out(both: Both) -> None:
    """Two runs that ended alike are no success, nor is a first one that was steered."""
    observe, enforce = both.stories()

    alike = told(compare(observe, observe))
    assert "0 full, 0 degraded, 4 late observed, 0 full, 0 degraded, 4 late enforced" in alike
    assert "enterprise signals took" in alike
    assert "4 smaller answers while observing" in told(compare(enforce, enforce))


def test_different_loads_are_found_out(both: Both) -> None:
    """What did not have the same load cannot be compared."""
    both.enforce.tapes[0].answers.pop()

    assert "as usual: quotes free: 4 requests observed, 3 enforced" in both.problems()


def test_a_busy_machine_excuses_lateness_and_nothing_else(both: Both) -> None:
    """On a quiet one lateness fails; what has to balance fails on both."""
    observe, _ = stories = both.stories()
    late = compare(observe, dataclasses.replace(observe, mode="enforce"))
    both.observe.tapes[2].answers.pop()
    lost = check([Run(story, rows(story)) for story in both.stories()], lines_to_show(*stories))

    quiet, busy = (judge([*late, *lost], share) for share in (BUSY, BUSY + 0.01))

    assert not quiet.excused
    assert [one for one in quiet.failed if one not in busy.failed] == busy.excused
    assert "4 late enforced" not in told(busy.failed)
    assert "0 full, 0 degraded, 4 late enforced" in told(busy.excused)
    assert "no enterprise signal was degraded" in told(busy.failed)
    assert "the client had 3 answers, the server counted 4" in told(busy.failed)


def test_only_what_is_about_time_is_excused(both: Both) -> None:
    """Three checks say that something was quick enough; nothing that is counted is among them."""
    stories = both.stories()
    counted = check([Run(story, rows(story)) for story in stories], lines_to_show(*stories))

    timed = [one.claim for one in compare(*stories) if one.timed]
    assert not any(one.timed for one in counted)
    assert timed == [
        "enterprise signals, slow database: 100 % late observed, 0 % late enforced, 100 % degraded",
        "... and recovered: 100 % full",
        "every request was sent when it was due",
    ]


def test_a_check_that_holds_needs_no_excuse() -> None:
    """A busy machine takes nothing from what was quick enough all the same."""
    held = Check("quick", timed=True)

    assert judge([held], 1.0) == ([held], [], [])


def test_an_invented_log_line_is_found_out(both: Both) -> None:
    """A line that the server did not write, or whose figures do not add up, is not shown."""
    stories = both.stories()
    line = lines_to_show(*stories)[0]
    invented = line.replace("overage_ms=", "overage_ms=1")
    found = told(check([Run(story, rows(story)) for story in stories], [invented]))

    assert found.splitlines() == [
        f"this line is not one the servers logged, or does not add up: {invented}",
        "there are 1 lines to show",
    ]


def test_the_lines_shown_are_of_different_kinds(both: Both) -> None:
    """A late request, a slow stage and a smaller answer are picked, word for word."""
    observe, enforce = both.stories()
    late, slow, smaller = lines_to_show(observe, enforce)

    assert {late, slow} <= set(observe.log)
    assert smaller in enforce.log
    assert (fields(late)["scope"], fields(late)["route"]) == ("request", "signals")
    assert (fields(slow)["scope"], fields(slow)["stage"]) == ("stage", "db")
    assert (fields(smaller)["event"], fields(smaller)["answer"]) == ("budget_degraded", "cached")


def test_quoted_fields_are_read() -> None:
    """A value with spaces is one value."""
    assert fields('a=1 error="it broke: \\"x\\"" b=2')["b"] == "2"


@pytest.mark.parametrize(("share", "value"), [(0.0, 1.0), (0.5, 2.0), (0.75, 3.0), (1.0, 4.0)])
def test_percentiles_are_values_that_occurred(share: float, value: float) -> None:
    """The nearest rank, without interpolation."""
    assert percentile([1.0, 2.0, 3.0, 4.0], share) == value
