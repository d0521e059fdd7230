"""One component's use of the budget: what ``with budget.stage("db")`` opens.

This is the hot path. As ``open()`` opens a file, the call opens the stage, and the ``with`` block
sees to it that it is closed; everything else waits until the request is over. Nothing here may
raise, and closing is legal from any task, thread or context.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from budgetware._core.decorate import F, decorated

Clock = Callable[[], float]
"""A monotonic clock in seconds."""


def checked(clock: Clock, fault: Callable[[Exception], object]) -> Clock:
    """Return *clock*, an application's own, as one that gives a number of seconds or raises.

    *fault* hears of whatever it raises, so that whoever reads it has only to do without.
    """

    def read() -> float:
        try:
            return _seconds(clock())
        except Exception as error:
            fault(error)
            raise

    return read


def _seconds(now: float) -> float:
    if not isfinite(now):  # which for what is no number at all raises by itself
        raise ValueError(f"the clock gives {now}")
    return now + 0.0


class StageContext(Protocol):
    """What ``budget.stage(...)`` gives: a ``with`` block and a decorator in one."""

    def __enter__(self) -> object:
        """Begin the block."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        """Close the stage; an exception is noted and passes on."""

    def __call__(self, function: F, /) -> F:
        """Return *function* running inside a stage of its own at every call."""


class Stage:
    """The facts of one opening.

    Only ``name`` and ``start`` are always set, for every one costs the hot path something. Without
    an ``end`` the stage is still open, without ``operation`` or ``error`` it has none. ``start`` is
    ``None`` for one that was never meant to run, as it only made a decorator, and for one of which
    the clock has not told how long it ran.
    """

    __slots__ = ("end", "error", "name", "operation", "start")

    name: str
    operation: str
    start: float | None
    end: float
    error: type[BaseException]

    if TYPE_CHECKING:  # every instance is of a class that ``stage_type`` made

        def __enter__(self) -> object: ...
        def __exit__(
            self,
            kind: type[BaseException] | None,
            error: BaseException | None,
            trace: TracebackType | None,
            /,
        ) -> None: ...
        def __call__(self, function: F, /) -> F: ...


def stage_type(
    clock: Clock,
    enter: Callable[[], object],
    reopen: Callable[[str, str | None], StageContext],
) -> type[Stage]:
    """Return the class of stages timed by *clock*.

    A class per clock keeps the clock in a closure, where reading it is as cheap as a global.
    *enter* becomes ``__enter__``; written in C, as ``ContextVar.get`` is, it saves a stage the
    price of a Python call. *reopen* opens the stage anew for each call of a decorated function.
    """

    class TimedStage(Stage):
        __slots__ = ()

        __enter__ = staticmethod(enter)

        def __exit__(
            self,
            kind: type[BaseException] | None,
            error: BaseException | None,
            trace: TracebackType | None,
        ) -> None:
            try:
                self.end = clock()
            except Exception:  # noqa: BLE001 - the clock has been told of
                self.start = None
            if kind is not None:
                self.error = kind

        def __call__(self, function: F) -> F:
            self.start = None
            name, operation = self.name, getattr(self, "operation", None)
            return decorated(lambda: reopen(name, operation), function)

    return TimedStage
