"""Prices to work with: seeded random walks, the same at every start."""

from __future__ import annotations

import random
from typing import Final

SYMBOLS: Final = ("ACME", "BOLT", "CRUX", "DUNE", "ECHO", "FLUX", "GALE", "HELM")
HISTORY: Final = 64
"""Prices a signal is computed from."""


def walk(seed: int | str, length: int) -> list[float]:
    """Return *length* prices whose moves carry on a little, now calm and now lively."""
    rng = random.Random(seed)
    price, move, calm = 100.0, 0.0, 1.0
    prices = []
    for _ in range(length):
        calm = min(3.0, max(0.3, calm + rng.uniform(-0.1, 0.1)))
        move = 0.35 * move + rng.gauss(0.0, 0.004) * calm
        price = max(1.0, price * (1.0 + move))
        prices.append(round(price, 4))
    return prices
