"""How does a smaller answer leave, and who answers first? One client, one response."""

from __future__ import annotations

from math import inf
from random import random
from typing import TYPE_CHECKING

from budgetware.answers.menu import Work, refusal
from budgetware.answers.rejection import LAST_RESORT
from budgetware.asgi.exchange import Exchange, Scope

if TYPE_CHECKING:
    from budgetware.answers.answer import Answer
    from budgetware.answers.facts import RequestFacts
    from budgetware.answers.menu import Menu


class AnsweringExchange(Exchange):
    """One request whose client may be sent something smaller, once, if nothing else was begun.

    Attributes:
        menu: What there is to answer with, ``None`` where nothing is decided.
        asked: What it is about.
        scope: Its scope.
        given: What the client was sent, ``None`` as long as the application may answer.
        given_at: When, on the clock.
        begun: Whether the application has begun the response.
        turned: Why the application was left for a smaller answer, ``None`` if it was not.
        is_over: Whether the application's call has ended.

    """

    __slots__ = ("asked", "begun", "given", "given_at", "is_over", "menu", "scope", "turned")

    menu: Menu | None
    asked: RequestFacts
    scope: Scope
    given: Answer | None
    given_at: float
    begun: bool
    turned: str | None
    is_over: bool

    @property
    def may_be_raced(self) -> bool:
        """Whether the clock may still answer."""
        menu = self.menu
        return (
            menu is not None
            and self.course.raced
            and self.course.acts
            and self.end is None
            and not (self.begun or self.is_over or self.given is not None or self.course.rationed)
        )

    @property
    def is_told_by_errors(self) -> bool:
        """Whether the application expects an error from sending to a client that has left."""
        version = str(self.scope.get("asgi", {}).get("spec_version", "2.0"))
        return version not in {"2.0", "2.1", "2.2", "2.3"}

    @property
    def is_behind(self) -> bool:
        """Whether the application is at work on a response that nobody waits for any more."""
        return self.given is not None

    def cut_short(self) -> None:
        """Note that the application was told that its client has left."""

    def has_body(self) -> None:
        """Note that the request has brought a body with it that nothing had announced."""

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

    async def answer(self, reason: str, work: Work, *, always: bool = False) -> None:
        """Send something smaller, if there is something and nobody has begun to answer.

        Args:
            reason: Why.
            work: What the application is doing.
            always: Whether to say no when there is nothing else.

        """
        lane = self.lane
        answer = await self._chosen(reason, work)
        if not always and self.lane is not lane:
            return  # it was another promise, and another tier's answer
        if answer is None and always:
            answer = self._refusal(work)
        if answer is None or self.begun or self.given is not None or self.end is not None:
            return
        self.given = answer
        self.given_at = inf
        self.given_for_s()
        self.course.smaller = True
        if work is Work.GOES_ON:
            await self.send_smaller(answer, reason)
            return
        self.idle()
        try:
            await self.send_smaller(answer, reason)
        finally:
            self.resumed()

    def given_for_s(self) -> float:
        """Return how many seconds ago the client was answered, as far as the clock can tell."""
        try:
            clock = self.clock
            now = clock()
        except Exception as error:  # noqa: BLE001 - a fault of ours must not lose the answer
            self.engine.fault("clock", error)
            return 0.0
        self.given_at = min(self.given_at, now)
        return now - self.given_at

    async def send_smaller(self, answer: Answer, reason: str) -> None:
        """Send *answer*, for *reason*, in place of the full response; counted as it begins."""
        engine, forward, headers = self.engine, self.forward, list(answer.headers)
        body = b"" if self.scope["method"] == "HEAD" else answer.body
        try:
            record = engine.answered(self, answer.kind, reason, answer.status)
        except Exception as error:  # noqa: BLE001 - a fault of ours must not lose the answer
            engine.fault("answered", error)
            record = None
        try:
            await forward(
                {"type": "http.response.start", "status": answer.status, "headers": headers}
            )
            await forward({"type": "http.response.body", "body": body})
        finally:
            try:
                engine.announce(self, record)
            except Exception as error:  # noqa: BLE001 - likewise
                engine.fault("announce", error)

    async def _chosen(self, reason: str, work: Work) -> Answer | None:
        menu, clock = self.menu, self.clock
        if menu is None:
            return None
        try:
            return await menu.choose(
                self.asked, self.scope, self.remaining(), clock(), reason, work
            )
        except Exception as error:  # noqa: BLE001 - the application may still answer
            self.engine.fault("answer", error)
            return None

    def _refusal(self, work: Work) -> Answer:
        try:
            return refusal(work, self.asked.method, random)
        except Exception as error:  # noqa: BLE001 - something has to be said
            self.engine.fault("answer", error)
            return LAST_RESORT
