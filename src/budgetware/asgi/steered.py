"""A request that may be answered with something smaller: at once, on its way, or by the clock.

The application's call runs in the caller's task to its end whatever the client was sent: what it
still finds out refreshes the cache and teaches the forecast. Whoever begins the response first,
the application or we, has the client; nothing of the other reaches it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from math import inf
from typing import TYPE_CHECKING, Any, Final

from budgetware._core.decide import Action
from budgetware._core.interrupt import turn_of
from budgetware.answers.facts import ResponseFacts
from budgetware.asgi.exchange import Exchange, Message, Receive, Scope, TimedExchange
from budgetware.runtime import SERVER_ERROR

if TYPE_CHECKING:
    from budgetware._core.steering import Steering
    from budgetware.answers.answer import Answer
    from budgetware.answers.cache import Draft
    from budgetware.answers.facts import RequestFacts
    from budgetware.answers.menu import Menu
    from budgetware.asgi.exchange import ASGIApp

LEAST_AHEAD_S: Final = 0.0005
"""A turn this close to its time is taken at once and not waited for again."""

BY_THE_CLOCK: Final = "deadline"
"""Why the clock answers."""

_SAFE: Final = frozenset({"GET", "HEAD"})
_SMALLER: Final = frozenset({Action.ANSWER, Action.PROBE, Action.REJECT})


class SteeredExchange(Exchange):
    """One request, and what its client may be sent in place of the full response.

    Attributes:
        menu: What there is to answer with, ``None`` where nothing is decided.
        asked: What it is about.
        scope: Its scope.
        given: What the client was sent, ``None`` as long as the application may answer.
        begun: Whether the application has begun the response.
        whole: Whether the application has sent its whole response, to whomever.
        draft: The response on its way into the cache.
        turn: The clock's appointment.
        racing: The task that answers by the clock.
        timed_answer: Whether the response tells where the time went.

    """

    __slots__ = (
        "asked",
        "begun",
        "draft",
        "given",
        "menu",
        "racing",
        "scope",
        "timed_answer",
        "turn",
        "whole",
    )

    menu: Menu | None
    asked: RequestFacts
    scope: Scope
    given: Answer | None
    begun: bool
    whole: bool
    draft: Draft | None
    timed_answer: bool
    turn: asyncio.TimerHandle | None
    racing: asyncio.Task[None] | None

    def prepare(self, scope: Scope, menu: Menu | None) -> None:
        """Make ready for the first message."""
        self.given = self.draft = self.turn = self.racing = None
        self.begun = self.whole = False
        self.scope = scope
        self.menu = menu

    def embark(self, steering: Steering, asked: RequestFacts) -> None:
        """Begin the course of a request that is decided on."""
        course = self.course = steering.enter(self.start)
        menu = self.menu
        if menu is not None:
            course.answers = menu.answers
            course.cost_s = menu.cost_s
            course.raced = course.acts and course.answers
        self.asked = asked

    def send(self, message: Message) -> Awaitable[None]:
        """Pass a message of the application on, unless its client has had an answer."""
        if self.menu is not None:
            self._note(message, self.menu)
        if self.given is None:
            self.begun = True
            return (TimedExchange if self.timed_answer else Exchange).send(self, message)
        return _nothing()

    async def serve(self, app: ASGIApp, receive: Receive) -> Any:
        """Answer at once where that was decided, else run *app* against the clock."""
        menu = self.menu
        if menu is None:
            return await app(self.scope, receive, self.send)
        course = self.course
        acts, answers = course.acts, course.answers
        decision = course.at(
            None,
            self.remaining(),
            self.start,
            course.cost_s,
            answers=answers,
            behind=self.asked.method in _SAFE,
            raced=course.raced,
        )
        if acts and decision.action in _SMALLER:
            await self.answer(decision.reason)
            if self.given is not None and decision.action is not Action.PROBE:
                return None
        if acts and answers and self.given is None:
            self._appoint(menu)
        try:
            return await app(self.scope, self._patient(receive), self.send)
        except BaseException as error:
            turn = turn_of(error, self)
            if turn is None or self.begun:
                raise
            if self.given is None:
                await self.answer(turn.reason, always=True)
            return None
        finally:
            if self.turn is not None:
                self.turn.cancel()
            if self.racing is not None and not self.racing.done():
                # The server takes a call that ends before its response for a failed one.
                await asyncio.shield(self.racing)

    async def answer(self, reason: str, *, always: bool = False) -> None:
        """Send something smaller, if there is something and nobody has begun to answer.

        Args:
            reason: Why.
            always: Whether to say no when there is nothing else.

        """
        menu, clock = self.menu, self.clock
        if menu is None:
            return
        answer = await menu.choose(self.asked, self.scope, self.remaining(), clock(), reason)
        if answer is None and always:
            answer = menu.refusal(self.remaining())
        if answer is None or self.begun or self.given is not None:
            return
        self.given = answer
        self.course.smaller = True
        headers = list(answer.headers)
        forward = self.forward
        await forward({"type": "http.response.start", "status": answer.status, "headers": headers})
        self.engine.answered(self, answer.kind, reason)
        await forward({"type": "http.response.body", "body": answer.to(self.asked.method).body})

    def finish(self) -> None:
        """Finish the account, and teach the forecast what the whole way was like."""
        if self.given is None:
            if self.end is None:
                Exchange.finish(self)
        else:
            self.engine.outlived(self)
        if self.menu is None:
            return
        try:
            status = getattr(self, "status", SERVER_ERROR)
            full = self.whole and status < SERVER_ERROR and not hasattr(self, "error")
            clock = self.clock
            ended = clock() if self.end is None else self.end
            self.course.leave(ended, full=full)
        except Exception as error:  # noqa: BLE001 - a fault of ours must not replace the outcome
            self.engine.fault("leave", error)

    def _appoint(self, menu: Menu) -> None:
        """Have the clock answer in time, wherever the application then is."""
        ahead_s = self.remaining() - menu.cost_s
        if ahead_s == inf:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # trio: decisions at the stages are all there is
            return
        self.turn = loop.call_later(max(0.0, ahead_s), self._take_turn, menu)

    def _take_turn(self, menu: Menu) -> None:
        self.turn = None
        if self.begun or self.given is not None or self.course.rationed:
            return
        if self.remaining() - menu.cost_s > LEAST_AHEAD_S:
            self._appoint(menu)  # waits for the client were left out meanwhile
        else:
            self.racing = asyncio.get_running_loop().create_task(self._race())

    async def _race(self) -> None:
        try:
            await self.answer(BY_THE_CLOCK)
        except Exception as error:  # noqa: BLE001 - the application's own answer may still come
            self.engine.fault("race", error)

    def _patient(self, receive: Receive) -> Receive:
        """Return *receive* without the server's good-bye to a client that we have answered."""

        async def patient() -> Message:
            message = await receive()
            if self.given is not None and message["type"] == "http.disconnect":
                await asyncio.get_running_loop().create_future()  # until the application is done
            return message

        return patient

    def _note(self, message: Message, menu: Menu) -> None:
        """Collect the application's response for the cache."""
        try:
            kind = message["type"]
            if kind == "http.response.start":
                if self.given is not None:
                    self.status = message["status"]
                clock = self.clock
                menu.cache.wrote(self.asked, message["status"], clock())
                keeps = menu.keeps
                if keeps is not None:
                    response = ResponseFacts(message["status"], message.get("headers", ()))
                    self.draft = menu.cache.draft(self.asked, keeps, response)
            elif kind == "http.response.body":
                draft = self.draft
                if draft is not None:
                    draft.tee.add(message.get("body", b""))
                if not message.get("more_body", False):
                    self.whole = True
                    if draft is not None:
                        clock = self.clock
                        now = clock()
                        menu.cache.keep(draft, now - self.start, now)
            else:
                self.whole = True
                self.draft = None
        except Exception as error:  # noqa: BLE001 - it is not kept, that is all
            self.draft = None
            self.engine.fault("keep", error)


async def _nothing() -> None:
    """Take the place of sending a message to a client that was answered."""
