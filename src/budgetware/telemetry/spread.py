"""A distribution of durations at one instant: counts per bucket, and what can be done with them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from budgetware._core.distribution import Distribution

Extremes = tuple[float, float]
"""The smallest and the largest of some values; ``NO_EXTREMES`` of none."""

NO_EXTREMES: Extremes = (inf, -inf)


def wider(one: Extremes, other: Extremes) -> Extremes:
    """Return the extremes of two sets of values together."""
    return min(one[0], other[0]), max(one[1], other[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The totals of one series.

    Attributes:
        bounds: The buckets' upper bounds in seconds, inclusive.
        counts: Values per bucket, one more than there are bounds.
        count: All values.
        total: Their sum in seconds.
        extremes: The smallest and the largest of them.
        latest: The extremes of those that came since the last instant.

    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    count: int
    total: float
    extremes: Extremes
    latest: Extremes = NO_EXTREMES

    @classmethod
    def of(cls, durations: Distribution) -> Self:
        """Return what *durations* has now; the caller holds the lock of its tally."""
        return cls(
            bounds=durations.bounds,
            counts=tuple(durations.counts),
            count=durations.count,
            total=durations.total,
            extremes=(durations.least, durations.most),
            latest=durations.latest(),
        )

    def coarsened(self, bounds: tuple[float, ...]) -> Spread:
        """Return the same values in fewer buckets; every one of *bounds* is one of its own."""
        if bounds == self.bounds:
            return self
        kept = set(bounds)
        counts, collected = [], 0
        for bound, count in zip((*self.bounds, None), self.counts, strict=True):
            collected += count
            if bound is None or bound in kept:
                counts.append(collected)
                collected = 0
        return replace(self, bounds=bounds, counts=tuple(counts))

    def plus(self, other: Spread) -> Spread:
        """Return both together, in the buckets they have in common."""
        mine, theirs = _alike(self, other)
        return Spread(
            bounds=mine.bounds,
            counts=tuple(a + b for a, b in zip(mine.counts, theirs.counts, strict=True)),
            count=self.count + other.count,
            total=self.total + other.total,
            extremes=wider(self.extremes, other.extremes),
            latest=wider(self.latest, other.latest),
        )

    def since(self, earlier: Spread, extremes: Extremes) -> Spread:
        """Return what was added since *earlier*, with the given extremes of it."""
        mine, theirs = _alike(self, earlier)
        return Spread(
            bounds=mine.bounds,
            counts=tuple(a - b for a, b in zip(mine.counts, theirs.counts, strict=True)),
            count=self.count - earlier.count,
            total=self.total - earlier.total,
            extremes=extremes,
        )

    def settled(self) -> Spread:
        """Return the same totals with nothing left that is recent."""
        return replace(self, latest=NO_EXTREMES)


def _alike(one: Spread, other: Spread) -> tuple[Spread, Spread]:
    if one.bounds == other.bounds:
        return one, other
    common = tuple(bound for bound in one.bounds if bound in set(other.bounds))
    return one.coarsened(common), other.coarsened(common)
