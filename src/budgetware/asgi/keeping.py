"""What is kept of the application's response? Its body for the cache, and whether it was whole.

The response is looked at as it passes, whether or not it still reaches the client.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from budgetware.answers.facts import ResponseFacts
from budgetware.asgi.asked import known_by
from budgetware.http import SERVER_ERROR

if TYPE_CHECKING:
    from budgetware.answers.cache import AsyncResponseCache, Draft, Refresh
    from budgetware.answers.menu import Menu
    from budgetware.asgi.answering import AnsweringExchange
    from budgetware.asgi.exchange import Message

_FILES: Final = frozenset({"http.response.pathsend", "http.response.zerocopysend"})


class Keeping:
    """Takes note of one response.

    Args:
        cache: Full responses of before.

    Attributes:
        whole: Whether the application has sent its whole response, to whomever.

    """

    __slots__ = ("_began", "_cache", "_cut", "_draft", "_gave_up", "_refresh", "whole")

    def __init__(self, cache: AsyncResponseCache) -> None:
        self._cache = cache
        self._draft: Draft | None = None
        self._cut = False
        self._gave_up = False
        self._began = 0.0
        self._refresh: Refresh | None = None
        self.whole = False

    def may_refresh(self, exchange: AnsweringExchange, menu: Menu) -> bool:
        """Tell whether the work is to go on to make a stored response anew; one at a time may."""
        try:
            if menu.keeps is not None:
                asked, spend, clock = exchange.asked, exchange.course.spend, exchange.clock
                self._refresh = self._cache.begin_refresh(asked, menu.keeps, spend, clock())
        except Exception as error:  # noqa: BLE001 - it stays stale, that is all
            exchange.engine.fault("refresh", error)
        return self._refresh is not None

    def leave(self, exchange: AnsweringExchange) -> None:
        """Keep what only now is known to be whole, and let others make the response anew."""
        draft, self._draft = self._draft, None
        if draft is not None and self.whole and not hasattr(exchange, "error"):
            try:
                clock = exchange.clock
                now = clock()
                self._cache.keep(draft, now - self._began, now)
            except Exception as error:  # noqa: BLE001 - it is not kept, that is all
                exchange.engine.fault("keep", error)
        refresh, self._refresh = self._refresh, None
        if refresh is not None:
            try:
                self._cache.end_refresh(refresh)
            except Exception as error:  # noqa: BLE001 - likewise
                exchange.engine.fault("refresh", error)

    def cut_short(self) -> None:
        """Note that the application was told that its client has left: what follows is a torso."""
        if not self.whole:
            self._cut = True
            self.give_up()

    def give_up(self) -> None:
        """Keep nothing of this response."""
        self._draft = None
        self._gave_up = True

    def note(self, exchange: AnsweringExchange, message: Message) -> None:
        """Take note of a *message* of the application."""
        try:
            kind = message["type"]
            if kind == "http.response.start":
                self._begin(exchange, message)
            elif kind == "http.response.body":
                self._add(exchange, message)
            elif kind == "http.response.trailers":
                self.whole = not message.get("more_trailers", False)
            elif kind in _FILES:
                self._draft = None
                self.whole = not message.get("more_body", False)
        except Exception as error:  # noqa: BLE001 - it is not kept, that is all
            self._draft = None
            exchange.fault("keep", error, message)

    def _begin(self, exchange: AnsweringExchange, message: Message) -> None:
        status, menu = message["status"], exchange.menu
        if exchange.given is not None:
            exchange.status = status
            if status >= SERVER_ERROR:
                exchange.engine.fail(exchange)
        clock = exchange.clock
        self._cache.wrote(exchange.asked, status, clock())
        keeps = None if menu is None or self._gave_up else menu.keeps
        if keeps is not None and not message.get("trailers", False):
            response = ResponseFacts(status, tuple(message.get("headers", ())))
            asked = exchange.asked
            if asked.known_by is None:  # who it is may have been found out on the way in
                asked = replace(asked, known_by=known_by(exchange.scope))
            self._draft = self._cache.draft(asked, keeps, response)

    def _add(self, exchange: AnsweringExchange, message: Message) -> None:
        draft = self._draft
        if draft is not None:
            draft.tee.add(message.get("body", b""))
        if not message.get("more_body", False):
            self.whole = not self._cut
            # What was made with a stage left out is no full response.
            if draft is None or exchange.course.skipped is not None:
                self._draft = None
                return
            clock = exchange.clock
            now = clock()
            # Waits for a slow client are no part of the budget, and pass all the same.
            self._began = exchange.start - getattr(exchange, "waited_s", 0.0)
            # A middleware in between may end what has failed; only the call's end tells then.
            if draft.tee.is_measured:
                self._draft = None
                self._cache.keep(draft, now - self._began, now)
