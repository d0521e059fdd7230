"""How long does one thing take just now? The distribution of a duration, learned one at a time.

A cell keeps a level, which follows within a few observations, and a shape, which is the decayed
histogram of what the level got wrong. Two slopes take out what load and size explain. Learning
and asking take constant time, and a cell never grows.

Method: ``docs/ESTIMATOR.md`` section 5. The level is an exponentially weighted mean of logarithms
with a rule for jumps; the shape is a weighted conformal calibration set; the slopes are found by
normalised least mean squares.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp, isfinite, log
from typing import Final

BINS: Final = 64
"""Bins of the shape; they are 0.1 wide in natural logarithms and reach from -3.2 to 3.2."""

PRIOR_WEIGHT: Final = 6.0
"""How many observations the shape that a cell begins with counts for."""

MEMORY: Final = 300
"""Observations after which one has lost all but 1/e of its weight in the shape."""

SHORTEST_S: Final = 1e-6
"""What is shorter counts as this, so that logarithms stay within reason."""

_LOWEST: Final = -3.2
_PER_UNIT: Final = 10.0
_GROWTH: Final = MEMORY / (MEMORY - 1)
_HEAVIEST: Final = 1e12

_LEVEL_GAIN: Final = 0.06
_SETTLED: Final = 15
_QUIET_S: Final = 2.0
_MOST_GAIN: Final = 0.5

_MEAN_GAIN: Final = 0.03
_SLOPE_GAIN: Final = 0.02
_STEEPEST: Final = 4.0
_FARTHEST: Final = 4.0

_LARGEST_ERROR: Final = 1.2
_ODD: Final = 0.5
_TAIL: Final = 0.03
_LOW_TAIL: Final = 0.15
_ROW_UP: Final = 3
_ROW_DOWN: Final = 2

_UNSURE: Final = 0.002
_REFRESH: Final = 31
_YOUNG: Final = 8

_DENSITY = [exp(-0.5 * ((_LOWEST + (i + 0.5) / _PER_UNIT) / 0.4) ** 2) for i in range(BINS)]
_PRIOR: Final = tuple(PRIOR_WEIGHT * value / sum(_DENSITY) for value in _DENSITY)


class Cell:
    """The distribution of one duration, given load and size.

    All arguments named ``*_log`` are natural logarithms: of seconds, of one plus the requests in
    flight, of the size. One thread at a time may ``learn``; any number may ask meanwhile and see
    the cell a single observation ahead or behind.

    Args:
        guess_s: What the duration is thought to be before anything was seen; ``None`` to take the
            first observation's word for it.

    Attributes:
        level: The typical duration's logarithm at typical load, ``None`` while nothing is known.
        seen: Observations so far.
        last_s: When the latest was made, on the caller's clock.

    """

    __slots__ = (
        "_heap",
        "_load_mean",
        "_load_slope",
        "_size_mean",
        "_size_slope",
        "_streak",
        "_surely",
        "_weight",
        "last_s",
        "level",
        "seen",
    )

    def __init__(self, guess_s: float | None = None) -> None:
        self.level = None if guess_s is None else log(max(guess_s, SHORTEST_S))
        self.seen = 0
        self.last_s = -1e9
        # The bins, and behind them their sum: whoever reads both has to see the same list.
        self._heap = [*_PRIOR, PRIOR_WEIGHT]
        self._weight = 1.0
        self._load_mean = 0.0
        self._load_slope = 0.0
        self._size_mean: float | None = None
        self._size_slope = 0.0
        self._streak = 0
        self._surely = -_LOWEST

    @property
    def typical_s(self) -> float:
        """Seconds at typical load; 0 while nothing is known."""
        level = self.level
        return 0.0 if level is None else exp(level)

    def load_effect(self, load_log: float) -> float:
        """Return how much longer than usual the present load makes it, as a logarithm."""
        return self._load_slope * (load_log - self._load_mean)

    def fits(self, time_log: float, load_log: float, size_log: float | None) -> float:
        """Return the probability of at most ``exp(time_log)`` seconds; 1 while nothing is known."""
        level = self.level
        if level is None:
            return 1.0
        # Written out and not shared with ``learn``: a call costs as much as all of it.
        error = time_log - level - self._load_slope * (load_log - self._load_mean)
        if size_log is not None and self._size_mean is not None:
            apart = size_log - self._size_mean
            if apart > _FARTHEST:
                apart = _FARTHEST
            elif apart < -_FARTHEST:
                apart = -_FARTHEST
            error -= self._size_slope * apart
        if error >= self._surely:
            return 1.0
        place = (error - _LOWEST) * _PER_UNIT
        if place <= 0.0:
            return 0.0
        heap = self._heap
        index = int(place)
        if index >= BINS:
            return 1.0
        share = (sum(heap[:index]) + (place - index) * heap[index]) / heap[BINS]
        return share if share < 1.0 else 1.0  # noqa: FURB136 - a call costs as much as the rest

    def learn(  # noqa: C901, PLR0912, PLR0915 - written out, every call costs
        self, time_log: float, load_log: float, size_log: float | None, now_s: float
    ) -> None:
        """Take in one duration, seen at *now_s*, and the load and size it started with."""
        seen = self.seen
        level = self.level
        if level is None:
            level = time_log
        if not seen:
            self._load_mean = load_log
        load_apart = load_log - self._load_mean
        error = time_log - level - self._load_slope * load_apart
        size_apart = 0.0
        if size_log is not None:
            size_mean = self._size_mean
            if size_mean is None:
                self._size_mean = size_mean = size_log
            # The client states the size: one request must not move what others are told.
            size_apart = size_log - size_mean
            if size_apart > _FARTHEST:
                size_apart = _FARTHEST
            elif size_apart < -_FARTHEST:
                size_apart = -_FARTHEST
            error -= self._size_slope * size_apart
        index = int((error - _LOWEST) * _PER_UNIT)
        if index < 0:
            index = 0
        elif index >= BINS:
            index = BINS - 1
        heap = self._heap
        self._weight = weight = self._weight * _GROWTH
        heap[index] += weight
        heap[BINS] += weight
        self.seen = seen = seen + 1
        if not seen & _REFRESH or seen < _YOUNG:
            self._refresh()
        if -_ODD < error < _ODD:
            self._streak = 0
        else:
            jump, error = self._jump(error, index)
            level += jump
        gain = _LEVEL_GAIN if seen > _SETTLED else 1.0 / (seen + 1)
        # After a silence there is nothing else to go by.
        quiet = (now_s - self.last_s) / _QUIET_S
        if quiet > gain:
            gain = quiet if quiet < _MOST_GAIN else _MOST_GAIN  # noqa: FURB136 - likewise
        self.last_s = now_s
        self.level = level + gain * error
        self._load_mean += _MEAN_GAIN * load_apart
        step = _SLOPE_GAIN * error / (0.1 + load_apart * load_apart + size_apart * size_apart)
        slope = self._load_slope + step * load_apart
        self._load_slope = slope if -_STEEPEST < slope < _STEEPEST else self._load_slope
        if size_apart:
            self._size_mean = size_mean + _MEAN_GAIN * size_apart  # type: ignore[operator]
            slope = self._size_slope + step * size_apart
            self._size_slope = slope if -_STEEPEST < slope < _STEEPEST else self._size_slope

    def learn_at_least(
        self, time_log: float, load_log: float, size_log: float | None, now_s: float
    ) -> None:
        """Take in that a duration was at least this long, its end not having been seen.

        It is learned as if it had ended there if that is already longer than expected. If not, it
        says nothing: to guess the end would only confirm what is believed.
        """
        level = self.level
        if level is None or time_log - level > self.load_effect(load_log):
            self.learn(time_log, load_log, size_log, now_s)

    def _jump(self, error: float, index: int) -> tuple[float, float]:
        """Return how far the level jumps, and the error that is left to learn from.

        A third extreme error in a row on the same side means that things have changed. For the
        better, the second will do: there are few observations while things are bad, and whoever
        is wrong about it learns so at once.
        """
        heap = self._heap
        below = sum(heap[: index + 1]) / heap[BINS]
        before = below - heap[index] / heap[BINS]
        side = 1 if below > 1 - _TAIL else -1 if before < _TAIL and below < _LOW_TAIL else 0
        streak = self._streak
        jump = 0.0
        if side and streak * side > 0:
            self._streak = streak + side
            if abs(self._streak) >= (_ROW_UP if side > 0 else _ROW_DOWN):
                jump = 0.7 * error
                error *= 0.3
        else:
            self._streak = side
        return jump, min(max(error, -_LARGEST_ERROR), _LARGEST_ERROR)

    def _refresh(self) -> None:
        """Keep the weights small, and find the error beyond which there is as good as nothing."""
        heap = self._heap
        if self._weight > _HEAVIEST:
            shrink = 1.0 / self._weight
            self._heap = heap = [value * shrink for value in heap]
            self._weight = 1.0
        left = heap[BINS] * _UNSURE
        index = BINS - 1
        while index and left >= heap[index]:
            left -= heap[index]
            index -= 1
        self._surely = _LOWEST + (index + 1) / _PER_UNIT

    def export(self) -> dict[str, object]:
        """Return the cell as plain data for ``merge``; empty while nothing is known."""
        if self.level is None or not self.seen:
            return {}
        heap, weight = self._heap, self._weight
        return {
            "level": self.level,
            "seen": self.seen,
            "load": [self._load_mean, self._load_slope],
            "size": None if self._size_mean is None else [self._size_mean, self._size_slope],
            "shape": [round(value / weight, 4) for value in heap[:BINS]],
        }

    def merge(self, data: Mapping[str, object]) -> None:
        """Add what another cell has learned, exported by it, to what this one has.

        Each counts by its number of observations, up to ``MEMORY``. Both shapes are moved to the
        common level first, so no observation changes its place on the clock.

        Raises:
            ValueError: *data* is not the export of a cell; this one is then unchanged.

        """
        if not data:
            return
        other = Cell()
        other._restore(data)
        theirs = float(min(other.seen, MEMORY))
        mine = float(min(self.seen, MEMORY)) if self.level is not None else 0.0
        part = theirs / (mine + theirs)
        if other.level is None:  # pragma: no cover - a restored cell has one
            return
        load_mean = self._load_mean + part * (other._load_mean - self._load_mean)
        my_level = other.level if self.level is None else self.level
        my_level += self._load_slope * (load_mean - self._load_mean)
        their_level = other.level + other._load_slope * (load_mean - other._load_mean)
        if other._size_mean is not None:
            if self._size_mean is None:
                self._size_mean, self._size_slope = other._size_mean, other._size_slope
            size_mean = self._size_mean + part * (other._size_mean - self._size_mean)
            my_level += self._size_slope * (size_mean - self._size_mean)
            their_level += other._size_slope * (size_mean - other._size_mean)
            self._size_slope += part * (other._size_slope - self._size_slope)
            self._size_mean = size_mean
        level = my_level + part * (their_level - my_level)
        # What was only a guess gives way to what somebody has seen.
        shape = _moved(self._heap, my_level - level, 1.0 / self._weight if mine else 0.0)
        added = _moved(other._heap, their_level - level, 1.0)
        bins = [one + two for one, two in zip(shape, added, strict=True)]
        shrink = min(1.0, (MEMORY + PRIOR_WEIGHT) / sum(bins))
        bins = [value * shrink for value in bins]
        self._heap = [*bins, sum(bins)]
        self._weight = 1.0
        self._load_mean = load_mean
        self._load_slope += part * (other._load_slope - self._load_slope)
        self.level = level
        self.seen += other.seen
        self._streak = 0
        self._refresh()

    def _restore(self, data: Mapping[str, object]) -> None:
        seen = data.get("seen")
        if not isinstance(seen, int) or isinstance(seen, bool) or not 0 < seen < _HEAVIEST:
            raise ValueError("a cell's 'seen' is a number of observations")
        shape = _numbers(data.get("shape"), BINS, 0.0, 2.0 * MEMORY)
        total = sum(shape)
        if total <= 0.0:
            raise ValueError("a cell's 'shape' has no weight")
        (level,) = _numbers([data.get("level")], 1, -20.0, 20.0)
        load_mean, load_slope = _numbers(data.get("load"), 2, -_HIGHEST, _HIGHEST)
        size = data.get("size")
        if size is not None:
            self._size_mean, self._size_slope = _numbers(size, 2, -_HIGHEST, _HIGHEST)
            self._size_slope = min(max(self._size_slope, -_STEEPEST), _STEEPEST)
        self.level, self.seen = level, seen
        self._load_mean = load_mean
        self._load_slope = min(max(load_slope, -_STEEPEST), _STEEPEST)
        self._heap = [*shape, total]


_HIGHEST: Final = 50.0


def _numbers(values: object, count: int, least: float, most: float) -> list[float]:
    if not isinstance(values, list | tuple) or len(values) != count:
        raise ValueError(f"a cell wants {count} numbers here, not {values!r:.60}")
    numbers = []
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise ValueError(f"a cell wants numbers, not {value!r:.60}")
        if not least <= value <= most:
            raise ValueError(f"{value!r:.60} is not between {least} and {most}")
        numbers.append(float(value))
    return numbers


def _moved(heap: list[float], by: float, scale: float) -> list[float]:
    """Return the bins of *heap* times *scale*, moved *by*; what leaves stays in the last bin."""
    bins = [0.0] * BINS
    if not scale:
        return bins
    places = by * _PER_UNIT
    for index in range(BINS):
        place = index + places
        lower = int(place // 1)
        upper_share = place - lower
        weight = heap[index] * scale
        bins[min(max(lower, 0), BINS - 1)] += weight * (1.0 - upper_share)
        bins[min(max(lower + 1, 0), BINS - 1)] += weight * upper_share
    return bins
