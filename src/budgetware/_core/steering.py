"""Which way does one request take? Facts gathered, ``decide`` asked, the outcome taught back.

A ``Steering`` belongs to a route and tier, a ``Course`` to one of its requests. It is asked at the
beginning, and when a stage opens that has an alternative; nothing else decides. What a mode lets
happen is the door's affair: here every mode decides alike, so that shadow shows what enforce does.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import ClassVar, Final, Protocol

from budgetware._core.decide import (
    DEGRADED_WORTH,
    RUN,
    Action,
    Decision,
    Facts,
    Reason,
    decide,
    enough,
)
from budgetware._core.forecast import Forecast
from budgetware._core.outlook import RouteForecast
from budgetware._core.path import Passing, Path
from budgetware._core.policy import Mode, Plan
from budgetware._core.probe import Allowance, Permit, Probes
from budgetware._core.quota import DegradedQuota, LateQuota

FALLBACK_WORTH: Final = 0.7
"""What an answer made with a stage's own fallback is worth when nothing else is said."""

MOST_PASSINGS: Final = 128
"""Points of one request that the forecast learns from; a stage in a loop may have any number."""

ONCE_KNOWN: Final = "_tier"
"""The point at which a tier becomes known that was not known at the beginning."""

Told = Callable[[Decision], None]


class Foreseen(Protocol):
    """Hears how likely a request was thought to be in time, and what became of it."""

    def __call__(self, fits: float, *, late: bool) -> None:
        """See ``Steering``."""


class Traffic:
    """What all steered requests of a process share: how many there are now, and may be probes."""

    def __init__(self, forecast: Forecast, random: Callable[[], float]) -> None:
        self.forecast = forecast
        self.random = random
        self.allowance = Allowance()
        self.now = 0
        self._probes: dict[str, Probes] = {}
        # Re-entrant: the garbage collector may finish an abandoned request of the same thread.
        self._lock = threading.RLock()
        _after_fork.add(self)

    def probes_of(self, route: str) -> Probes:
        """Return the probes of *route*, which all its tiers share as they share its forecast."""
        with self._lock:
            found = self._probes.get(route)
            if found is None:
                found = self._probes[route] = Probes(self.allowance, self.random)
            return found

    def enter(self) -> int:
        """Count a request in; return how many there are with it."""
        with self._lock:
            self.now += 1
            return self.now

    def leave(self) -> None:
        """Count a request out."""
        with self._lock:
            self.now -= 1


class Steering:
    """The decisions of one route for one tier.

    Args:
        plan: What is promised.
        traffic: What all routes share.
        now_s: The clock.
        told: Hears of every decision that is not simply to go on.
        foreseen: Hears of every request that went its full way: how likely it was thought to be
            in time when it began, and whether it was late.

    Attributes:
        acts: Whether decisions are carried out, or only counted.
        plan: What is promised.
        quota: The share of smaller answers that is promised, ``None`` without such a promise.
        menu: What a door has found there is to answer with.
        forced: What every decision is, for tests; ``None`` in life.

    """

    forced: ClassVar[Action | None] = None

    __slots__ = (
        "_enough",
        "_forecast",
        "_foreseen",
        "_late",
        "_probes",
        "_told",
        "_traffic",
        "acts",
        "menu",
        "plan",
        "quota",
    )

    def __init__(
        self,
        plan: Plan,
        traffic: Traffic,
        now_s: float,
        told: Told,
        foreseen: Foreseen = lambda _fits, *, late: None,  # noqa: ARG005 - nobody listens
    ) -> None:
        self.plan = plan
        self.acts = plan.mode is Mode.ENFORCE
        self.menu: object = None
        self._traffic = traffic
        self._told = told
        self._foreseen = foreseen
        self._enough = enough(plan.late_worth, DEGRADED_WORTH)
        self._forecast: RouteForecast | None = traffic.forecast.of(plan.route, plan.stages, now_s)
        self._probes = traffic.probes_of(plan.route)
        self.quota = DegradedQuota(plan.degraded) if plan.degraded < 1.0 else None
        self._late = None if plan.max_late is None else LateQuota(plan.max_late)

    def enter(self, began_s: float) -> Course:
        """Begin the course of a request that has begun at *began_s*; ``Course.leave`` ends it."""
        self._traffic.allowance.earn()
        return Course(self, self._traffic.enter(), began_s)

    def spend(self) -> bool:
        """Take out one of the few works that may be done only to learn or to refresh."""
        return self._traffic.allowance.spend()

    def rationed(self, now_s: float) -> bool:
        """Tell whether the share of smaller answers is used up."""
        return self.quota is not None and self.quota.used_up(now_s)

    def _decide(self, course: Course, point: str | None, facts: Facts, now_s: float) -> Decision:
        forecast = self._forecast
        if Steering.forced is not None:
            decision = Decision(Steering.forced, Reason.FORCED)
            self._told(decision)
            return decision
        if forecast is None:
            return RUN
        load = course.load if point is None else self._traffic.now
        nth = course.pass_by(point, load, now_s)
        remaining_s = facts.remaining_s
        caution, enough_to_run = 0.0, self._enough
        if self._late is not None:
            caution = self._late.caution
            enough_to_run = enough(self.plan.late_worth, DEGRADED_WORTH + caution)
        if remaining_s > facts.answer_cost_s:
            fits = forecast.fits(point, remaining_s, load, None, nth)
            if point is None:
                course.foreseen = fits
            if fits >= enough_to_run:
                return RUN
        outlook = forecast.outlook(point, remaining_s, facts.answer_cost_s, load, now_s, None, nth)
        due = self.acts and not course.probing
        facts = facts._replace(
            fits=outlook.fits,
            seen=outlook.seen,
            leg_fits=outlook.leg_fits,
            leg_s=outlook.leg_s,
            rest_s=outlook.rest_s,
            load_effect=outlook.load_effect,
            late_worth=self.plan.late_worth,
            caution=caution,
            degraded_enough=self.rationed(now_s),
            probe_due=due and self._probes.due(point, now_s, outlook.quiet_s),
            probing=course.probing,
        )
        if facts.fallback_s is not None:
            left_s = remaining_s - facts.fallback_s
            facts = facts._replace(sequel_fits=forecast.sequel_fits(point, left_s, load, None, nth))
        decision = decide(facts)
        if facts.probe_due and decision.reason == "probe_due":
            behind = decision.action is Action.PROBE
            course.permit = self._probes.take(point, now_s, outlook.quiet_s, behind=behind)
            if course.permit is None:
                decision = decide(facts._replace(probe_due=False))
        self._told(decision)
        return decision

    def _left(self, course: Course, path: Path, *, full: bool, in_time: bool) -> None:
        self._traffic.leave()
        if self.quota is not None:
            self.quota.count(path.now_s, degraded=course.smaller or course.skipped is not None)
        if self._late is not None:
            self._late.count(late=not (course.smaller or in_time))
        if self._forecast is not None:
            if full:
                self._forecast.learn(path)
                if course.foreseen is not None:
                    self._foreseen(course.foreseen, late=not in_time)
            elif course.skipped is None:  # what was left out says nothing of what it takes
                self._forecast.learn_cut(path)
        if course.permit is not None:
            self._probes.settle(course.permit, good=full and in_time)
        elif full and in_time:
            for passing in path.passings:
                self._probes.proved(passing.point)


class Course:
    """The way of one request through its decisions.

    Attributes:
        load: How many requests there were when it began.
        permit: The right to be a probe, if it is one.
        smaller: Whether its client was sent something smaller.
        skipped: Why a stage was left out, ``None`` if none was.
        foreseen: The probability of being in time that was forecast at the beginning.
        answers: Whether there is a smaller answer to send.
        cost_s: Seconds that takes.
        raced: Whether the clock may still answer at any moment.

    """

    __slots__ = (
        "_began_s",
        "_counts",
        "_passings",
        "_steering",
        "answers",
        "cost_s",
        "foreseen",
        "left",
        "load",
        "permit",
        "raced",
        "skipped",
        "smaller",
    )

    def __init__(self, steering: Steering, load: int, began_s: float) -> None:
        self._steering = steering
        self._passings: list[tuple[str | None, float, int, object]] = []
        self._counts: dict[str | None, int] = {}
        self._began_s = began_s
        self.load = load
        self.permit: Permit | None = None
        self.smaller = False
        self.skipped: str | None = None
        self.foreseen: float | None = None
        self.left = False
        self.answers = False
        self.cost_s = 0.0
        self.raced = False

    @property
    def acts(self) -> bool:
        """Whether decisions are carried out."""
        return self._steering.acts

    @property
    def rationed(self) -> bool:
        """Whether the share of smaller answers is used up."""
        return self._steering.rationed(self._began_s)

    @property
    def probing(self) -> bool:
        """Whether the request is a probe."""
        return self.permit is not None

    def at(  # noqa: PLR0913 - the facts of one decision
        self,
        point: str | None,
        remaining_s: float,
        now_s: float,
        cost_s: float = 0.0,
        *,
        answers: bool = False,
        behind: bool = False,
        raced: bool = False,
        fallback_s: float | None = None,
        fallback_worth: float = FALLBACK_WORTH,
    ) -> Decision:
        """Return what to do at *point*.

        Args:
            point: The stage about to open, ``None`` before anything has run.
            remaining_s: Seconds left of the budget.
            now_s: The clock.
            cost_s: Seconds the smaller answer takes.
            answers: Whether there is a smaller answer to send.
            behind: Whether the work may go on behind it.
            raced: Whether the clock may still answer at any later moment.
            fallback_s: Seconds the stage's own fallback takes, ``None`` if it has none.
            fallback_worth: What an answer made with it is worth.

        """
        facts = Facts(
            remaining_s,
            self._steering.plan.limit_s,
            answer_cost_s=cost_s,
            has_answer=answers,
            behind=behind,
            fallback_s=fallback_s,
            fallback_worth=fallback_worth,
            raced=raced,
        )
        return self._steering._decide(self, point, facts, now_s)  # noqa: SLF001 - one file

    def spend(self) -> bool:
        """Take out one of the few works that may be done only to learn or to refresh."""
        return self._steering.spend()

    def under(self, steering: Steering) -> None:
        """Go on under the decisions of *steering*, for another tier of the same route."""
        self._steering = steering
        self.foreseen = None  # that was said of another promise

    def pause(self, waited_s: float) -> None:
        """Leave out *waited_s* seconds that have just been spent waiting for the client."""
        self._began_s += waited_s

    def pass_by(self, point: str | None, load: int, now_s: float) -> int:
        """Note that *point* was reached; return the how-manieth time."""
        if len(self._passings) < MOST_PASSINGS:
            self._passings.append((point, now_s - self._began_s, load, None))
        elif point not in self._counts:
            return 1
        nth = self._counts[point] = self._counts.get(point, 0) + 1
        return nth

    def opened(self, name: str, opening: object) -> None:
        """Note the *opening* of stage *name* that was decided on, to learn how long it took."""
        for index in range(len(self._passings) - 1, -1, -1):
            point, at_s, load, noted = self._passings[index]
            if point == name and noted is None:
                self._passings[index] = (point, at_s, load, opening)
                return

    def leave(self, now_s: float, *, full: bool) -> None:
        """End the course, once: *full* if the work was done to its end and nothing was left out."""
        if self.left:
            return
        self.left = True
        duration_s = now_s - self._began_s
        passings = [
            Passing(point, at_s, load, _open_s(stage))
            for point, at_s, load, stage in self._passings
        ]
        self._steering._left(  # noqa: SLF001 - one file
            self,
            Path(passings, duration_s, now_s),
            full=full and self.skipped is None,
            in_time=duration_s <= self._steering.plan.limit_s,
        )


def _open_s(stage: object) -> float | None:
    end, start = getattr(stage, "end", None), getattr(stage, "start", None)
    return None if end is None or start is None else end - start


_after_fork: weakref.WeakSet[Traffic] = weakref.WeakSet()


def _begin_anew() -> None:
    # The parent's requests are not the child's, and a thread of it may have held the lock.
    for traffic in _after_fork:
        traffic.now = 0
        traffic._lock = threading.RLock()  # noqa: SLF001 - the same file


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
