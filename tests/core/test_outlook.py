"""The forecast of one route: who teaches it, what it says, threads and strangers' data."""

from __future__ import annotations

import json
import random
import sys
import threading
from collections.abc import Sequence
from math import inf, nan

import pytest

from budgetware._core import outlook as outlook_module
from budgetware._core.cell import Cell
from budgetware._core.outlook import LEAST_SEEN, MOST_POINTS, MOST_WAITING, RouteForecast
from budgetware._core.path import UNKNOWN, Passing, Path
from budgetware._core.policy import StagePlan

STAGES = {
    name: StagePlan(name=name, limit_s=limit_s)
    for name, limit_s in {"auth": 0.01, "db": 0.02, "log": inf, "ml": 0.05}.items()
}


def way(
    db_s: float = 0.02, ml_s: float = 0.05, now_s: float = 0.0, size: float | None = None
) -> Path:
    """Return the way of a request with two stages and a little of its own before each."""
    passings = (
        Passing(None, 0.0, 3),
        Passing("db", 0.001, 3, db_s),
        Passing("ml", db_s + 0.002, 3, ml_s),
    )
    return Path(passings, db_s + ml_s + 0.003, now_s, size)


def taught(times: int = 200, db_s: float = 0.02, ml_s: float = 0.05) -> RouteForecast:
    """Return a forecast that has seen *times* requests, varied by a third."""
    draw = random.Random(1)
    forecast = RouteForecast()
    for index in range(times):
        vary = draw.uniform(0.75, 1.25)
        forecast.learn(way(db_s * vary, ml_s * vary, index / 100))
    return forecast


def test_the_rest_is_what_is_left_from_the_point() -> None:
    """The same time is too short at the beginning and ample at the last stage."""
    forecast = taught()

    assert forecast.fits(None, 0.06, 3) < 0.2
    assert forecast.fits("ml", 0.064, 3) > 0.9
    assert forecast.fits("ml", 0.03, 3) < 0.1
    assert forecast.fits("db", 0.0, 3) == forecast.fits("db", -1.0, 3) == 0.0


def test_the_sequel_is_what_follows_the_stage() -> None:
    """Without db only ml and a little are left."""
    forecast = taught()

    assert forecast.sequel_fits("db", 0.07, 3) > 0.9
    assert forecast.sequel_fits("db", 0.03, 3, 5) < 0.1
    assert forecast.sequel_fits("db", 0.0, 3) == 0.0
    assert forecast.sequel_fits(None, 0.001, 3) == 1.0
    assert forecast.sequel_fits("new", 0.001, 3) == 1.0


def test_an_outlook_knows_the_way_to_the_next_point() -> None:
    """At db the next point is as far as db takes; at ml there is none."""
    forecast = taught()
    at_db = forecast.outlook("db", 0.05, 0.001, 3, 3.0, 7)
    at_ml = forecast.outlook("ml", 0.05, 0.001, 3, 3.0)

    assert at_db.leg_s == pytest.approx(0.021, rel=0.2)
    assert at_db.leg_fits is not None
    assert at_db.leg_fits > 0.95
    assert at_db.fits < 0.1
    assert at_db.rest_s == pytest.approx(0.073, rel=0.2)
    assert at_db.seen == 200
    assert at_db.quiet_s == pytest.approx(1.01 + 0.073, abs=0.03)
    assert (at_ml.leg_fits, at_ml.leg_s) == (None, 0.0)
    assert forecast.outlook("db", 0.0, 0.001, 3, 3.0).leg_fits == 0.0


def test_nothing_is_concluded_from_too_little() -> None:
    """The first requests run in full, whatever the allocations and the very first one say."""
    forecast = RouteForecast(STAGES)
    for _ in range(LEAST_SEEN - 1):
        forecast.learn(way(5.0))
        assert forecast.fits("db", 0.01, 3) == 1.0
    forecast.learn(way(5.0))

    assert forecast.fits("db", 0.01, 3) < 0.4
    assert forecast.outlook("unheard-of", 0.01, 0.0, 3, 1.0) == UNKNOWN


def test_allocations_are_where_it_starts() -> None:
    """A point begins with the allocations still ahead, those without a limit left out."""
    guesses = outlook_module._guesses(STAGES)

    assert guesses[None][0] == guesses["auth"][0] == pytest.approx(0.6 * 0.08)
    assert list(guesses["db"]) == pytest.approx([0.6 * 0.07, 0.6 * 0.05])
    assert guesses["ml"][0] == pytest.approx(0.6 * 0.05)
    assert guesses["ml"][1] is None
    assert outlook_module._guesses({"log": STAGES["log"]}) == {}


def test_a_request_cut_short_is_no_full_one() -> None:
    """Hundreds of short, degraded requests do not make the route look fast."""
    forecast = taught()
    before = forecast.fits("db", 0.03, 3)
    for index in range(500):
        forecast.learn_cut(Path((Passing(None, 0.0, 3), Passing("db", 0.001, 3)), 0.001, index))

    assert forecast.fits("db", 0.03, 3) == before < 0.1
    assert forecast.last_s < 2.0


def test_a_request_cut_short_late_says_that_things_are_slow() -> None:
    """Nothing completes in an outage; that requests were still not done is learned from."""
    forecast = taught()
    for index in range(6):
        forecast.learn_cut(Path((Passing(None, 0.0, 3), Passing("db", 0.001, 3)), 2.0, 3.0 + index))

    assert forecast.fits("db", 0.1, 3) < 0.3
    assert forecast.outlook("db", 0.1, 0.0, 3, 20.0).quiet_s > 17.0


def test_a_leg_that_was_cut_short_is_a_lower_bound_too() -> None:
    """A request that hung on its way to the next point makes that way longer."""
    forecast = taught()
    usual_s = forecast.outlook("db", 0.1, 0.0, 3, 3.0).leg_s
    forecast.learn_cut(Path((Passing("db", 0.0, 3),), 3.0, 9.0))
    forecast.learn(Path((Passing("db", 0.0, 3),), 3.0, 19.0))

    assert forecast.outlook("db", 0.1, 0.0, 3, 3.0).leg_s > 1.5 * usual_s


def test_a_loop_has_one_voice_and_later_rounds_less_ahead() -> None:
    """Fifty openings of a stage are learned by their place in the loop."""
    forecast = RouteForecast()
    rounds = [Passing("db", 0.01 * index, 3) for index in range(50)]
    for index in range(50):
        forecast.learn(Path(rounds, 0.5, index))

    assert forecast.fits("db", 0.3, 3) < 0.1
    assert forecast.fits("db", 0.3, 3, None, 33) > 0.9
    assert forecast.outlook("db", 0.36, 0.0, 3, 50.0, None, 20).fits > 0.5
    assert forecast.outlook("db", 1.0, 0.0, 3, 50.0).seen == 50
    assert len(forecast._points) == 7


def test_points_are_bounded() -> None:
    """Stages with made-up names fill their share and no more; at others nothing is known."""
    forecast = RouteForecast()
    for index in range(MOST_POINTS + 50):
        forecast.learn(Path((Passing(f"stage{index}", 0.0, 1),), 0.1, index))

    assert len(forecast._points) == MOST_POINTS
    assert forecast.fits(f"stage{MOST_POINTS + 1}", 1e-9, 1) == 1.0


@pytest.mark.parametrize("duration_s", [nan, inf, -1.0, 1e9])
def test_impossible_durations_are_dropped(duration_s: float) -> None:
    """What no clock can have measured teaches nothing and is counted."""
    forecast = taught()
    before = forecast.export()
    forecast.learn(way()._replace(duration_s=duration_s))

    assert forecast.export() == before
    assert forecast.dropped == 1


@pytest.mark.parametrize("size", [0, -5, 1e300, inf, nan, 10**400])
def test_no_size_is_too_odd(size: float) -> None:
    """Whatever a client says its payload's size is, asking and learning go on."""
    forecast = taught()
    for index in range(20):
        forecast.learn(way(now_s=2.0 + index, size=size))

    assert 0.0 <= forecast.fits("db", 0.05, -1, size) <= 1.0
    assert 0.0 <= forecast.sequel_fits("db", 0.05, 0, size) <= 1.0
    assert forecast.outlook(None, 0.2, 0.0, 0, 30.0, size).fits > 0.5


def test_learning_never_waits_and_loses_nothing() -> None:
    """Whoever finds another learning leaves its path to it, or to the next."""
    forecast = RouteForecast()
    with forecast._lock:
        for index in range(10):
            forecast.learn(way(now_s=index))
        assert forecast.fits("db", 1e-5, 1) == 1.0
    forecast.learn(way(now_s=11))

    assert forecast._points["db"].rest.seen == 11


def test_what_waits_is_bounded() -> None:
    """If learning stopped for good, the oldest paths go and are counted."""
    forecast = RouteForecast()
    with forecast._lock:
        for index in range(MOST_WAITING + 5):
            forecast.learn(way(now_s=index))

    assert (len(forecast._waiting), forecast.dropped) == (MOST_WAITING, 5)


def test_thirty_two_threads_teach_and_ask() -> None:
    """Under constant change of threads every path counts once and every answer is a probability."""
    forecast = RouteForecast()
    start = threading.Barrier(32)
    wrong: list[float] = []
    interval = sys.getswitchinterval()

    def teach(number: int) -> None:
        draw = random.Random(number)
        start.wait()
        for index in range(30):
            vary = draw.uniform(0.75, 1.25)
            forecast.learn(way(0.02 * vary, 0.05 * vary, index / 100))
            share = forecast.fits("db", draw.uniform(0.001, 0.2), number)
            wrong.extend([share] if not 0.0 <= share <= 1.0 else [])

    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=teach, args=(number,)) for number in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    more = 0
    while forecast._waiting or not more:
        forecast.learn(way(now_s=1.0))
        more += 1

    assert wrong == []
    assert [point.rest.seen for point in forecast._points.values()] == [32 * 30 + more] * 3
    assert forecast.fits("db", 0.1, 3) > 0.9
    assert forecast.fits("db", 0.03, 3) < 0.1


def test_a_fork_in_the_middle_of_learning_leaves_the_child_able_to_learn() -> None:
    """The lock a thread of the parent held is not held in the child for ever."""
    forecast = RouteForecast()
    with forecast._lock:
        outlook_module._renew_locks()
        forecast.learn(way())

    assert forecast._points["db"].rest.seen == 1


def test_what_was_learned_survives_its_export() -> None:
    """Another process that merges an export forecasts the same."""
    forecast = taught()
    forecast.learn(Path([Passing("db", 0.0, 3), Passing("db", 0.01, 3)], 0.08, 3.0))
    copy = RouteForecast()
    copy.merge(json.loads(json.dumps(forecast.export())), 5.0)

    for point, time_s in [(None, 0.07), ("db", 0.07), ("ml", 0.05)]:
        mine, theirs = (one.outlook(point, time_s, 0.0, 3, 5.0) for one in (forecast, copy))
        assert theirs.fits == pytest.approx(mine.fits, abs=0.03)
        assert theirs.leg_s == pytest.approx(mine.leg_s)
    assert ("db", 1) in copy._points


def bad_points() -> Sequence[object]:
    """Return what cannot be the points of an export."""
    return ["x", None, [7], [{"point": 1}], [{"point": ["a", "b"]}], [{"rest": 1}],
            [{"rest": {"seen": 9}}]]  # fmt: skip


@pytest.mark.parametrize("points", bad_points())
def test_what_is_no_export_is_not_merged(points: object) -> None:
    """Data from elsewhere is checked as a whole before any of it is taken."""
    forecast = taught()
    before = forecast.export()

    with pytest.raises(ValueError, match=r"export|point|cell"):
        forecast.merge({"version": 1, "points": points}, 1.0)
    with pytest.raises(ValueError, match="version"):
        forecast.merge({**before, "version": 2}, 1.0)
    assert forecast.export() == before


def test_merging_keeps_to_the_bound() -> None:
    """Another process's points are taken as long as there is room."""
    forecast = RouteForecast()
    for index in range(MOST_POINTS):
        forecast.learn(Path((Passing(f"stage{index}", 0.0, 1),), 0.1, index))
    forecast.merge(taught().export(), 5.0)

    assert len(forecast._points) == MOST_POINTS
    assert isinstance(forecast._points["stage0"].rest, Cell)
