"""The way out of work that should not go on: to the door, which answers with something smaller."""

from __future__ import annotations


class AnswerNow(BaseException):
    """Leaves the application for the door, which then answers with something smaller.

    Like ``asyncio.CancelledError`` it is no ``Exception``: code that handles its own failures is
    not to take it for one.

    Attributes:
        budget: Whose request is to be answered.
        reason: Why.

    """

    def __init__(self, budget: object, reason: str) -> None:
        self.budget = budget
        self.reason = reason
        super().__init__(f"this request is answered with something smaller: {reason}")


def turn_of(error: BaseException, budget: object) -> AnswerNow | None:
    """Return the turn of *budget*'s request in *error*, which may be a group; ``None`` if none.

    Task groups hand on what leaves their tasks in groups, one inside the other.
    """
    pending = [error]
    while pending:
        one = pending.pop()
        if isinstance(one, AnswerNow) and one.budget is budget:
            return one
        if isinstance(one, BaseExceptionGroup):
            pending.extend(one.exceptions)
    return None
