"""Which policy is in force? One of many, small enough for everything in it to be reached.

All durations are multiples of ``GRID_S``, so that things that have nothing to do with each other
fall into the same moment again and again.
"""

from __future__ import annotations

from random import Random
from typing import Final

from budgetware._core.policy import (
    Amount,
    CachePolicy,
    Clock,
    Match,
    Mode,
    Objectives,
    Policy,
    Route,
    StagePolicy,
    StaticAnswer,
    TierPolicy,
)

GRID_S: Final = 0.005

STATIC: Final = "in place of the full response"
ACCEPTED: Final = "accepted, and still at work"

STAGES: Final = ("db", "ml", "hub")

_ANSWERS: Final = (
    ("cached", "static"),
    ("cached", "fallback", "static"),
    ("cached",),
    ("fallback", "reject"),
    ("cached", "reject"),
    ("static",),
    ("reject",),
    (),
)


def grid(rng: Random, least: int, most: int) -> float:
    """Return a duration of *least* to *most* steps of the grid, in seconds."""
    return rng.randint(least, most) * GRID_S


def draw_policy(rng: Random, theme: str, *, threads: bool) -> Policy:
    """Return a policy.

    Args:
        rng: Draws it.
        theme: What happens in its world more often than elsewhere.
        threads: Whether it is for threads, which cannot be cancelled.

    """
    modes: tuple[Mode, ...] = (Mode.ENFORCE,) * 6
    if theme == "mixed":
        modes += (Mode.SHADOW, Mode.OBSERVE)
    names = ("free", "pro", "vip")[: rng.choice((0, 1, 1, 2, 3))]
    shares = rng.random() < 0.5
    tiers = {
        name: TierPolicy(
            budget=grid(rng, 4, 40) if rng.random() < 0.9 else None,
            rate=rng.choice((None, None, None, 1.0, 5.0, 50.0)),
            queue=rng.choice((None, grid(rng, 1, 30))),
            share=0.3 if shares and rng.random() < 0.7 else None,
            late_worth=rng.choice((0.0, -0.5, -1.0)),
            max_late_rate=rng.choice((None, None, 0.1)),
            mode=rng.choice((None, None, None, *modes[-2:])),
        )
        for name in names
    }
    return Policy(
        service=rng.choice(("", "trading")),
        mode=rng.choice(modes),
        concurrency=rng.choice((None, None, 1, 2, 3, 6)),
        tiers=tiers,
        routes={
            name: _draw_route(rng, name, theme, threads=threads)
            for name in ("mine", "ours", "write")
        },
        digest=f"{rng.getrandbits(32):08x}",
    )


def _draw_route(rng: Random, name: str, theme: str, *, threads: bool) -> Route:
    stages = {
        stage: StagePolicy(
            budget=Amount(grid(rng, 1, 10)) if rng.random() < 0.7 else None,
            optional=rng.random() < 0.3,
            calls=rng.choice((None, None, 2)),
            answers=rng.random() < 0.25,
        )
        for stage in STAGES
        if rng.random() < 0.6
    }
    unsafe = rng.random() < 0.3
    static = StaticAnswer(body=ACCEPTED, status=202) if unsafe else StaticAnswer(body=STATIC)
    answers = rng.choice(_ANSWERS[:3] if theme == "kept" else _ANSWERS)
    keeps = "cached" in answers
    return Route(
        name=name,
        match=(Match("*", f"/{name}/{{item}}"),),
        budget=grid(rng, 4, 40) if rng.random() < 0.6 else None,
        reserve=Amount(GRID_S) if rng.random() < 0.3 else None,
        stages=stages,
        clock=rng.choice((Clock.FIRST_BYTE, Clock.LAST_BYTE)),
        answers=answers,
        static=static if "static" in answers else None,
        cache=_draw_cache(rng, public=name == "ours") if keeps else None,
        objectives=Objectives(degraded=rng.choice((0.1, 0.5))) if rng.random() < 0.15 else None,
        cancel_safe=not threads and rng.random() < 0.4,
        times_unsafe=unsafe,
    )


def _draw_cache(rng: Random, *, public: bool) -> CachePolicy:
    return CachePolicy(
        fresh=rng.choice((0.05, 0.2, 1.0, 60.0)),
        stale=rng.choice((0.0, 0.1, 60.0)),
        vary=rng.choice(((), ("identity",), ("accept-language",), ("tier", "x-plan"))),
        public=public and rng.random() < 0.7,
    )
