"""Which way did a request go, and what is known along it? The forecast's words, in and out.

A request passes points: its beginning, and the openings of stages that have an alternative. What
it has passed is what the forecast learns from; an outlook is what it says at one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Final, NamedTuple

Key = str | None | tuple[str, int]
"""A point: ``None`` is the beginning; a name, the stage's first opening; or a later opening."""


class Passing(NamedTuple):
    """A point that a request has passed.

    Attributes:
        point: The stage about to open, ``None`` for the beginning.
        at_s: Seconds after the beginning.
        load: Requests in flight at that moment.
        stage_s: Seconds the stage was then open, ``None`` if that is not known.

    """

    point: str | None
    at_s: float
    load: int
    stage_s: float | None = None


class Path(NamedTuple):
    """The way of one request.

    Attributes:
        passings: The points it has passed, in order; a plain tuple of the four is cheaper to make.
        duration_s: Seconds from its beginning to its end.
        now_s: The clock at its end.
        size: The payload's size in whatever unit is always the same, ``None`` if it is unknown.

    """

    passings: Sequence[Passing | tuple[str | None, float, int, float | None]]
    duration_s: float
    now_s: float
    size: float | None = None


class Outlook(NamedTuple):
    """All that is known at a point.

    Attributes:
        fits: The probability that the rest fits in what remains.
        leg_fits: The probability that the next point is reached in time to answer there;
            ``None`` when no next point is known.
        leg_s: Seconds a leg usually takes; 0 without one.
        rest_s: Seconds the rest usually takes.
        load_effect: How much longer than usual the load makes the rest, as a logarithm.
        seen: Full requests this is based on.
        quiet_s: Seconds since the latest of them was here.

    """

    fits: float
    leg_fits: float | None
    leg_s: float
    rest_s: float
    load_effect: float
    seen: int
    quiet_s: float


UNKNOWN: Final = Outlook(1.0, None, 0.0, 0.0, 0.0, 0, inf)
"""What is known where nothing was learned."""
