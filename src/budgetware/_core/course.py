"""Which way does one request take? Facts gathered, ``decide`` asked, the outcome taught back.

A course is asked at the beginning, when the tier becomes known, and when a stage opens that has an
alternative; nothing else decides. What a mode lets happen is the door's affair: here every mode
decides alike, so that shadow shows what enforce does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from budgetware._core.decide import RUN, Action, Decision, Facts, Reason, decide
from budgetware._core.path import Path

if TYPE_CHECKING:
    from budgetware._core.outlook import RouteForecast
    from budgetware._core.probe import Permit
    from budgetware._core.steering import Steering

FALLBACK_WORTH: Final = 0.7
"""What an answer made with a stage's own fallback is worth when nothing else is said."""

MOST_PASSINGS: Final = 128
"""Points of one request that the forecast learns from; a stage in a loop may have any number."""

ONCE_KNOWN: Final = "_tier"
"""The point at which a tier becomes known that was not known at the beginning."""


_REDIRECTS: Final = range(300, 400)
_REFUSALS: Final = range(400, 500)

_ANSWERS: Final = frozenset({Action.ANSWER, Action.PROBE, Action.REJECT})
"""Actions that answer a request in place of the application."""


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
        size: Bytes of the request's body, ``None`` if nobody knows.

    """

    __slots__ = (
        "_began_s",
        "_counts",
        "_passings",
        "_responded_s",
        "_steering",
        "_would_answer",
        "answers",
        "cost_s",
        "foreseen",
        "left",
        "load",
        "permit",
        "raced",
        "size",
        "skipped",
        "smaller",
    )

    def __init__(self, steering: Steering, began_s: float) -> None:
        steering.traffic.allowance.earn()
        self._steering = steering
        self._passings: list[tuple[str | None, float, int, object]] = []
        self._counts: dict[str | None, int] = {}
        self._began_s = began_s
        self.load = steering.traffic.enter()
        self.permit: Permit | None = None
        self.smaller = False
        self.skipped: str | None = None
        self.foreseen: float | None = None
        self.left = False
        self.answers = False
        self.cost_s = 0.0
        self.raced = False
        self._responded_s: float | None = None
        self._would_answer = False
        self.size: float | None = None

    def spare_s(self, remaining_s: float) -> float:
        """Return the seconds until a smaller answer has to leave to be in time for its reserve.

        Args:
            remaining_s: What the request has left.

        """
        return remaining_s - self._steering.plan.reserve_s - self.cost_s

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
        steering = self._steering
        forecast = steering.forecast
        if steering.forced is not None:
            decision = Decision(steering.forced, Reason.FORCED)
            self._tell(decision)
            return decision
        if forecast is None:
            return RUN
        remaining_s -= steering.plan.reserve_s  # no stage may plan with it, nor do we
        at_s = now_s - self._began_s
        load = self.load if point is None else steering.traffic.now
        counts = self._counts
        nth = 1
        if len(self._passings) < MOST_PASSINGS:
            # A request that had to wait may pass its first point before it has begun.
            self._passings.append((point, max(0.0, at_s), load, None))
            nth = counts[point] = counts.get(point, 0) + 1
        elif point in counts:
            nth = counts[point] = counts[point] + 1
        if self._would_answer:
            return RUN
        if remaining_s > cost_s:
            # Nearly always that is all: the facts are not even gathered.
            fits = forecast.fits(point, remaining_s, load, self.size, nth)
            if point is None:
                self.foreseen = fits
            if fits >= steering.least_fits:
                return RUN
        facts = Facts(
            remaining_s,
            steering.plan.limit_s,
            answer_cost_s=cost_s,
            has_answer=answers,
            behind=behind,
            fallback_s=fallback_s,
            fallback_worth=fallback_worth,
            raced=raced,
        )
        return self._weighed(forecast, point, facts, load, nth, now_s)

    def _weighed(  # noqa: PLR0913, PLR0917 - what was found out already
        self,
        forecast: RouteForecast,
        point: str | None,
        facts: Facts,
        load: int,
        nth: int,
        now_s: float,
    ) -> Decision:
        """Return what to do at *point*, all facts considered, and tell of it."""
        steering, remaining_s = self._steering, facts.remaining_s
        cost_s, size = facts.answer_cost_s, self.size
        outlook = forecast.outlook(point, remaining_s, cost_s, load, now_s, size, nth)
        facts = facts._replace(
            fits=outlook.fits,
            seen=outlook.seen,
            leg_fits=outlook.leg_fits,
            leg_s=outlook.leg_s,
            rest_s=outlook.rest_s,
            load_effect=outlook.load_effect,
            late_worth=steering.plan.late_worth,
            caution=steering.caution(),
            degraded_enough=steering.rationed(now_s),
            probe_due=self._may_probe(point, now_s, outlook.quiet_s),
            probing=self.probing,
        )
        if facts.fallback_s is not None:
            left_s = remaining_s - facts.fallback_s
            facts = facts._replace(sequel_fits=forecast.sequel_fits(point, left_s, load, size, nth))
        decision = decide(facts)
        if facts.probe_due and decision.reason is Reason.PROBE_DUE:
            behind = decision.action is Action.PROBE
            self.permit = steering.probes.take(point, now_s, outlook.quiet_s, behind=behind)
            if self.permit is None:
                decision = decide(facts._replace(probe_due=False))
        self._tell(decision)
        return decision

    def _tell(self, decision: Decision) -> None:
        """Tell of *decision*; in shadow a request that would be answered is told of no more."""
        if self._would_answer:
            return
        self._would_answer = not self._steering.acts and decision.action in _ANSWERS
        self._steering.told(decision)

    def wait_until(self, began_s: float) -> None:
        """Let the course begin at *began_s*: the time of waiting is not the service's."""
        self._began_s = began_s

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

    def opened(self, name: str, opening: object) -> None:
        """Note the *opening* of stage *name* that was decided on, to learn how long it took."""
        for index in range(len(self._passings) - 1, -1, -1):
            point, at_s, load, noted = self._passings[index]
            if point == name and noted is None:
                self._passings[index] = (point, at_s, load, opening)
                return

    def responds(self, now_s: float) -> None:
        """Note that the application begins its response; from here on nobody answers for it."""
        self._responded_s = now_s - self._began_s

    def deadline(self) -> None:
        """Tell that the clock answers, or would in a mode that acts."""
        self._tell(Decision(Action.ANSWER, Reason.DEADLINE))

    def leave(
        self,
        now_s: float,
        *,
        full: bool,
        status: int = 200,
    ) -> None:
        """End the course, once.

        Args:
            now_s: The clock.
            full: Whether the work was done to its end and nothing was left out.
            status: What the application has answered. One that has refused the request (a 4xx), or
                has sent its caller elsewhere where it serves others (a 3xx, to a login page), may
                take no time at all and says little of what full work takes.

        """
        if self.left:
            return
        self.left = True
        steering = self._steering
        refused = status in _REFUSALS
        if status in _REDIRECTS:
            refused = steering.redirects()
        elif full and not refused:
            steering.serves = True
        steering.traffic.leave()
        duration_s = now_s - self._began_s
        self._look_back(duration_s)
        passings = [
            (point, at_s, load, None if stage is None else _open_s(stage))
            for point, at_s, load, stage in self._passings
        ]
        path = Path(passings, duration_s, now_s, self.size)
        in_time = duration_s <= steering.plan.limit_s
        smaller = self.smaller or self._would_answer
        degraded = smaller or self.skipped is not None
        full = full and self.skipped is None
        steering.count(now_s, degraded=degraded, late=not (smaller or in_time))
        if refused:
            full = False
            if steering.forecast is not None:
                steering.forecast.learn_refusal(path)
        else:
            self._teach(path, full=full, in_time=in_time)
        if self.permit is not None:
            steering.probes.settle(self.permit, good=None if refused else full and in_time)
        elif full and in_time:
            for point, _, _, _ in path.passings:
                steering.probes.proved(point)

    def abandon(self) -> None:
        """End the course of a request that nobody knows the length of: it teaches nothing."""
        if not self.left:
            self.left = True
            self._steering.traffic.leave()
            if self.permit is not None:
                self._steering.probes.settle(self.permit, good=None)

    def _look_back(self, duration_s: float) -> None:
        """Tell of the answer the clock would have sent, where decisions are only counted."""
        if self.acts or not self.raced or self.rationed:
            return
        responded_s = duration_s if self._responded_s is None else self._responded_s
        if self.spare_s(self._steering.plan.limit_s - responded_s) < 0:
            self.deadline()

    def _may_probe(self, point: str | None, now_s: float, quiet_s: float) -> bool:
        steering = self._steering
        return steering.acts and not self.probing and steering.probes.due(point, now_s, quiet_s)

    def _teach(self, path: Path, *, full: bool, in_time: bool) -> None:
        steering = self._steering
        forecast = steering.forecast
        if forecast is None:
            return
        if full:
            forecast.learn(path, legs=not self.raced)
            if self.foreseen is not None:
                steering.foreseen(self.foreseen, late=not in_time)
        elif self.skipped is None:  # what was left out says nothing of what it takes
            forecast.learn_cut(path, legs=not self.raced)


def _open_s(stage: object) -> float | None:
    end, start = getattr(stage, "end", None), getattr(stage, "start", None)
    return None if end is None or start is None else end - start
