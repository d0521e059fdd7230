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

    Raises:
        TypeError: *fallback* is no function.

    """

    def __init__(
        self,
        opens: Opens,
        owner_of: Callable[[], Budget | None],
        name: str,
        operation: str | None,
        fallback: Callable[..., Any],
    ) -> None:
        if not callable(fallback):
            raise TypeError(
                f"the fallback of stage {name!r} must be a function, not {fallback!r:.80}"
            )
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
        """Return *function* running as the stage, or the fallback with the same arguments.

        Raises:
            TypeError: It is a generator, or the fallback cannot take its place.

        """
        fallback, opens, owner_of = self._fallback, self._opens, self._owner_of
        name, operation = self._name, self._operation
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"a generator cannot have a fallback: {function.__qualname__}")
        if _is_async(fallback) and not inspect.iscoroutinefunction(function):
            raise TypeError(
                f"{function.__qualname__} is a plain function, so its fallback must be one"
            )
        _check_takes_its_place(fallback, function, name)
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def run_async(*args: Any, **kwargs: Any) -> Any:
                if not fits(owner_of(), name):
                    result = fallback(*args, **kwargs)
                    return await result if inspect.isawaitable(result) else result
                with _noted(owner_of(), name, opens(name, operation)):
                    return await function(*args, **kwargs)

            return cast("F", run_async)

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            if not fits(owner_of(), name):
                return fallback(*args, **kwargs)
            with _noted(owner_of(), name, opens(name, operation)):
                return function(*args, **kwargs)

        return cast("F", run)


def _is_async(function: Callable[..., Any]) -> bool:
    """Tell whether *function*, or an object called like one, can only be awaited."""
    called = type(function).__call__
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)


def _check_takes_its_place(
    fallback: Callable[..., Any], function: Callable[..., Any], name: str
) -> None:
    """Refuse a *fallback* that does not take the fewest and the most arguments of *function*.

    What they are called is left to the callers, who most often give them by position. So is how
    many there are where *function* takes any number of them.
    """
    original, stand_in = _signature(function), _signature(fallback)
    if original is None or stand_in is None:
        return
    parameters = original.parameters.values()
    bind = stand_in.bind
    if any(one.kind in {one.VAR_POSITIONAL, one.VAR_KEYWORD} for one in parameters):
        bind = stand_in.bind_partial
    for given in ([one for one in parameters if one.default is one.empty], parameters):
        by_position = [None for one in given if one.kind in _BY_POSITION]
        by_name = {one.name: None for one in given if one.kind is one.KEYWORD_ONLY}
        try:
            bind(*by_position, **by_name)
        except TypeError as error:
            raise TypeError(
                f"the fallback of stage {name!r}, {_title(fallback)}{stand_in}, "
                f"cannot be called as {_title(function)}{original} is: {error}"
            ) from None


_BY_POSITION: Final = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except Exception:  # noqa: BLE001 - some builtins do not tell, and annotations may mean nothing yet
        return None


def _title(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)


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
