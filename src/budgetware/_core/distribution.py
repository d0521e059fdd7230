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
        least: The smallest.
        most: The largest.

    """

    __slots__ = ("_latest", "_narrow", "bounds", "count", "counts", "least", "most", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.count = 0
        self.total = 0.0
        self.least = inf
        self.most = -inf
        self._latest = (inf, -inf)
        self._narrow = True

    def add(self, values: list[float]) -> None:
        """Add *values*; they may be in another order afterwards."""
        if not values:
            return
        # What was all in one bucket the last time will most likely be so again, as stages of less
        # than a millisecond are. To find that out takes half as long as to sort.
        narrow, bounds = self._narrow, self.bounds
        if not narrow:
            values.sort()
        least, most = (min(values), max(values)) if narrow else (values[0], values[-1])
        self.count += len(values)
        self.total += sum(values)
        self.least = min(self.least, least)
        self.most = max(self.most, most)
        latest = self._latest
        self._latest = (min(latest[0], least), max(latest[1], most))
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

    def latest(self) -> tuple[float, float]:
        """Return the extremes since this was last asked, and begin anew."""
        extremes, self._latest = self._latest, (inf, -inf)
        return extremes
