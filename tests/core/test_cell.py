"""The distribution of one duration: what it believes, how fast it changes its mind, its bounds."""

from __future__ import annotations

import json
import random
from math import exp, inf, isfinite, log, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgetware._core.cell import BINS, MEMORY, Cell

LOAD = log(4.0)
logs = st.floats(-14.0, 8.0)


def taught(times_s: list[float], guess_s: float | None = None) -> Cell:
    """Return a cell that has seen *times_s*, a hundred a second."""
    cell = Cell(guess_s)
    for index, time_s in enumerate(times_s):
        cell.learn(log(time_s), LOAD, None, index / 100)
    return cell


def lognormal(count: int, median_s: float, spread: float, seed: int = 1) -> list[float]:
    """Return *count* durations around *median_s*."""
    draw = random.Random(seed)
    return [median_s * exp(draw.gauss(0.0, spread)) for _ in range(count)]


def test_knowing_nothing_everything_fits() -> None:
    """A cell without guess and observations never speaks against anything."""
    assert Cell().fits(log(1e-6), LOAD, None) == 1.0
    assert Cell().typical_s == 0.0


def test_a_guess_is_the_first_median() -> None:
    """Before anything was seen, half of all are thought to take no longer than the guess."""
    cell = Cell(0.02)

    assert cell.fits(log(0.02), LOAD, None) == pytest.approx(0.5, abs=0.01)
    assert cell.typical_s == pytest.approx(0.02)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.75, 0.9])
def test_what_it_says_is_what_happens(share: float) -> None:
    """After a thousand observations its quantiles are those of the durations."""
    times_s = lognormal(1000, 0.02, 0.5)
    cell = taught(times_s)

    assert cell.fits(log(sorted(times_s)[int(share * 1000)]), LOAD, None) == pytest.approx(
        share, abs=0.08
    )


def test_things_got_worse_three_times_in_a_row() -> None:
    """Three extreme durations move the level nearly all the way; two do not."""
    cell = taught(lognormal(300, 0.02, 0.3))
    levels = []
    for index in range(3):
        cell.learn(log(2.0), LOAD, None, 3.0 + index / 100)
        levels.append(cell.typical_s)

    assert levels[1] < 0.04
    assert levels[2] > 0.3


def test_things_got_better_twice_in_a_row() -> None:
    """Coming back from an outage takes two observations to believe, and few more to finish."""
    cell = taught(lognormal(300, 2.0, 0.3))
    cell.learn(log(0.02), LOAD, None, 3.0)
    doubtful_s = cell.typical_s
    for index in range(4):
        cell.learn(log(0.02), LOAD, None, 3.01 + index / 100)

    assert doubtful_s > 1.0
    assert cell.typical_s < 0.05


def test_one_outlier_is_one_outlier() -> None:
    """A single absurd duration leaves the level where it was, within a tenth."""
    cell = taught(lognormal(300, 0.02, 0.3))
    before_s = cell.typical_s
    cell.learn(log(100.0), LOAD, None, 3.0)

    assert cell.typical_s == pytest.approx(before_s, rel=0.1)


def test_after_a_silence_the_next_observation_counts_more() -> None:
    """What is seen after two quiet seconds moves the level by half of what is new."""
    busy, quiet = taught([0.02] * 100), taught([0.02] * 100)
    busy.learn(log(0.03), LOAD, None, 1.0)
    quiet.learn(log(0.03), LOAD, None, 10.0)

    assert quiet.typical_s - 0.02 > 5 * (busy.typical_s - 0.02)


def test_load_and_size_are_taken_out() -> None:
    """Where durations grow with load and size, so does the forecast."""
    draw = random.Random(3)
    cell = Cell()
    for index in range(3000):
        load, size = draw.uniform(0.0, 3.0), draw.gauss(6.0, 1.5)
        time = -4.0 + 0.5 * load + 0.6 * (size - 6.0) + draw.gauss(0.0, 0.1)
        cell.learn(time, load, size, index / 100)

    assert cell.fits(-3.25, 0.3, 6.0) > 0.9
    assert cell.fits(-3.25, 2.8, 6.0) < 0.1
    assert cell.fits(-3.25, 1.5, 4.0) > 0.9
    assert cell.fits(-3.25, 1.5, 8.0) < 0.1
    assert cell.load_effect(2.8) > 0.4 > -0.4 > cell.load_effect(0.3)


def test_a_client_that_lies_about_sizes_moves_nobody_far() -> None:
    """A hundred absurd sizes among honest requests leave an honest request's forecast as it was."""
    cell = Cell()
    for index in range(400):
        size = 34.0 if index % 4 == 0 else 6.0
        cell.learn(log(0.02), LOAD, size, index / 100)

    assert cell.fits(log(0.04), LOAD, 6.0) > 0.9
    assert cell.fits(log(0.01), LOAD, 6.0) < 0.2


def test_weights_stay_small_however_long_it_runs() -> None:
    """After thirty thousand observations, which is several times the growth, nothing overflows."""
    cell = taught(lognormal(30_000, 0.02, 0.4))

    assert cell._weight < 1e13
    assert sum(cell._heap[:BINS]) == pytest.approx(cell._heap[BINS])
    assert cell.fits(log(0.02), LOAD, None) == pytest.approx(0.5, abs=0.1)
    assert cell.fits(log(0.2), LOAD, None) == 1.0


@given(st.lists(st.tuples(logs, st.floats(0, 12), st.none() | st.floats(-7, 35)), max_size=80))
def test_it_is_a_distribution_whatever_it_has_seen(
    seen: list[tuple[float, float, float | None]],
) -> None:
    """Probabilities are in [0, 1] and never fall with more time."""
    cell = Cell(0.01)
    for index, (time, load, size) in enumerate(seen):
        cell.learn(time, load, size, index / 50)
    shares = [cell.fits(time / 4, 1.0, 3.0) for time in range(-80, 80)]

    assert all(0.0 <= share <= 1.0 for share in shares)
    assert shares == sorted(shares)
    assert cell.level is not None
    assert isfinite(cell.level)


def test_a_lower_bound_counts_only_when_it_says_something() -> None:
    """An end that was not seen is learned from where it is later than expected, not before."""
    cell = taught(lognormal(300, 0.02, 0.3))
    before = cell.export()
    cell.learn_at_least(log(0.002), LOAD, None, 3.0)
    assert cell.export() == before

    for index in range(4):
        cell.learn_at_least(log(0.5), LOAD, None, 3.0 + index / 100)
    assert cell.fits(log(0.1), LOAD, None) < 0.5


def test_the_first_thing_known_may_be_a_lower_bound() -> None:
    """A service that starts in the middle of an outage learns that it is in one."""
    cell = Cell()
    cell.learn_at_least(log(0.5), LOAD, None, 0.0)

    assert cell.fits(log(0.05), LOAD, None) < 0.05


def test_what_was_learned_survives_its_export() -> None:
    """A new cell that merges an export believes the same, load and size included."""
    draw = random.Random(5)
    cell = Cell()
    for index in range(500):
        load, size = draw.uniform(0, 3), draw.gauss(6, 1)
        cell.learn(-4 + 0.5 * load + 0.4 * (size - 6) + draw.gauss(0, 0.3), load, size, index / 100)
    copy = Cell()
    copy.merge(json.loads(json.dumps(cell.export())))

    assert copy.seen == 500
    asked: list[tuple[float, float, float | None]] = [(-4, 1, 6), (-3, 2, 7), (-3.5, 0.5, None)]
    for facts in asked:
        assert copy.fits(*facts) == pytest.approx(cell.fits(*facts), abs=0.02)


def test_nothing_learned_is_nothing_told() -> None:
    """A guess is not exported, and merging nothing changes nothing."""
    cell = Cell(0.5)
    assert cell.export() == {}
    cell.merge({})
    assert cell.typical_s == pytest.approx(0.5)


def test_merging_meets_in_the_middle() -> None:
    """Two cells that have seen equally much, of different speeds, agree on something between."""
    slow, fast = taught(lognormal(300, 0.04, 0.3)), taught(lognormal(300, 0.02, 0.3, seed=2))
    fast.merge(slow.export())

    assert fast.typical_s == pytest.approx(0.028, rel=0.15)
    assert fast.fits(log(0.028), LOAD, None) == pytest.approx(0.5, abs=0.12)
    assert fast._heap[BINS] <= 2 * MEMORY


def test_a_newcomer_takes_over_what_others_know() -> None:
    """One own observation weighs little against three hundred of somebody else's."""
    new = taught([1.0])
    new.merge(taught(lognormal(300, 0.02, 0.3)).export())

    assert new.typical_s == pytest.approx(0.02, rel=0.2)


GOOD = taught([0.02] * 20).export()


@pytest.mark.parametrize(
    "change",
    [
        {"seen": 0},
        {"seen": True},
        {"seen": "many"},
        {"level": None},
        {"level": nan},
        {"level": 1e9},
        {"load": [0.0]},
        {"load": [inf, 0.0]},
        {"load": "ab"},
        {"size": [True, 0.0]},
        {"shape": [0.0] * BINS},
        {"shape": [1.0] * 63},
        {"shape": [-1.0] * BINS},
        {"shape": None},
    ],
)
def test_what_is_no_cell_is_not_merged(change: dict[str, object]) -> None:
    """Data from elsewhere is checked; a cell that refuses it is as it was."""
    cell = taught([0.05] * 20)
    before = cell.export()

    with pytest.raises(ValueError, match=r"cell|between"):
        cell.merge({**GOOD, **change})
    assert cell.export() == before
