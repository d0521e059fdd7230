"""A request that may be answered with something smaller: at once, on its way, or by the clock.

The application's call runs in the caller's task to its end whatever the client was sent: what it
still finds out refreshes the cache and teaches the forecast. Whoever begins the response first,
the application or we, has the client; nothing of the other reaches it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from budgetware._core.account import skipped
from budgetware._core.alternative import Gated, turning
from budgetware._core.course import ONCE_KNOWN, Course
from budgetware._core.decide import Action, Decision
from budgetware._core.interrupt import turn_of
from budgetware.answers.answer import marked_as_they_are, marked_partial
from budgetware.answers.facts import size_of
from budgetware.answers.menu import Work
from budgetware.asgi.answering import AnsweringExchange
from budgetware.asgi.behind import dropped, patient, report
from budgetware.asgi.exchange import Exchange, Message, Receive, Scope, TimedExchange
from budgetware.asgi.keeping import Keeping
from budgetware.asgi.race import Race
from budgetware.http import SAFE_METHODS, SERVER_ERROR, WITH_BODY

if TYPE_CHECKING:
    from budgetware._core.lane import Lane
    from budgetware._core.steering import Steering
    from budgetware.answers.facts import RequestFacts
    from budgetware.answers.menu import Menu
    from budgetware.asgi.exchange import ASGIApp

_SMALLER: Final = frozenset({Action.ANSWER, Action.PROBE, Action.REJECT})

MenuOf = Callable[["Steering"], "Menu"]


class SteeredExchange(AnsweringExchange):
    """One request, and what its client may be sent in place of the full response.

    Attributes:
        menu_of: Returns the menu of a tier that becomes known on the way.
        keeping: Takes note of the application's response.
        shields: One for each shield that is held, and each wait for the client.
        receives: How many waits for the request's body there are.
        race: The clock's side, ``None`` where there is no asyncio loop.
        timed_answer: Whether the response tells where the time went.

    """

    __slots__ = (
        "keeping",
        "menu_of",
        "race",
        "receives",
        "shields",
        "timed_answer",
    )

    menu_of: MenuOf
    keeping: Keeping
    shields: list[None]
    receives: int
    race: Race | None
    timed_answer: bool

    def prepare(self, scope: Scope, asked: RequestFacts, menu_of: MenuOf, keeping: Keeping) -> None:
        """Make ready for the first message."""
        self.scope = scope
        self.asked = asked
        self.menu_of = menu_of
        self.keeping = keeping
        self.shields = []
        self.receives = 0
        self.menu = self.given = self.race = self.turned = None
        self.begun = self.is_over = False

    def embark(self, steering: Steering) -> None:
        """Begin the course of a request that is decided on."""
        self.course = Course(steering, self.start)
        try:
            self._take_menu(steering)
        except Exception:
            self._leave(full=False)
            raise

    def replan(self, lane: Lane) -> None:
        """Go on under the promise of *lane*, and decide again while there is something to decide.

        Raises:
            AnswerNow: Under that promise it is better answered with something smaller.

        """
        self.lane = lane
        if self.begun or self.given is not None or self.end is not None:
            if lane.plan.tier != self.asked.tier:
                self.keeping.give_up()  # it would be kept for the callers of the tier before
            return
        try:
            smaller = self._is_smaller(self._replanned(lane))
        except Exception as error:  # noqa: BLE001 - called by the application, which must not notice
            self.keeping.give_up()
            self.engine.fault("replan", error)
            return
        if smaller is not None and not self.shielded:
            raise turning(self, smaller.reason)

    @property
    def shielded(self) -> bool:
        """Whether a shield is held."""
        return bool(self.shields)

    def shield(self) -> None:
        """Let the clock neither answer nor cancel until ``unshield`` was called as often."""
        self.shields.append(None)

    def unshield(self) -> None:
        """End one ``shield``."""
        self.shields.pop()
        if self.race is not None and not self.shields:
            self.race.let_go()

    def turn(self, reason: str) -> None:
        """Have the client answered for *reason*, however the application may come to its end."""
        if self.turned is None and not self.begun and self.given is None:
            self.turned = reason
            self.keeping.give_up()
            if self.race is not None:
                self.race.turn()

    @property
    def may_be_cancelled(self) -> bool:
        """Whether the work may be cancelled once the clock has answered."""
        return self.lane.plan.cancel_safe and self.asked.method in SAFE_METHODS

    @property
    def is_behind(self) -> bool:
        """Whether the application is at work on a response that nobody waits for any more."""
        return self.given is not None and not self.keeping.whole

    def send(self, message: Message) -> Awaitable[None]:
        """Pass a message of the application on, unless its client has had an answer."""
        try:
            begins = message["type"] == "http.response.start"
            if begins and not isinstance(message.get("headers", ()), list | tuple):
                message = {**message, "headers": list(message["headers"])}
        except Exception:  # noqa: BLE001 - it is no message, and the server says so
            begins = False
        self.keeping.note(self, message)
        if begins and self.receives:
            self._only_listens()
        if self.given is None and self.turned is None:
            if begins:
                self.begun = True
                message = self._marked(message)
            sending = (TimedExchange if self.timed_answer else Exchange).send(self, message)
            if hasattr(self, "visit"):
                if begins:
                    return self._send_start(sending)
                if self.end is not None:
                    return self._send_at_leisure(sending)
            return sending
        return dropped(self)

    def _marked(self, message: Message) -> Message:
        """Return the start of the response as it leaves: marked if a stage was left out."""
        try:
            self.status = message["status"]  # from here on nothing is left out any more
            course, clock = getattr(self, "course", None), self.clock
            if course is not None and not course.acts:
                course.responds(clock())
        except Exception as error:  # noqa: BLE001 - a fault of ours must not lose the response
            self.fault("mark", error, message)
        try:
            if skipped(self) is not None:
                message = {**message, "headers": self._partial(message)}
        except Exception as error:  # noqa: BLE001 - likewise
            self.fault("mark", error, message)
        return message

    def _partial(self, message: Message) -> list[Any]:
        headers = message.get("headers", ())
        try:
            return marked_partial(headers)
        except Exception as error:  # noqa: BLE001 - some servers take what is no bytes
            self.fault("mark", error, message)
        kept, ours = marked_as_they_are(headers)
        return kept + ours

    def cut_short(self) -> None:
        """Note that the application was told that its client has left."""
        self.keeping.cut_short()

    def has_body(self) -> None:
        """Note that the request has brought a body with it that nothing had announced."""
        if not self.asked.has_body:
            self.asked = replace(self.asked, has_body=True)
            self.keeping.give_up()

    def gone(self) -> None:
        """Note that the client left; once it was answered by us that is no news."""
        if self.given is None:
            super().gone()

    async def serve(self, app: ASGIApp, receive: Receive) -> Any:
        """Answer at once where that was decided, else run *app* against the clock."""
        if await self._is_done():
            return None
        scope = self._enter_race()
        receive = patient(self, receive)
        result = None
        try:
            if scope is None:
                result = await app(self.scope, receive, self.send)
            else:
                with scope:
                    result = await app(self.scope, receive, self.send)
        except BaseException as error:
            self.is_over = True
            if await self._is_settled(error):
                if self.race is not None and self.race.was_cancelled(error):
                    raise asyncio.CancelledError from error
                return None
            raise
        self.is_over = True
        if self.race is not None:
            await self.race.end()
        if self.turned is not None:
            await self.answer(self.turned, Work.GIVEN_UP, always=True)
        return result

    async def _is_settled(self, error: BaseException) -> bool:
        """Tell whether *error*, which has left the application, goes no further."""
        turn = turn_of(error, self)
        if turn is not None and self.turned is None and not self.begun:
            self.turned = turn.reason
        if not (isinstance(error, Exception) or turn is not None):
            if self.race is not None:
                self.race.give_up()
            return False
        if self.race is not None:
            await self.race.end()
        if self.turned is not None and self.given is None:
            await self.answer(self.turned, Work.GIVEN_UP, always=True)
        if self.given is None:
            return False
        if turn is None and self.turned is None and isinstance(error, Exception):
            report(self, error)
        return True

    def finish(self) -> None:
        """Finish the account, and teach the forecast what the whole way was like."""
        if self.given is not None:
            try:
                self.engine.outlived(self)
            except Exception as error:  # noqa: BLE001 - a fault of ours must not replace the outcome
                self.engine.fault("outlived", error)
        elif self.end is None:
            Exchange.finish(self)
        self._leave(full=self.keeping.whole)
        race, self.race = self.race, None  # each has the other: only the collector would find them
        if race is not None:
            race.forget()

    def _leave(self, *, full: bool) -> None:
        course = getattr(self, "course", None)
        if course is None:
            return
        try:
            status = getattr(self, "status", SERVER_ERROR)
            clock = self.clock
            ended = clock() if self.end is None else self.end
            full = full and status < SERVER_ERROR and not hasattr(self, "error")
            course.leave(ended, full=full, status=status)
        except Exception as error:  # noqa: BLE001 - a fault of ours must not replace the outcome
            self.engine.fault("leave", error)
            course.abandon()
        self.keeping.leave(self)

    def _take_menu(self, steering: Steering) -> None:
        course, menu, method = self.course, self.menu_of(steering), self.asked.method
        course.answers = menu.offers(method)
        course.cost_s = menu.cost_s
        if method in WITH_BODY:
            course.size = size_of(self.asked)
        # In shadow, too: what it says is what would have been done.
        timed = self.race is not None or _running_loop() is not None
        course.raced = timed and menu.offers(method, Work.GOES_ON)
        self.menu = menu

    def _replanned(self, lane: Lane) -> Decision | None:
        """Return what to do under the promise of *lane*, ``None`` if nothing is decided there."""
        steering, race = lane.steering, self.race
        if steering is None:
            self.menu = None
            self._leave(full=False)
            return None
        self.asked = replace(self.asked, tier=lane.plan.tier)
        course = getattr(self, "course", None)
        if course is not None and not course.left:
            course.under(steering)
        else:
            self.course = Course(steering, self.start)
            self.course.skipped = None if course is None else course.skipped
        self._take_menu(steering)
        if race is not None:
            race.restart()
        return self._decision(ONCE_KNOWN)

    def _decision(self, point: str | None) -> Decision:
        course, clock = self.course, self.clock
        return course.at(
            point,
            self.remaining(),
            clock(),
            course.cost_s,
            answers=course.answers,
            behind=point is None and self.asked.method in SAFE_METHODS,
            raced=course.raced,
        )

    def _is_smaller(self, decision: Decision | None) -> Decision | None:
        """Return *decision* if it is carried out, and is to answer with something smaller."""
        acts = decision is not None and self.course.acts and decision.action in _SMALLER
        return decision if acts else None

    async def _is_done(self) -> bool:
        """Answer before anything has run if that was decided; whether nothing is left to do."""
        menu = self.menu
        if menu is None:
            return False
        try:
            decision = self._is_smaller(self._decision(None))
        except Exception as error:  # noqa: BLE001 - a fault of ours leaves the request as it is
            self.engine.fault("decide", error)
            return False
        if decision is None:
            return False
        await self.answer(decision.reason, Work.NOT_BEGUN)
        given = self.given
        if given is None or decision.action is Action.PROBE:
            return False
        refreshes = given.stale and self.asked.method == "GET"
        return not (refreshes and self.keeping.may_refresh(self, menu))

    def _enter_race(self) -> Race | None:
        """Set the clock going; return what to run the application in if it may be cancelled."""
        loop = _running_loop()
        if loop is None:
            return None
        race = Race(self, loop)
        try:
            race.start()
            scope = race if self.may_be_raced and self.may_be_cancelled else None
        except Exception as error:  # noqa: BLE001 - nobody is answered by the clock, that is all
            self.engine.fault("race", error)
            scope = None
        self.race = race
        return scope

    def _wait(self, *, byte: bool = False) -> float:
        self.shield()  # a client that is slow to send is not answered by the clock meanwhile
        self.idle()
        return super()._wait(byte=byte)

    def _resume(self, before: float) -> None:
        super()._resume(before)
        self.resumed()
        self.unshield()

    def _receiving(self) -> float:
        self.receives += 1
        return super()._receiving()

    def _received(self, before: float) -> None:
        if self.receives:
            self.receives -= 1
            self._resume(before)

    def _only_listens(self) -> None:
        """Take who waits for the request's body for one who listens for the client's leaving.

        The response begins without that body. Whoever sends it is at work, and holds his slot.
        """
        while self.receives:
            self.receives -= 1
            self.resumed()
            self.unshield()

    async def _send_start(self, sending: Awaitable[None]) -> None:
        """Lend the slot while a server holds it back: its client has not read the one before."""
        before = self._wait()
        try:
            await sending
        finally:
            self._resume(before)

    async def _send_at_leisure(self, sending: Awaitable[None]) -> None:
        """Hold no slot while the last of the response leaves: its client may be slow to read."""
        self.idle()
        try:
            await sending
        finally:
            self.resumed()


class GatedExchange(Gated, SteeredExchange):
    """The same on a route with stages at whose opening the request may be answered."""

    __slots__ = ()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:  # trio: decisions at the beginning and at the stages are all there is
        return None
