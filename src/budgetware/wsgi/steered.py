"""A WSGI request that may be answered with something smaller: at once, or on its way.

A thread that is at work cannot be overtaken by another answer, so there are these two ways only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from budgetware._core.decide import Action
from budgetware._core.interrupt import turn_of
from budgetware.answers.facts import Header, ResponseFacts
from budgetware.runtime import SERVER_ERROR
from budgetware.wsgi.exchange import Exchange, Write

if TYPE_CHECKING:
    from typing import Any

    from budgetware._core.steering import Steering
    from budgetware.answers.answer import Answer
    from budgetware.answers.cache import Draft
    from budgetware.answers.facts import RequestFacts
    from budgetware.answers.menu import ThreadMenu
    from budgetware.wsgi.exchange import ExcInfo

_SMALLER: Final = frozenset({Action.ANSWER, Action.REJECT, Action.PROBE})


class SteeredExchange(Exchange):
    """One request, and what its client may be sent in place of the full response.

    Attributes:
        menu: What there is to answer with.
        asked: What it is about.
        environ: What the application's own fallback is given.
        given: What the client was sent, ``None`` if that is the application's.
        draft: The response on its way into the cache.

    """

    __slots__ = ("asked", "draft", "environ", "given", "menu")

    goes_on = True

    menu: ThreadMenu
    asked: RequestFacts
    environ: dict[str, Any]
    given: Answer | None
    draft: Draft | None

    def embark(
        self,
        steering: Steering,
        menu: ThreadMenu,
        asked: RequestFacts,
        environ: dict[str, Any],
    ) -> None:
        """Begin the course of the request."""
        self.menu, self.asked, self.environ = menu, asked, environ
        self.given = self.draft = None
        course = self.course = steering.enter(self.start)
        course.answers = menu.answers
        course.cost_s = menu.cost_s

    def at_once(self) -> Iterable[bytes] | None:
        """Return the body of the smaller answer if that is what to do before anything has run."""
        course = self.course
        decision = course.at(
            None, self.remaining(), self.start, course.cost_s, answers=course.answers
        )
        if not course.acts or decision.action not in _SMALLER:
            return None
        return self.answer(decision.reason)

    def turned(self, error: BaseException) -> Iterable[bytes] | None:
        """Return the body of a smaller answer if *error* asks for one and none was begun."""
        turn = turn_of(error, self)
        if turn is None or hasattr(self, "status"):
            return None
        return self.answer(turn.reason, always=True)

    def answer(self, reason: str, *, always: bool = False) -> Iterable[bytes] | None:
        """Start a smaller answer and return its body, ``None`` if there is none.

        Args:
            reason: Why.
            always: Whether to say no when there is nothing else.

        """
        clock = self.clock
        menu = self.menu
        answer = menu.choose(self.asked, self.environ, self.remaining(), clock(), reason)
        if answer is None and always:
            answer = menu.refusal(self.remaining())
        if answer is None:
            return None
        self.given = answer
        self.course.smaller = True
        forward = self.forward
        headers = [
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.headers
        ]
        record = self.engine.answered(self, answer.kind, reason)
        try:
            forward(f"{answer.status} {_phrase(answer.status)}", headers)
        finally:
            self.engine.announce(self, record)
        return [answer.to(self.asked.method).body]

    def start_response(
        self,
        status: str,
        headers: list[tuple[str, str]],
        *exc_info: ExcInfo | None,
        **named: Any,
    ) -> Write:
        """Pass the start of the response on, and see whether it is to be kept."""
        write = Exchange.start_response(self, status, headers, *exc_info, **named)
        try:
            clock = self.clock
            self.menu.cache.wrote(self.asked, int(status[:3]), clock())
            keeps = self.menu.keeps
            self.draft = None
            if keeps is not None:
                lines = tuple(_line(*header) for header in headers)
                response = ResponseFacts(int(status[:3]), lines)
                self.draft = self.menu.cache.draft(self.asked, keeps, response)
        except Exception as error:  # noqa: BLE001 - it is not kept, that is all
            self.engine.fault("keep", error)
        return write

    def ready(self, body: Sequence[bytes]) -> None:
        """End the budget, and keep the response if it is to be kept."""
        self.last()
        for part in body:
            self.collect(part)
        self.whole()
        if not hasattr(self, "untold"):
            self.finish()

    def collect(self, part: bytes) -> None:
        """Take note of the next *part* of the body."""
        draft = self.draft
        if draft is not None:
            draft.tee.add(part)

    def whole(self) -> None:
        """Keep the response, all parts of which were handed over."""
        draft, self.draft = self.draft, None
        if draft is not None:
            try:
                clock = self.clock
                now = clock()
                self.menu.cache.keep(draft, now - self.start, now)
            except Exception as error:  # noqa: BLE001 - likewise
                self.engine.fault("keep", error)

    def finish(self) -> None:
        """Finish the account, and teach the forecast what the whole way was like."""
        if self.given is None:
            Exchange.finish(self)
        else:
            self.engine.outlived(self)
        try:
            full = (
                self.given is None
                and not hasattr(self, "error")
                and getattr(self, "status", SERVER_ERROR) < SERVER_ERROR
            )
            clock = self.clock
            self.course.leave(clock() if self.end is None else self.end, full=full)
        except Exception as error:  # noqa: BLE001 - a fault of ours must not replace the outcome
            self.engine.fault("leave", error)


class Collecting:
    """A step-by-step body whose parts are collected for the cache as they pass by."""

    def __init__(self, exchange: SteeredExchange, steps: Iterable[bytes]) -> None:
        self._exchange = exchange
        self._body = steps
        self._steps = iter(steps)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            part = next(self._steps)
        except StopIteration:
            self._exchange.whole()
            raise
        self._exchange.collect(part)
        return part

    def close(self) -> None:
        """Close the body behind this one."""
        close = getattr(self._body, "close", None)
        if close is not None:
            close()


def _line(name: str, value: str) -> Header:
    return name.encode("latin-1"), value.encode("latin-1")


def _phrase(status: int) -> str:
    from http import HTTPStatus  # noqa: PLC0415 - only for smaller answers

    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Answer"
