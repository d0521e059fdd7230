"""One route at one tier: what may be notable, and where the totals go."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.programs import (
    TICK,
    Leave,
    Open,
    Play,
    Step,
    Work,
    current,
    leaves,
    opens,
    programs,
    works,
)

from budgetware._core.budget import Budget
from budgetware._core.current import handle
from budgetware._core.lane import LONGEST_NAME, MOST_PENDING, Lane
from budgetware._core.policy import (
    Amount,
    Ladder,
    Match,
    Plan,
    Policy,
    Route,
    StagePlan,
    StagePolicy,
)
from budgetware._core.record import Level, RequestRecord
from budgetware._core.tally import UNDECLARED_NAMES, Tally
from budgetware.names import OTHER

limits = st.none() | st.integers(1, 12).map(lambda ticks: Amount(ticks * TICK))

stage_policies = st.builds(
    StagePolicy,
    budget=limits,
    operations=st.dictionaries(
        st.sampled_from(["select", "insert"]),
        st.integers(1, 8).map(lambda ticks: Amount(ticks * TICK)),
        max_size=2,
    ),
    calls=st.none() | st.integers(1, 4),
)

# Every step of a ladder is a quarter, so that limits times steps are exact.
ladders = st.lists(st.integers(1, 8), min_size=3, max_size=3, unique=True).map(
    lambda steps: Ladder(
        **{
            name: step / 4
            for name, step in zip(("warning", "critical", "breach"), sorted(steps), strict=True)
        },
    ),
)


@settings(max_examples=300)
@given(
    programs(opens, opens, leaves, works),
    st.dictionaries(st.sampled_from(["auth", "db", "ml"]), stage_policies, min_size=1),
    st.none() | st.integers(1, 30).map(lambda ticks: ticks * TICK),
    ladders,
)
def test_nothing_that_went_over_a_rung_is_missed(
    program: list[Step],
    stages: dict[str, StagePolicy],
    budget_s: float | None,
    ladder: Ladder,
) -> None:
    """Whenever the full account finds something, the cheap upper bound had said it might."""
    route = Route(name="x", match=(Match("GET", "/x"),), budget=budget_s, stages=stages)
    play = Play(Policy(routes={"x": route}, ladder=ladder))
    told: list[Budget] = []

    record = play.run(program, prepare=told.append)

    (budget,) = told
    if record.level is not None or record.violations:
        assert budget.notable


@pytest.mark.parametrize(
    ("stage", "steps", "notable"),
    [
        (StagePolicy(budget=Amount(10 * TICK)), [Open("db"), Work(8), Leave(0)], False),
        (StagePolicy(budget=Amount(10 * TICK)), [Open("db"), Work(9), Leave(0)], True),
        (StagePolicy(budget=Amount(10 * TICK)), [Open("db"), Work(4), Leave(-1)] * 2, False),
        (StagePolicy(budget=Amount(10 * TICK)), [Open("db"), Work(5), Leave(-1)] * 2, True),
        (
            StagePolicy(operations={"select": Amount(10 * TICK)}),
            [Open("db", "select"), Work(8)],
            False,
        ),
        (
            StagePolicy(operations={"select": Amount(10 * TICK)}),
            [Open("db", "select"), Work(9)],
            True,
        ),
        (StagePolicy(calls=2), [Open("db"), Open("db")], False),
        (StagePolicy(calls=2), [Open("db"), Open("db"), Open("db")], True),
    ],
)
def test_what_is_within_its_limits_is_not_notable(
    stage: StagePolicy,
    steps: list[Step],
    notable: bool,  # noqa: FBT001 - a parameter of the table
) -> None:
    """The bound is no looser than it must be: full accounts are made for few requests."""
    told: list[Budget] = []
    Play(_policy(stage)).run(steps, prepare=told.append)

    assert told[0].notable is notable


def _violated(play: Play) -> dict[str, dict[tuple[str | None, Level], int]]:
    return {
        name: series.violations
        for (_, name), series in play.engine.tally.stages.items()
        if series.violations
    }


def _served(policy: Policy, program: list[Step]) -> tuple[Play, RequestRecord]:
    play = Play(policy)
    return play, play.run(program)


def _policy(stage: StagePolicy, **options: object) -> Policy:
    route = Route(name="x", match=(Match("GET", "/x"),), stages={"db": stage})
    return Policy(routes={"x": route}, **options)  # type: ignore[arg-type]


def test_a_violation_is_counted_once_per_request_and_stage() -> None:
    """Operations count with their stage; the highest rung is the one that counts."""
    policy = _policy(StagePolicy(budget=Amount(4 * TICK), operations={"select": Amount(TICK)}))
    play, record = _served(policy, [Open("db", "select"), Work(5), Leave(0)])

    assert _violated(play) == {"db": {(None, Level.BREACH): 1}}
    assert [(one.operation, one.level) for one in record.violations] == [
        (None, Level.CRITICAL),
        ("select", Level.BREACH),
    ]


def test_too_many_calls_are_a_violation_and_nearly_too_many_are_not() -> None:
    """The count is exact: no warning at 80 %, critical above the limit, a breach far above it."""
    policy = _policy(StagePolicy(calls=4))

    def level(calls: int) -> Level | None:
        _, record = _served(policy, [Open("db"), Leave(-1)] * calls)
        return record.stages[0].level

    assert [level(calls) for calls in (3, 4, 5, 6, 7)] == [
        None,
        None,
        Level.CRITICAL,
        Level.CRITICAL,
        Level.BREACH,
    ]


def test_the_worse_of_time_and_calls_is_the_level() -> None:
    """A stage that breached its time is not made better by having too many calls as well."""
    policy = _policy(StagePolicy(budget=Amount(TICK), calls=1))
    _, record = _served(policy, [Open("db"), Work(5), Leave(-1)] * 2)

    assert record.stages[0].level is Level.BREACH


def test_decorators_made_inside_a_request_are_no_openings() -> None:
    """They never ran, so they use up neither time nor calls, and no wait moves them."""
    play = Play(_policy(StagePolicy(budget=Amount(TICK), operations={"select": Amount(TICK)})))
    budget = play.engine.begin("GET", "/x")
    with current(budget):
        for _ in range(3):

            @handle.stage("db", "select")
            def work() -> None: ...

        play.clock.advance(5 * TICK)
        budget.pause(TICK)
        for decorating in list(budget):
            decorating.__exit__(None, None, None)
        budget.lane.keep(list(budget))
    play.engine.finish(budget)

    assert play.records[-1].stages == ()
    assert not budget.notable
    assert play.faults == []


def test_calls_are_judged_by_their_limit_and_not_by_the_ladder() -> None:
    """A ladder that is stricter or laxer about time does not allow fewer or more calls."""
    for critical in (0.5, 1.25):
        policy = _policy(StagePolicy(calls=4), ladder=Ladder(warning=0.25, critical=critical))
        fine, _ = _served(policy, [Open("db"), Leave(-1)] * 4)
        over, _ = _served(policy, [Open("db"), Leave(-1)] * 5)
        assert _violated(fine) == {}
        assert _violated(over) == {"db": {(None, Level.CRITICAL): 1}}


def test_names_the_policy_does_not_list_are_bounded() -> None:
    """Past the cap, names are ``_OTHER``; declared ones always have their own totals."""
    play = Play(_policy(StagePolicy()))
    budget = play.engine.begin("GET", "/x")
    with current(budget):
        for number in range(UNDECLARED_NAMES + 10):
            with handle.stage(f"s{number}"):
                play.clock.advance(TICK)
        with handle.stage("db"):
            play.clock.advance(TICK)
    play.engine.finish(budget)
    play.engine.absorb()

    stages = play.engine.tally.stages
    counts = {name: series.durations.count for (_, name), series in stages.items()}
    assert counts.pop(OTHER) == 10
    assert set(counts.values()) == {1}
    assert len(counts) == UNDECLARED_NAMES + 1


def test_odd_names_are_other() -> None:
    """A name that is too long, or no text at all, has no totals of its own."""
    tally = Tally()
    lane = Lane(Plan(route="x"), tally)
    play = Play()
    budget = play.engine.begin("GET", "/x")
    with current(budget):
        for name in ("n" * LONGEST_NAME, "n" * (LONGEST_NAME + 1), 5, ("a",)):
            with handle.stage(name):  # type: ignore[arg-type]
                pass

    lane.add(list(budget), 0.0, play.clock())
    tally.absorb()

    counts = {name: series.durations.count for (_, name), series in tally.stages.items()}
    assert counts == {"n" * LONGEST_NAME: 1, OTHER: 3}


def test_allocations_in_force_are_known_by_tier() -> None:
    """The gauges read limits off the series; a new lane replaces them."""
    tally = Tally()
    for limit_s in (0.005, 0.004):
        plan = Plan(route="x", tier="pro", stages={"db": StagePlan(name="db", limit_s=limit_s)})
        Lane(plan, tally)

    assert tally.stage("x", "db").limits_s == {"pro": 0.004}
    assert tally.request("x", "pro").limit_s == inf


def test_pending_durations_of_a_long_request_are_put_away() -> None:
    """A request of very many stages does not keep a float for each until it ends."""
    relieved: list[int] = []
    tally = Tally()

    def relieve() -> None:
        relieved.append(len(tally.stage("x", "db").pending))
        tally.absorb()

    lane = Lane(Plan(route="x"), tally, relieve=relieve)
    play = Play()
    budget = play.engine.begin("GET", "/x")
    with current(budget):
        done = handle.stage("db")
        done.__exit__(None, None, None)
    for _ in range(MOST_PENDING + 5):
        lane.keep(list(budget))

    assert relieved == [MOST_PENDING]
    tally.absorb()
    assert tally.stage("x", "db").durations.count == MOST_PENDING + 5
