"""The ``ml`` stage: a nearest-neighbour model, trained at start and asked in plain Python."""

from __future__ import annotations

import heapq
import math
import statistics
from collections.abc import Sequence
from itertools import pairwise
from operator import itemgetter
from typing import Final, NamedTuple

from examples.fastapi_app.market import HISTORY, walk

EXAMPLES: Final = 8000
NEIGHBOURS: Final = 31
_TRAINING_SEED: Final = 30
_LIVELY: Final = 0.006


class Features(NamedTuple):
    """What the model looks at; all are plain ratios."""

    momentum: float
    trend: float
    volatility: float
    stretch: float
    last_move: float

    @property
    def lively(self) -> bool:
        """Whether the market moves enough for a prediction to be worth its time."""
        return abs(self.momentum) > _LIVELY


def features_of(prices: Sequence[float]) -> Features:
    """Turn the latest prices, oldest first, into what the model looks at."""
    moves = [after / before - 1.0 for before, after in pairwise(prices)]
    average = statistics.fmean(prices)
    spread = math.sqrt(statistics.fmean((price - average) ** 2 for price in prices))
    return Features(
        momentum=sum(moves[-4:]),
        trend=sum(moves[-16:]),
        volatility=math.sqrt(statistics.fmean(move * move for move in moves)),
        stretch=(prices[-1] - average) / spread if spread else 0.0,
        last_move=moves[-1],
    )


class Model:
    """Answers how often prices rose next in the most similar situations it has seen.

    Args:
        situations: What was seen.
        rose: Whether the price rose next, for each of them.

    """

    def __init__(self, situations: Sequence[Features], rose: Sequence[bool]) -> None:
        columns = list(zip(*situations, strict=True))
        self._means = [statistics.fmean(column) for column in columns]
        self._scales = [statistics.pstdev(column) or 1.0 for column in columns]
        self._seen = [(self._scaled(one), up) for one, up in zip(situations, rose, strict=True)]

    @classmethod
    def trained(cls) -> Model:
        """Return a model that has watched one long seeded random walk."""
        prices = walk(_TRAINING_SEED, EXAMPLES + HISTORY + 1)
        windows = [prices[start : start + HISTORY + 1] for start in range(EXAMPLES)]
        return cls(
            [features_of(window[:-1]) for window in windows],
            [window[-1] > window[-2] for window in windows],
        )

    def chance_of_rise(self, features: Features) -> float:
        """Return the share of the nearest neighbours after which the price rose."""
        here = self._scaled(features)
        distances = ((math.dist(here, there), up) for there, up in self._seen)
        nearest = heapq.nsmallest(NEIGHBOURS, distances, key=itemgetter(0))
        return statistics.fmean(up for _, up in nearest)

    def _scaled(self, features: Features) -> tuple[float, ...]:
        return tuple(
            (value - mean) / scale
            for value, mean, scale in zip(features, self._means, self._scales, strict=True)
        )
