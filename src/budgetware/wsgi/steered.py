"""A WSGI request that may be answered with something smaller: at once, or on its way.

A thread that is at work cannot be overtaken by another answer, so there are these two ways only,
and both end before the application has begun its response. An application may begin it as late as
in the first step of its body.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from random import random
from typing import TYPE_CHECKING, Any, Final

from budgetware._core.account import skipped
from budgetware._core.alternative import Gated
from budgetware._core.course import ONCE_KNOWN, Course
from budgetware._core.current import current_budget
from budgetware._core.decide import Action, Decision
from budgetware._core.interrupt import AnswerNow, turn_of
from budgetware.answers.answer import marked_as_they_are, marked_partial
from budgetware.answers.facts import size_of
from budgetware.answers.menu import Work, refusal
from budgetware.answers.rejection import LAST_RESORT
from budgetware.errors import BudgetwareError
from budgetware.http import SERVER_ERROR, WITH_BODY
from budgetware.wsgi.exchange import Exchange, TimedExchange, leave
from budgetware.wsgi.headers import as_bytes, as_text
from budgetware.wsgi.smaller import Smaller, start_of

if TYPE_CHECKING:
    from budgetware._core.budget import Budget
    from budgetware._core.lane import Lane
    from budgetware._core.steering import Steering
    from budgetware.answers.answer import Answer
    from budgetware.answers.facts import RequestFacts
    from budgetware.answers.menu import ThreadMenu
    from budgetware.wsgi.exchange import ExcInfo, Lines, Write
    from budgetware.wsgi.keeping import Keeping

_SMALLER: Final = frozenset({Action.ANSWER, Action.REJECT, Action.PROBE})

MenuOf = Callable[["Steering"], "ThreadMenu"]


class TurnedTooLate(BudgetwareError):  # noqa: N818 - named for what it tells the reader
    """The application asked for something smaller when its response had begun.

    ``budget.degrade`` does nothing then; this is for an application that held on to what it has
    raised before, or that met with another request's. Servers take it as they take any failure of
    an application; what was raised would end the worker.
    """


class SteeredExchange(Exchange):
    """One request, and what its client may be sent in place of the full response.

    Attributes:
        menu: What there is to answer with, ``None`` where nothing is decided.
        menu_of: Returns the menu of a tier that becomes known on the way.
        asked: What it is about.
        environ: What the application's own fallback is given.
        given: What the client was sent, ``None`` if that is the application's.
        keeping: Takes note of the application's response.
        timed_answer: Whether the response tells where the time went.

    """

    __slots__ = (
        "asked",
        "environ",
        "given",
        "keeping",
        "menu",
        "menu_of",
        "timed_answer",
    )

    goes_on = True

    menu: ThreadMenu | None
    menu_of: MenuOf
    asked: RequestFacts
    environ: dict[str, Any]
    given: Answer | None
    keeping: Keeping
    timed_answer: bool

    def prepare(
        self, environ: dict[str, Any], asked: RequestFacts, menu_of: MenuOf, keeping: Keeping
    ) -> None:
        """Make ready for the application."""
        self.environ = environ
        self.asked = asked
        self.menu_of = menu_of
        self.keeping = keeping
        self.menu = self.given = None

    def embark(self, steering: Steering) -> None:
        """Begin the course of a request that is decided on."""
        try:
            course = self.course = Course(steering, self.start)
            if hasattr(self, "visit") and self.visit.waited:
                course.wait_until(self.clock())
            self._take_menu(steering)
        except Exception as error:  # noqa: BLE001 - it is measured, and nothing is decided
            self.engine.fault("embark", error)
            self.menu = None

    @property
    def begun(self) -> bool:
        """Whether the client was sent anything, the application's or ours."""
        return self.given is not None or hasattr(self, "status")

    def at_once(self) -> Smaller | None:
        """Start a smaller answer if that is what to do before anything has run."""
        try:
            if self.menu is None:
                return None
            decision = self._is_smaller(self._decision(None))
        except Exception as error:  # noqa: BLE001 - the application answers
            self.engine.fault("decide", error)
            return None
        return None if decision is None else self.answer(decision.reason, Work.NOT_BEGUN)

    def replan(self, lane: Lane) -> None:
        """Go on under the promise of *lane*, and decide again while there is something to decide.

        Raises:
            AnswerNow: Under that promise it is better answered with something smaller.

        """
        self.lane = lane
        if self.begun or self.end is not None:
            if lane.plan.tier != self.asked.tier:
                self.keeping.give_up()  # it would be kept for the callers of the tier before
            return
        try:
            smaller = self._is_smaller(self._replanned(lane))
        except Exception as error:  # noqa: BLE001 - called by the application, which must not notice
            self.keeping.give_up()
            self.engine.fault("replan", error)
            return
        if smaller is not None:
            raise AnswerNow(self, smaller.reason)

    def has_body(self) -> None:
        """Note that the request has brought a body with it that nothing had announced."""
        if not self.asked.has_body:
            self.asked = replace(self.asked, has_body=True)
            self.keeping.give_up()

    def turned(self, error: BaseException, outer: Budget | None) -> Smaller | None:
        """Start a smaller answer if *error*, which has left the application, asks for one.

        Args:
            error: Whatever it is.
            outer: The budget around this one, of a door around this one.

        Returns:
            The answer's body; ``None`` for an error that is the application's own.

        Raises:
            TurnedTooLate: It asks for one when there is nothing left to be answered.

        """
        turn = turn_of(error, self)
        if turn is not None and not self.begun:
            self.keeping.broke_off(self)
            smaller = self.answer(turn.reason, Work.GIVEN_UP, always=True)
            if smaller is not None:
                return smaller
        late = self.stray(error, outer)
        if late is None:
            return None
        self.raised(late)
        raise late from error

    def stray(self, error: BaseException, outer: Budget | None) -> TurnedTooLate | None:
        """Return what to raise in place of *error* if it asks for an answer nobody can give."""
        mine = turn_of(error, self) is not None
        if not mine and (outer is not None or not _turns(error)):
            return None  # the application's own, or for the door around this one
        return TurnedTooLate(
            "there is nothing left to answer" if mine else "it was another request's to be answered"
        )

    def answer(self, reason: str, work: Work, *, always: bool = False) -> Smaller | None:
        """Start a smaller answer, if there is one and nobody has begun to answer.

        Args:
            reason: Why.
            work: What the application is doing.
            always: Whether to say no when there is nothing else.

        """
        token = current_budget.set(self)
        try:
            answer = self._chosen(reason, work)
        finally:
            leave(token)
        if answer is None and always:
            answer = self._refusal(work)
        return None if answer is None or self.begun else self.begin_smaller(answer, reason)

    def begin_smaller(self, answer: Answer, reason: str) -> Smaller:
        """Start *answer*, for *reason*, in place of the full response; counted as it begins.

        Raises:
            Exception: What the server has raised; the account is finished.

        """
        status, headers = start_of(answer)
        body = b"" if self.asked.method == "HEAD" else answer.body
        self.given = answer
        course = getattr(self, "course", None)
        if course is not None:
            course.smaller = True
        try:
            record = self.engine.answered(self, answer.kind, reason, answer.status)
        except Exception as error:  # noqa: BLE001 - a fault of ours must not lose the answer
            self.engine.fault("answered", error)
            record = None
        smaller = Smaller(self, record, body)
        try:
            forward = self.forward
            forward(status, headers)
        except BaseException as error:
            self.raised(error)
            smaller.close()
            raise
        finally:
            self.finish()
        return smaller

    def idle(self) -> None:
        """Note that the client is waited for: others may have the slot until ``resumed``."""
        try:
            if hasattr(self, "visit"):
                self.visit.idle()
        except Exception as error:  # noqa: BLE001 - a fault of ours must not end the response
            self.engine.fault("admission", error)

    def resumed(self) -> None:
        """Note that the request goes on."""
        try:
            if hasattr(self, "visit"):
                self.visit.resume()
        except Exception as error:  # noqa: BLE001 - likewise
            self.engine.fault("admission", error)

    def wait(self, part: bytes = b"") -> float:
        """Return when the server's time for *part* begins; meanwhile the slot may be lent."""
        self.idle()
        return Exchange.wait(self, part)

    def resume(self, since: float) -> None:
        """Leave out the time the server has spent on the client *since*, and go on."""
        self.resumed()
        Exchange.resume(self, since)

    def start_response(
        self,
        status: str,
        headers: Iterable[tuple[str, str]],
        *exc_info: ExcInfo | None,
        **named: Any,
    ) -> Write:
        """Pass the start of the response on, unless its client has had an answer."""
        if self.given is not None:
            return _nowhere
        lines = headers if isinstance(headers, list | tuple) else list(headers)
        kind = TimedExchange if self.timed_answer else Exchange
        before = getattr(self, "status", None)
        sent = self._marked(lines)
        try:
            write = kind.start_response(self, status, sent, *exc_info, **named)
        except BaseException:
            self.status = before  # the server goes on with what it has begun, if anything
            raise
        self.keeping.begin(self, status, lines)
        return functools.partial(_write, self, write)

    def _marked(self, headers: Lines) -> Lines:
        """Return the lines of the response as they leave: marked if a stage was left out."""
        try:
            self.status = None  # from here on nothing is left out any more
            if skipped(self) is not None:
                headers = self._partial(headers)
        except Exception as error:  # noqa: BLE001 - a fault of ours must not lose the response
            self.engine.fault("mark", error)
        return headers

    def _partial(self, headers: Lines) -> Lines:
        try:
            return as_text(marked_partial(as_bytes(headers)))
        except Exception as error:  # noqa: BLE001 - some servers take what is no text
            self.engine.fault("mark", error)
        kept, ours = marked_as_they_are(headers)
        return kept + as_text(ours)

    def ready(self, body: Sequence[bytes]) -> None:
        """End the budget, and keep the response if it is to be kept."""
        self.last()
        for part in body:
            self.keeping.add(self, part)
        self.whole()
        if hasattr(self, "untold"):
            self.idle()  # until the server closes it
        else:
            self.finish()

    def whole(self) -> None:
        """Note that all parts of the response were handed over; some servers forget to close it."""
        self.keeping.end(self)
        self._leave(full=True)

    def finish(self) -> None:
        """Finish the account, and teach the forecast what the whole way was like."""
        if self.given is None:
            Exchange.finish(self)
        else:
            try:
                self.engine.outlived(self)
            except Exception as error:  # noqa: BLE001 - a fault of ours must not end the response
                self.engine.fault("outlived", error)
        self._leave(full=self.keeping.whole)
        try:
            if hasattr(self, "visit"):
                self.visit.leave()
        except Exception as error:  # noqa: BLE001 - the outcome is the application's
            self.engine.fault("admission", error)

    def _leave(self, *, full: bool) -> None:
        course = getattr(self, "course", None)
        if course is None:
            return
        try:
            status = getattr(self, "status", None) or SERVER_ERROR
            clock = self.clock
            ended = clock() if self.end is None else self.end
            full = full and status < SERVER_ERROR and not hasattr(self, "error")
            course.leave(ended, full=full, status=status)
        except Exception as error:  # noqa: BLE001 - a fault of ours must not replace the outcome
            self.engine.fault("leave", error)
            course.abandon()

    def _chosen(self, reason: str, work: Work) -> Answer | None:
        menu, clock = self.menu, self.clock
        if menu is None:
            return None
        try:
            return menu.choose(self.asked, self.environ, self.remaining(), clock(), reason, work)
        except Exception as error:  # noqa: BLE001 - there may still be something else to say
            self.engine.fault("answer", error)
            return None

    def _refusal(self, work: Work) -> Answer:
        try:
            return refusal(work, self.asked.method, random)
        except Exception as error:  # noqa: BLE001 - something has to be said
            self.engine.fault("answer", error)
            return LAST_RESORT

    def _take_menu(self, steering: Steering) -> None:
        course, menu = self.course, self.menu_of(steering)
        course.answers = menu.offers(self.asked.method)
        course.cost_s = menu.cost_s
        if self.asked.method in WITH_BODY:
            course.size = size_of(self.asked)
        self.menu = menu

    def _replanned(self, lane: Lane) -> Decision | None:
        """Return what to do under the promise of *lane*, ``None`` if nothing is decided there."""
        steering = lane.steering
        self.asked = replace(self.asked, tier=lane.plan.tier)
        if steering is None:
            self.menu = None
            self._leave(full=False)
            return None
        before = getattr(self, "course", None)
        if before is not None and not before.left:
            before.under(steering)
        else:
            course = self.course = Course(steering, self.start)
            if before is not None:
                course.skipped = before.skipped
        self._take_menu(steering)
        return self._decision(ONCE_KNOWN)

    def _is_smaller(self, decision: Decision | None) -> Decision | None:
        """Return *decision* if it is carried out, and is to answer with something smaller."""
        acts = decision is not None and self.course.acts and decision.action in _SMALLER
        return decision if acts else None

    def _decision(self, point: str | None) -> Decision:
        course, clock = self.course, self.clock
        return course.at(point, self.remaining(), clock(), course.cost_s, answers=course.answers)


class GatedExchange(Gated, SteeredExchange):
    """The same on a route with stages at whose opening the request may be answered."""

    __slots__ = ()


def _write(exchange: SteeredExchange, write: Write, data: bytes) -> object:
    exchange.keeping.give_up()  # a body that comes in two ways is not put together
    return write(data)


def _nowhere(_: bytes) -> None:
    """Take the place of writing to a client that was answered."""


def _turns(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(AnswerNow) is not None
    return isinstance(error, AnswerNow)
