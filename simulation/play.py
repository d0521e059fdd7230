"""Plays the world of a seed, from its beginning to its end."""

from __future__ import annotations

import gc
import logging
import random
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final
from unittest.mock import patch

from budgetware._core import entrance
from budgetware._core.rate import Rates
from budgetware._core.steering import Steering
from budgetware.runtime import Runtime
from simulation.asgi_world import AsgiWorld
from simulation.world import MOST_IDENTITIES, Event, World
from simulation.wsgi_world import WsgiWorld

OF_THREADS: Final = 4
"""One world in so many is one of threads."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one world.

    Attributes:
        seed: Which world.
        broken: What did not hold.
        trace: What has happened, in order.
        met: How often what was met that a simulation is for.

    """

    seed: int
    broken: tuple[str, ...]
    trace: tuple[Event, ...]
    met: Mapping[str, int]


def play(seed: int) -> Verdict:
    """Play the world of *seed*."""
    with _alone(seed):
        world: World = WsgiWorld(seed) if seed % OF_THREADS == 0 else AsgiWorld(seed)
        world.run()
    return Verdict(seed, tuple(world.broken), tuple(world.trace), world.met)


@contextmanager
def _alone(seed: int) -> Iterator[None]:
    """Have what all worlds of a process share be this one's meanwhile."""
    replaced: tuple[tuple[object, str, object], ...] = (
        (logging.getLogger("budgetware"), "disabled", True),
        (Runtime, "_current", None),
        (Steering, "forced", None),
        # The table of 65,536 callers would be most of what a world costs.
        (entrance, "Rates", partial(Rates, MOST_IDENTITIES)),
    )
    drawn, collects = random.getstate(), gc.isenabled()
    random.seed(seed)
    gc.disable()  # when it runs depends on what was done before
    try:
        with ExitStack() as stack:
            for owner, name, value in replaced:
                stack.enter_context(patch.object(owner, name, value))
            yield
    finally:
        if collects:
            gc.enable()
        random.setstate(drawn)
