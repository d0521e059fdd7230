"""A door as the invariants see it, and what a server tells the door of a request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from budgetware._core.engine import Engine
    from simulation.world import World


class Guarded:
    """A door as the invariants see it.

    Args:
        name: What it is called.
        engine: The middleware's engine.
        is_inner: Whether there is a door around it.

    Attributes:
        began: How many requests have come to it.
        under_way: How many of them are in it.
        visitors: The requests of those that are decided on, by their number.
        holding: Those that the application was called for, and need a slot for it.
        lent: Those whose slot was ever lent to others.
        counted_before: How many were counted before this process began.

    """

    def __init__(self, name: str, engine: Engine, *, is_inner: bool) -> None:
        self.name = name
        self.is_inner = is_inner
        self.engine = engine
        self.began = 0
        self.under_way = 0
        self.visitors: dict[int, Any] = {}
        self.holding: set[int] = set()
        self.lent: set[int] = set()
        self.counted_before = 0

    def forget(self) -> None:
        """Begin to count anew, in a child, whose totals are those of its parent so far."""
        self.began = self.under_way = 0
        for numbers in (self.visitors, self.holding, self.lent):
            numbers.clear()
        self.engine.tally.absorb()
        outcomes = (series.outcomes for series in self.engine.tally.requests.values())
        self.counted_before = sum(sum(one.values()) for one in outcomes)

    @contextmanager
    def called(self, number: int, exchange: Any, world: World) -> Iterator[None]:
        """Have the application called for request *number*, which has a slot if it needs one.

        Args:
            number: Which request.
            exchange: The budget that is current behind the door.
            world: Where the door stands.

        """
        visit = getattr(exchange, "visit", None)
        is_ours = getattr(exchange, "engine", None) is self.engine
        if is_ours and visit is not None and visit.acts and visit.rule.limited:
            if visit._ticket is None or not visit._ticket.admitted:
                world.fails("slots", f"a request is at work at {self.name} without one")
            self.visitors[number] = exchange
            self.holding.add(number)
        try:
            yield
        finally:
            self.holding.discard(number)

    def left(self, number: int) -> None:
        """Take note that request *number* is over."""
        self.under_way -= 1
        self.visitors.pop(number, None)
        self.lent.discard(number)

    def lends(self) -> set[int]:
        """Return the requests whose slot is lent to others just now."""
        lent = {number for number, exchange in self.visitors.items() if _is_lent(exchange)}
        self.lent |= lent
        return lent


def _is_lent(exchange: Any) -> bool:
    ticket = exchange.visit._ticket
    return ticket is not None and (ticket.slot or ticket).lent


def request_state(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what the server has put into a scope or an environ about the request."""
    found: Mapping[str, Any] = request["budgetware.state"]
    return found
