"""How are durations spread? Their counts by bucket, with sum and extremes.

Adding many at a time is several times cheaper than a bucket search for each.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from math import inf


class Distribution:
    """Counts of durations by bucket, with their sum and extremes; upper bounds are inclusive.

    Attributes:
        bounds: The buckets' upper bounds in seconds.
        counts: Values per bucket, one more than there are bounds.
        count: All values.
        total: Their sum.

    """

    __slots__ = (
        "_ever",
        "_least",
        "_most",
        "_narrow",
        "bounds",
        "count",
        "counts",
        "total",
    )

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.count = 0
        self.total = 0.0
        self._least, self._most = inf, -inf
        self._ever = (inf, -inf)
        self._narrow = True

    def add(self, values: list[float], *, ordered: bool = False) -> None:
        """Add *values*, which are *ordered*, or may be in another order afterwards.

        A duration by a clock that has gone back is none.
        """
        if not values:
            return
        # What was all in one bucket the last time will most likely be so again, as stages of less
        # than a millisecond are. To find that out takes half as long as to sort.
        narrow, bounds = self._narrow and not ordered, self.bounds
        if not (narrow or ordered):
            values.sort()
        least, most = (min(values), max(values)) if narrow else (values[0], values[-1])
        if least < 0:
            values = [max(0.0, value) for value in values]
            least, most = 0.0, max(0.0, most)
        self.count += len(values)
        self.total += sum(values)
        self._least = min(self._least, least)
        self._most = max(self._most, most)
        index = bisect_left(bounds, least)
        self._narrow = index == len(bounds) or most <= bounds[index]
        if self._narrow:
            self.counts[index] += len(values)
            return
        if narrow:
            values.sort()
        self._spread(values, index)

    def _spread(self, values: list[float], index: int) -> None:
        """Count *values*, which are sorted, from bucket *index* on."""
        # Each bucket that is not empty costs one bisection.
        bounds, counts, below = self.bounds, self.counts, 0
        while below < len(values):
            reached = len(values)
            if index < len(bounds) and bounds[index] < values[-1]:
                reached = bisect_right(values, bounds[index], below)
            counts[index] += reached - below
            below = reached
            index += 1

    @property
    def least(self) -> float:
        """The smallest value, ``inf`` without any."""
        return min(self._ever[0], self._least)

    @property
    def most(self) -> float:
        """The largest value, ``-inf`` without any."""
        return max(self._ever[1], self._most)

    def latest(self) -> tuple[float, float]:
        """Return the extremes since this was last asked, and begin anew."""
        self._ever = self.least, self.most
        extremes = self._least, self._most
        self._least, self._most = inf, -inf
        return extremes
