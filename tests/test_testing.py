"""What users test with, and the pytest plugin made of it."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import metrics
from structlog.testing import capture_logs
from tests.core.programs import TICK

import budgetware.wsgi
from budgetware import PolicyError, budget, testing
from budgetware._core.current import current_budget
from budgetware._core.decide import Action
from budgetware._core.policy import Policy
from budgetware._core.record import RequestRecord
from budgetware._core.steering import Steering
from budgetware.runtime import Runtime
from budgetware.testing import FakeClock, assert_within_budget, captured, deciding, recorded

ROOT = Path(__file__).resolve().parents[1]

POLICY = """
version: 1
service: shop
tiers:
  free: {budget: 1s}
  pro: {budget: 100ms}
routes:
  item:
    match: GET /items/{id}
    stages:
      db: {budget: 20ms, calls: 2, operations: {select: 5ms}}
  report: {match: GET /reports, stages: {db: 20ms}}
"""

UNLIMITED = "version: 1\nservice: shop\nroutes: {x: {match: GET /x, stages: {db: 20ms}}}\n"


def test_a_fake_clock_moves_when_it_is_told_to() -> None:
    """And never back, for it stands in for a monotonic one."""
    clock = FakeClock(5.0)
    clock.advance(0.5)
    clock.advance(0.0)

    assert clock() == clock.now == 5.5
    with pytest.raises(ValueError, match="cannot go back"):
        clock.advance(-0.5)


def test_a_captured_request_has_a_budget_and_leaves_a_record() -> None:
    """What the block does belongs to it; afterwards nothing is left behind."""
    clock = FakeClock()
    with captured(POLICY, clock=clock) as capture:
        with capture.request("GET", "/items/7", tier="pro", status=404) as account:
            assert current_budget.get() is account
            with budget.stage("db"):
                clock.advance(TICK)
        assert current_budget.get() is None

    record = capture.record
    assert capture.records == [record]
    assert (record.route, record.tier, record.status, record.error) == ("item", "pro", 404, None)
    assert record.duration_s == TICK
    assert Runtime._current is None


@pytest.mark.parametrize(("error", "errors"), [(ValueError, 1), (KeyboardInterrupt, 0)])
def test_an_exception_passes_through_and_is_noted(error: type[BaseException], errors: int) -> None:
    """As behind a door, it is the same object, and only an ``Exception`` is a failure."""
    with captured(POLICY) as capture:
        with pytest.raises(error), capture.request("GET", "/items/7"):
            raise error
        failed = Runtime.current().engine.tally.requests["item", "free"].errors

    assert (capture.record.error, capture.record.status) == (error.__name__, None)
    assert failed == errors


def test_a_server_error_is_a_failure() -> None:
    """Answered with a 5xx status, the request counts as failed."""
    with captured(POLICY) as capture:
        with capture.request("GET", "/items/7", status=503):
            pass
        assert Runtime.current().engine.tally.requests["item", "free"].errors == 1


def test_jobs_belong_to_the_capture() -> None:
    """``budget.open`` inside the block uses its policy, clock and records."""
    clock = FakeClock()
    with captured(POLICY, clock=clock) as capture, budget.open("item", tier="pro"):
        clock.advance(TICK)
        assert budget.remaining() == pytest.approx(0.1 - TICK)

    assert (capture.record.route, capture.record.duration_s) == ("item", TICK)


def test_captures_nest_and_give_back_what_was_there() -> None:
    """The outer one is current again when the inner one is left, also by an exception."""
    with captured() as outer:
        before = Runtime.current()
        with suppress(ZeroDivisionError), captured() as inner:
            with budget.open("inside"):
                pass
            raise ZeroDivisionError
        assert Runtime.current() is before
        with budget.open("outside"):
            pass

    assert [record.route for record in inner.records] == ["inside"]
    assert [record.route for record in outer.records] == ["outside"]


def test_a_policy_comes_in_any_form(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Text, a file by path or by name, a policy, or whatever the doors would find."""
    file = tmp_path / "budgetware.yaml"
    file.write_text(POLICY, "utf-8")
    monkeypatch.chdir(tmp_path)

    for policy in (POLICY, file, str(file), None):
        with captured(policy) as capture, capture.request("GET", "/items/7"):
            assert (budget.route, budget.tier) == ("item", "free")
    with captured(Policy()) as capture, capture.request("GET", "/items/7"):
        assert (budget.route, budget.tier) == ("_unmatched", None)


def test_a_policy_with_errors_is_refused() -> None:
    """The same error the doors raise, before anything is served."""
    with pytest.raises(PolicyError, match="bugdet"), captured("version: 1\nbugdet: 30\n"):
        pytest.fail("the block must not run")
    for wrong in (3, {"version": 1}):
        with pytest.raises(TypeError, match="path must be the name"), captured(wrong):  # type: ignore[arg-type]
            pytest.fail("the block must not run")


def test_there_is_no_record_before_a_request_is_over() -> None:
    """Asking too early says so."""
    with captured() as capture, capture.request(), pytest.raises(LookupError, match="finished"):
        _ = capture.record


def test_a_capture_tells_nobody_else() -> None:
    """Nothing is logged, and the global meter provider hears of nothing."""
    provider = metrics.get_meter_provider()
    with capture_logs() as logs:
        late = _record(rest=10.0)

    assert late.outcome == "breached"
    assert logs == []
    assert metrics.get_meter_provider() is provider


def _answer(environ: object, start_response: object) -> list[bytes]:
    start_response("200 OK", [])  # type: ignore[operator]
    return [b"ok"]


def _get(door: budgetware.wsgi.BudgetMiddleware, path: str) -> None:
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path}
    body = door(environ, lambda *_: print)
    getattr(body, "close", list)()


def test_every_door_of_the_process_is_recorded() -> None:
    """Those that were there before, those made meanwhile, and jobs; not a moment longer."""
    options = testing._silent(Policy())
    early = budgetware.wsgi.BudgetMiddleware(_answer, **options)
    with recorded() as records:
        _get(early, "/early")
        late = budgetware.wsgi.BudgetMiddleware(_answer, **options)
        _get(late, "/late")
        with budget.open("job"), testing.request("POST", "/direct", tier="pro", status=201):
            pass
    _get(early, "/early")
    _get(late, "/late")

    assert [(record.route, record.status) for record in records] == [
        ("_unmatched", 200),
        ("_unmatched", 200),
        ("_unmatched", 201),
        ("job", None),
    ]


def test_a_door_can_belong_to_a_capture() -> None:
    """With the capture's options it has its policy and clock, and its records end up there."""
    clock = FakeClock()
    with captured(POLICY, clock=clock) as capture:
        door = budgetware.wsgi.BudgetMiddleware(_answer, **capture.options)
        _get(door, "/items/7")

    assert capture.record.route == "item"


def _record(*spent: tuple[str, str | None, float], rest: float = 0.0) -> RequestRecord:
    clock = FakeClock()
    with (
        captured(POLICY, clock=clock) as capture,
        capture.request("GET", "/items/7", tier="pro"),
    ):
        for name, operation, seconds in spent:
            with budget.stage(name, operation):
                clock.advance(seconds)
        clock.advance(rest)
    return capture.record


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            {"path": "/items/7", "tier": "proo"},
            "no tier 'proo', only free, pro; did you mean 'pro'",
        ),
        ({"tier": "gold"}, "no tier 'gold', only free, pro"),
        (
            {"path": "/item/7"},
            "no route matches 'GET /item/7'; the nearest is item: GET /items/{id}",
        ),
        (
            {"method": "get", "path": "/items/7"},
            "no route matches 'get /items/7'; the nearest is item",
        ),
        ({"method": "POST", "path": "/reports"}, "the nearest is report: GET /reports"),
        ({"method": "/items/7", "path": "GET"}, "no route matches '/items/7 GET'"),
        ({"path": ""}, "no route matches 'GET '"),
    ],
    ids=str,
)
def test_a_request_under_no_promise_of_the_policys_is_an_error(
    asked: dict[str, Any], message: str
) -> None:
    """A name that is misspelt must not be held to what is promised to somebody else."""
    with captured(POLICY) as capture:
        with pytest.raises(ValueError, match=re.escape(message)), capture.request(**asked):
            pytest.fail("the block must not run")
        with pytest.raises(ValueError, match=re.escape(message)), testing.request(**asked):
            pytest.fail("the block must not run")

    assert capture.records == []


def test_a_request_of_no_route_leaves_the_path_out() -> None:
    """It is held to its tier's budget; where a policy says nothing, anything may be asked."""
    with captured(POLICY) as capture, capture.request(tier="pro"):
        assert (budget.route, budget.tier) == ("_unmatched", "pro")
        assert budget.remaining() < 0.1
    with captured(Policy()) as capture, capture.request("GET", "/nowhere", tier="gold"):
        assert budget.route == "_unmatched"


def test_a_promise_that_was_kept_passes() -> None:
    """One record or many; a warning is not a failure, and neither is using all there is."""
    nearly = _record(("db", None, 0.019), rest=0.07)
    assert nearly.outcome == "warning"

    assert_within_budget(nearly)
    assert_within_budget([nearly, _record()])
    assert_within_budget(iter((nearly,)))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            _record(("db", None, 0.015), rest=0.1),
            """1 of 1 over budget
item (pro): 115ms of 100ms, 15ms too long
  the time went to: no stage 100ms, db 15ms""",
        ),
        (
            _record(("db", "select", 0.025), ("ml", None, 0.03)),
            """1 of 1 over budget
item (pro): 55ms of 100ms
  db: 25ms of 20ms, 5ms too long, 1 call
  db select: 25ms of 5ms, 20ms too long, 1 call
  the time went to: ml 30ms, db 25ms, no stage 0s""",
        ),
        (
            _record(*[("db", None, 0.001)] * 3),
            """1 of 1 over budget
item (pro): 3ms of 100ms
  db: 3 calls of 2
  the time went to: db 3ms, no stage 0s""",
        ),
    ],
    ids=["request", "stage", "calls"],
)
def test_the_message_says_what_took_too_long(record: RequestRecord, message: str) -> None:
    """Which request and stage, by how much, and where the time went."""
    with pytest.raises(AssertionError) as failed:
        assert_within_budget(record)

    assert str(failed.value) == message


def test_only_what_went_over_is_listed() -> None:
    """Among many records the message is about those that matter."""
    fine, late = _record(), _record(rest=0.2)

    with pytest.raises(AssertionError, match="1 of 3 over budget\nitem") as failed:
        assert_within_budget([fine, late, fine])
    assert str(failed.value).count("item (pro)") == 1


def test_nothing_to_look_at_is_not_a_pass() -> None:
    """No record, or no promise in any of them, says nothing about a promise kept."""
    with captured(Policy()) as capture, capture.request("GET", "/nowhere"):
        pass

    with pytest.raises(AssertionError, match="no record"):
        assert_within_budget([])
    with pytest.raises(AssertionError, match="these requests: _unmatched"):
        assert_within_budget(capture.records)
    assert_within_budget([*capture.records, _record()])


def test_a_stage_can_be_over_where_the_request_has_no_limit() -> None:
    """Stages with no total are fine; what they promise is still a promise."""
    clock = FakeClock()
    with captured(UNLIMITED, clock=clock) as capture:
        for seconds in (0.02, 0.03):
            with capture.request("GET", "/x"), budget.stage("db"):
                clock.advance(seconds)

    assert_within_budget(capture.records[0])
    with pytest.raises(AssertionError, match="x: 30ms\n  db: 30ms of 20ms, 10ms too long"):
        assert_within_budget(capture.records)


def _pytest(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "budgetware.pytest_plugin", "-W", "error", *options],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PATH": ""},
    )


def _block(language: str) -> str:
    page = (ROOT / "docs" / "testing.md").read_text("utf-8")
    return "\n".join(re.findall(rf"^```{language}\n(.*?)^```", page, re.DOTALL | re.MULTILINE))


def test_the_pages_tests_pass(tmp_path: Path) -> None:
    """The examples for pytest are collected by pytest, with nothing but the plugin."""
    (tmp_path / "budgetware.yaml").write_text(_block("yaml"), "utf-8")
    (tmp_path / "test_page.py").write_text(_block("python"), "utf-8")

    done = _pytest(tmp_path, "--strict-markers")

    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout


def test_a_test_that_breaks_its_promise_fails(tmp_path: Path) -> None:
    """The mark holds it to the route's promise; the message is ours, without our frames."""
    (tmp_path / "budgetware.yaml").write_text(POLICY, "utf-8")
    (tmp_path / "test_it.py").write_text(
        """
import time, pytest

@pytest.mark.budget("item", tier="pro")
def test_slow(budget):
    with budget.stage("db"):
        time.sleep(0.025)
""",
        "utf-8",
    )

    done = _pytest(tmp_path, "--strict-markers")

    assert done.returncode == 1
    assert "1 of 1 over budget" in done.stdout
    assert re.search(r"db: [0-9.]+ms of 20ms, [0-9.]+ms too long, 1 call", done.stdout)
    assert "testing.py" not in done.stdout


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        ('"itme"', "the policy has no route 'itme', only item, report; did you mean 'item'?"),
        (
            '"item", tier="proo"',
            "the policy has no tier 'proo', only free, pro; did you mean 'pro'?",
        ),
    ],
)
def test_a_mark_that_promises_nothing_fails(tmp_path: Path, mark: str, message: str) -> None:
    """A misspelt route or tier would hold the test to another promise, or none."""
    (tmp_path / "budgetware.yaml").write_text(POLICY, "utf-8")
    (tmp_path / "test_it.py").write_text(
        f"import pytest\n\n@pytest.mark.budget({mark})\ndef test_it(budget):\n    pass\n", "utf-8"
    )

    done = _pytest(tmp_path)

    assert done.returncode == 1
    assert f"@pytest.mark.budget: {message}" in done.stdout
    assert "pytest_plugin.py" not in done.stdout


def test_an_action_that_is_none_is_refused() -> None:
    """The choices are named."""
    message = "'skipp' is no action, only run, skip, answer, probe, reject; did you mean 'skip'?"
    with pytest.raises(ValueError, match=re.escape(message)), deciding("skipp"):
        pytest.fail("the block must not run")


def test_the_plugin_is_registered_with_pytest() -> None:
    """Whoever installs budgetware has it, under the name pytest prints."""
    project = (ROOT / "pyproject.toml").read_text("utf-8")

    assert '[project.entry-points.pytest11]\nbudgetware = "budgetware.pytest_plugin"' in project


def test_deciding_takes_the_forecasts_place_and_gives_it_back() -> None:
    """A word that is no decision is an error; nested, the inner one counts."""
    seen = []
    with deciding("answer"):
        with deciding("run"):
            seen.append(Steering.forced)
        seen.append(Steering.forced)
    with pytest.raises(ValueError, match="perhaps"), deciding("perhaps"):
        pass

    assert [*seen, Steering.forced] == [Action.RUN, Action.ANSWER, None]


DECIDED = """
version: 1
service: shop
mode: enforce
tiers:
  free: {budget: 1s, late_worth: 0}
  pro: {budget: 100ms}
routes:
  item:
    match: "* /items/{id}"
    stages: {ml: 20ms, db: {budget: 20ms, on_overrun: answer}}
    answers: [cached, {static: {status: 203, body: "later"}}]
  plain: {match: GET /plain}
"""


@budget.stage("ml", fallback=lambda: "last score")
def score() -> str:
    """Return today's."""
    return "today's score"


@budget.stage("ml", fallback=lambda: "last score")
async def score_async() -> str:
    """Return today's."""
    return "today's score"


@pytest.mark.parametrize("action", ["skip", "answer", "probe", "reject"])
def test_a_forced_decision_leaves_a_stage_out(action: str) -> None:
    """A unit test of a function with a fallback needs no server; the record is a door's."""
    with captured(DECIDED) as capture, capture.request("GET", "/items/7"), deciding(action):
        assert score() == asyncio.run(score_async()) == "last score"
        assert not budget.affords("ml")

    record = capture.record
    assert (record.status, record.outcome) == (200, "degraded")
    assert (record.answer, record.reason) == ("partial", "forced")
    assert record.openings == ()


def test_a_decision_forced_around_a_request_is_as_good() -> None:
    """As long as it answers nothing before the block, which is run in any case."""
    for action, made in (("skip", "last score"), ("run", "today's score")):
        with captured(DECIDED) as capture, deciding(action), capture.request("GET", "/items/7"):
            assert score() == made
            assert budget.affords("ml") == (action == "run")
        assert capture.record.answer == ("partial" if action == "skip" else None)


@pytest.mark.parametrize("action", ["answer", "probe", "reject"])
def test_a_block_cannot_be_answered_before_it_runs(action: str) -> None:
    """The error says how to test that; where nothing is acted upon, nothing is wrong."""
    message = rf"deciding\('{action}'\).* before .*BudgetMiddleware\(app, \*\*capture.options\)"
    with captured(DECIDED) as capture, deciding(action):
        with pytest.raises(RuntimeError, match=message), capture.request("GET", "/items/7"):
            pytest.fail("the block must not run")
        assert capture.records == []
        assert current_budget.get() is None
    for mode in ("observe", "shadow"):
        policy = DECIDED.replace("enforce", mode)
        with captured(policy) as capture, deciding(action), capture.request("GET", "/items/7"):
            assert score() == "today's score"
        assert capture.record.outcome == "met"


def _gives_up() -> None:
    budget.degrade("no_model")


def _is_left() -> None:
    with deciding("answer"), budget.stage("db"):
        pytest.fail("the stage must not run")


def _is_replanned() -> None:
    with deciding("reject"):
        budget.tier = "pro"


@pytest.mark.parametrize(
    ("work", "reason"),
    [(_gives_up, "no_model"), (_is_left, "forced"), (_is_replanned, "forced")],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_block_is_left_where_an_application_would_be(
    work: Callable[[], None], reason: str, method: str
) -> None:
    """For the answer that the policy lists first and that takes no door; the test goes on."""
    done = []
    with captured(DECIDED) as capture, capture.request(method, "/items/7"):
        done.append("begun")
        work()
        done.append("ended")

    record = capture.record
    assert done == ["begun"]
    assert (record.answer, record.reason, record.status) == ("static", reason, 203)
    assert record.outcome == "degraded"
    assert len(capture.records) == 1
    assert current_budget.get() is None


def test_a_route_without_answers_is_refused_in_its_stead() -> None:
    """As behind a door."""
    with captured(DECIDED) as capture, capture.request("GET", "/plain"):
        budget.degrade("no_model")

    assert (capture.record.answer, capture.record.status) == ("reject", 503)


def test_in_a_group_of_tasks_a_block_is_left_as_well() -> None:
    """Task groups put what leaves their tasks into groups of errors."""

    async def work() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(asyncio.to_thread(budget.degrade, "no_model"))

    with captured(DECIDED) as capture, capture.request("GET", "/items/7"):
        asyncio.run(work())

    assert capture.record.reason == "no_model"


def test_a_tier_that_becomes_known_is_decided_by_its_own_mode() -> None:
    """Authentication often comes first in a block; what it finds out counts from then on."""
    policy = DECIDED.replace("mode: enforce", "mode: observe").replace(
        "pro: {", "pro: {mode: enforce, "
    )
    with captured(policy) as capture, capture.request("GET", "/items/7"), deciding("skip"):
        assert score() == "today's score"
        budget.tier = "pro"
        assert score() == "last score"

    assert capture.record.answer == "partial"


def test_without_a_forced_decision_the_forecast_decides() -> None:
    """It learns from one request of a capture to the next; a new capture begins anew."""
    clock = FakeClock()
    made = []
    for _ in range(2):
        with captured(DECIDED, clock=clock) as capture:
            for _ in range(30):
                with capture.request("GET", "/items/7", tier="pro"):
                    made.append(score())
                    clock.advance(0.2)
        made.append("|")

    first, second = " ".join(made).split(" | ")
    assert first.startswith("today's score today's score")
    assert "last score" in first
    assert second.startswith("today's score today's score")


def test_jobs_are_not_decided_on() -> None:
    """Neither forced nor by a forecast, for there is nobody to be answered."""
    with captured(DECIDED) as capture, deciding("skip"), budget.open("item"):
        assert score() == "today's score"
        assert budget.affords("ml")

    assert capture.record.answer is None
