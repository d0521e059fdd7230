"""What is kept of the application's response? Its body for the cache, and whether it was whole.

The response is looked at as it passes; a fault in here costs the kept copy and nothing else.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from budgetware.answers.facts import ResponseFacts
from budgetware.wsgi.asked import known_by
from budgetware.wsgi.headers import as_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from budgetware.answers.cache import Draft, ResponseCache
    from budgetware.wsgi.steered import SteeredExchange

_DONE: Final = 200


class Keeping:
    """Takes note of one response.

    Args:
        cache: Full responses of before.

    Attributes:
        whole: Whether the application has given its whole response.

    """

    __slots__ = ("_cache", "_draft", "_never", "whole")

    def __init__(self, cache: ResponseCache) -> None:
        self._cache = cache
        self._draft: Draft | None = None
        self._never = False
        self.whole = False

    def begin(
        self, exchange: SteeredExchange, status: str, headers: Sequence[tuple[str, str]]
    ) -> None:
        """Take note of the start of the response, or of one in its place."""
        self._draft = None
        try:
            code = int(status[:3])
            self._note(exchange, code)
            menu = exchange.menu
            if menu is not None and menu.keeps is not None and not self._never:
                response = ResponseFacts(code, as_bytes(headers))
                asked = exchange.asked
                if asked.known_by is None:  # who it is may have been found out on the way in
                    asked = replace(asked, known_by=known_by(exchange.environ))
                self._draft = self._cache.draft(asked, menu.keeps, response)
        except Exception as error:  # noqa: BLE001 - it is not kept, that is all
            exchange.engine.fault("keep", error)

    def broke_off(self, exchange: SteeredExchange) -> None:
        """Take note that the application has run, and left before it had said what came of it."""
        try:
            self._note(exchange, _DONE)
        except Exception as error:  # noqa: BLE001 - likewise
            exchange.engine.fault("keep", error)

    def add(self, exchange: SteeredExchange, part: bytes) -> None:
        """Take note of the next *part* of the body."""
        draft = self._draft
        if draft is not None:
            try:
                draft.tee.add(part)
            except Exception as error:  # noqa: BLE001 - likewise
                self._draft = None
                exchange.engine.fault("keep", error)

    def end(self, exchange: SteeredExchange) -> None:
        """Keep the response, all parts of which were handed over."""
        self.whole = True
        draft, self._draft = self._draft, None
        if draft is None:
            return
        try:
            # What was made with a stage left out is no full response.
            if exchange.course.skipped is None:
                clock = exchange.clock
                now = clock()
                # Waits for a slow client are no part of the budget, and pass all the same.
                waited_s = getattr(exchange, "waited_s", 0.0)
                self._cache.keep(draft, now - exchange.start + waited_s, now)
        except Exception as error:  # noqa: BLE001 - likewise
            exchange.engine.fault("keep", error)

    def give_up(self) -> None:
        """Keep nothing of this response, nor of one in its place."""
        self._never = True
        self._draft = None

    def _note(self, exchange: SteeredExchange, code: int) -> None:
        clock = exchange.clock
        self._cache.wrote(exchange.asked, code, clock())
