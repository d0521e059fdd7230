"""A step-by-step body in whose first step the application may turn to something smaller."""

from __future__ import annotations

from typing import TYPE_CHECKING

from budgetware._core.current import current_budget
from budgetware.wsgi.bodies import Body

if TYPE_CHECKING:
    from budgetware.wsgi.smaller import Smaller
    from budgetware.wsgi.steered import SteeredExchange


class SteeredBody(Body):
    """The body of a request that may be answered with something smaller.

    Attributes:
        exchange: Whose body it is.
        smaller: What its client gets instead.

    """

    __slots__ = ("smaller",)

    exchange: SteeredExchange

    def __init__(self) -> None:
        self.smaller: Smaller | None = None

    def __next__(self) -> bytes:
        if self.smaller is not None:
            return next(self.smaller)
        exchange = self.exchange
        exchange.resumed()
        outer = current_budget.get()
        try:
            part = Body.__next__(self)
        except StopIteration:
            exchange.whole()
            raise
        except BaseException as error:
            self.smaller = smaller = exchange.turned(error, outer)
            if smaller is None:
                raise
        else:
            exchange.keeping.add(exchange, part)
            exchange.idle()
            return part
        return next(smaller)

    def close(self) -> None:
        """Close the application's own iterable, then finish the request."""
        outer = current_budget.get()
        self.exchange.resumed()
        try:
            Body.close(self)
        except BaseException as error:
            late = self.exchange.stray(error, outer)
            if late is None:
                raise
            raise late from error
        finally:
            if self.smaller is not None:
                self.smaller.close()


class SizedSteeredBody(SteeredBody):
    """A step-by-step body whose length is known."""

    __slots__ = ()

    def __len__(self) -> int:
        return len(self.body)  # type: ignore[arg-type]
