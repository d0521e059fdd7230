"""What runs in place of a stage that will not fit: ``@budget.stage("ml", fallback=last_score)``."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, cast

from budgetware._core.budget import Budget
from budgetware._core.decide import Action, Decision
from budgetware._core.interrupt import AnswerNow
from budgetware._core.reasons import reason_label

if TYPE_CHECKING:
    from budgetware._core.course import Course
    from budgetware._core.stage import Stage

FALLBACK_S: Final = 0.001
"""Seconds a stage's fallback is thought to take: it is there because it is cheap."""

F = TypeVar("F", bound=Callable[..., Any])


class Opens(Protocol):
    """Opens a stage."""

    def __call__(self, name: str, operation: str | None, /) -> Any:
        """Return the stage as a ``with`` block."""


def fits(owner: Budget | None, name: str, *, fallback: bool = True) -> bool:
    """Tell whether stage *name*, which is about to open, should run.

    Always, unless the request's decisions are carried out: what shadow finds is only counted. Once
    the client has an answer nothing is left out any more: the work behind it is to be whole. Nor
    is anything once the response has begun: it could not be marked as made without the stage.

    Args:
        owner: The budget, ``None`` outside a request.
        name: The stage.
        fallback: Whether something runs in its place.

    """
    if owner is None:
        return True
    try:
        course = _course_of(owner)
        if course is None or hasattr(owner, "status"):
            return True
        decision = _decision(owner, course, name, FALLBACK_S if fallback else None)
        if decision.action is Action.RUN or not course.acts:
            return True
        before, course.skipped = course.skipped, decision.reason.value
        # In this order: a door notes the status first and then looks for what was left out.
        if hasattr(owner, "status"):
            course.skipped = before
            return True
        owner.odd = True
    except Exception:  # noqa: BLE001 - called by the application, which must not notice
        owner.lane.fault("decide")
        return True
    return False


def gate(owner: Budget, name: str) -> None:
    """Leave the application for a smaller answer if stage *name*, about to open, will not fit.

    Nothing happens to a stage whose plan does not ask for that, nor once the response has begun.

    Raises:
        AnswerNow: Through the application to the door; nothing should catch it.

    """
    try:
        course = _course_of(owner)
        stage = owner.lane.plan.stages.get(name)
        if course is None or hasattr(owner, "status") or stage is None or not stage.answers:
            return
        if owner.shielded:
            return
        decision = _decision(owner, course, name, None)
        if decision.action is Action.RUN or not course.acts:
            return
    except Exception:  # noqa: BLE001 - called by the application, which must not notice
        owner.lane.fault("decide")
        return
    raise turning(owner, decision.reason)


def turning(owner: Budget, reason: str) -> AnswerNow:
    """Return what to leave the application with, and note it: not every one lets it through."""
    try:
        owner.turn(reason)
    except Exception:  # noqa: BLE001 - called by the application, which must not notice
        owner.lane.fault("turn")
    return AnswerNow(owner, reason)


class Gated(Budget):
    """A budget that asks, when a stage opens, whether the request is rather answered now."""

    __slots__ = ()

    def append(self, opening: Stage) -> None:
        """Note an *opening*, unless the request ends with it."""
        gate(self, opening.name)
        list.append(self, opening)


def degrade(owner: Budget | None, reason: str) -> None:
    """Leave the application for a smaller answer, where decisions are carried out.

    Raises:
        AnswerNow: Through the application to the door; nothing should catch it.

    """
    if owner is None:
        return
    try:
        course = _course_of(owner)
        if course is None or not course.acts or hasattr(owner, "status"):
            return
        word = reason_label(reason)
    except Exception:  # noqa: BLE001 - called by the application, which must not notice
        owner.lane.fault("degrade")
        return
    raise turning(owner, word)


class OrElse:
    """A stage with something to run in its place; a decorator only, for no block can be left out.

    Args:
        opens: Opens a stage.
        owner_of: Returns the budget of the running request.
        name: The stage.
        operation: Its operation.
        fallback: What is called instead; a plain function, for a coroutine function also one.

    """

    def __init__(
        self,
        opens: Opens,
        owner_of: Callable[[], Budget | None],
        name: str,
        operation: str | None,
        fallback: Callable[..., Any],
    ) -> None:
        self._opens = opens
        self._owner_of = owner_of
        self._name = name
        self._operation = operation
        self._fallback = fallback

    def __enter__(self) -> object:
        raise TypeError(
            f"a with block cannot be left out: decorate a function with "
            f"@budget.stage({self._name!r}, fallback=...), or ask budget.affords({self._name!r})"
        )

    def __exit__(self, *_: object) -> None:
        """Never reached."""

    def __call__(self, function: F) -> F:
        """Return *function* running as the stage, or the fallback with the same arguments."""
        fallback, opens, owner_of = self._fallback, self._opens, self._owner_of
        name, operation = self._name, self._operation
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"a generator cannot have a fallback: {function.__qualname__}")
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def run_async(*args: Any, **kwargs: Any) -> Any:
                if not fits(owner_of(), name):
                    result = fallback(*args, **kwargs)
                    return await result if inspect.isawaitable(result) else result
                with _noted(owner_of(), name, opens(name, operation)):
                    return await function(*args, **kwargs)

            return cast("F", run_async)
        if inspect.iscoroutinefunction(fallback):
            raise TypeError(
                f"{function.__qualname__} is a plain function, so its fallback must be one"
            )

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            if not fits(owner_of(), name):
                return fallback(*args, **kwargs)
            with _noted(owner_of(), name, opens(name, operation)):
                return function(*args, **kwargs)

        return cast("F", run)


def _noted(owner: Budget | None, name: str, opening: Any) -> Any:
    course = None if owner is None else getattr(owner, "course", None)
    if course is not None:
        try:
            course.opened(name, opening)
        except Exception:  # noqa: BLE001 - called by the application, which must not notice
            owner.lane.fault("opened")  # type: ignore[union-attr]
    return opening


def _course_of(owner: Budget) -> Course | None:
    """Return the course of a request that may still be answered with something smaller."""
    if owner.end is not None:
        return None
    course: Course | None = getattr(owner, "course", None)
    return None if course is None or course.smaller or course.left else course


def _decision(owner: Budget, course: Course, name: str, fallback_s: float | None) -> Decision:
    clock = owner.clock
    return course.at(
        name,
        owner.remaining(),
        clock(),
        course.cost_s,
        answers=course.answers,
        raced=course.raced,
        fallback_s=fallback_s,
    )
