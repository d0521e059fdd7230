"""How does a smaller answer leave? In the shape of a WSGI response, told of once it has left."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING

from budgetware.wsgi.headers import as_text

if TYPE_CHECKING:
    from budgetware._core.record import RequestRecord
    from budgetware.answers.answer import Answer
    from budgetware.wsgi.exchange import Exchange


class Smaller:
    """The body of a smaller answer: one part. Its end or its ``close()`` has observers told.

    Args:
        exchange: Whose answer it is; counted already.
        record: What they are told.
        body: All of it.

    """

    __slots__ = ("_exchange", "_parts", "_record")

    def __init__(self, exchange: Exchange, record: RequestRecord | None, body: bytes) -> None:
        self._exchange = exchange
        self._record = record
        self._parts = [body]

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._parts:
            return self._parts.pop()
        self.close()
        raise StopIteration

    def __len__(self) -> int:
        return 1

    def close(self) -> None:
        """Tell whoever has to be told; once."""
        record, self._record = self._record, None
        engine = self._exchange.engine
        try:
            engine.announce(self._exchange, record)
        except Exception as error:  # noqa: BLE001 - a fault of ours must not end the response
            engine.fault("announce", error)


def start_of(answer: Answer) -> tuple[str, list[tuple[str, str]]]:
    """Return the status line and the headers of *answer*, as ``start_response`` takes them."""
    known = answer.status in HTTPStatus._value2member_map_
    phrase = HTTPStatus(answer.status).phrase if known else "Answer"
    return f"{answer.status} {phrase}", as_text(answer.headers)
