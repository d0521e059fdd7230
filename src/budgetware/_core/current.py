"""Whose account is it? The budget of the running request, and the handle to it.

The context variable refers to one shared budget and is set by the doors alone; children of a
request change the budget, never the variable.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Protocol, Self, TypeVar, cast

from budgetware._core.budget import Budget
from budgetware._core.decorate import F, decorated
from budgetware._core.stage import StageContext

if TYPE_CHECKING:
    from budgetware._core.entrance import Visit

P = ParamSpec("P")
R = TypeVar("R")

current_budget: ContextVar[Budget | None] = ContextVar("budgetware", default=None)

_current = current_budget.get


_Entry = tuple[Budget | None, StageContext | None]

_OUTSIDE: Final[_Entry] = (None, None)

# Stands for ``[_OUTSIDE]``: nearly every stage outside a request is entered once and left.
_ALONE: Final[list[_Entry]] = [_OUTSIDE]


class LooseStage:
    """A stage made where no budget was open: at import, for instance, or outside a request.

    It opens a stage of whatever budget is open when it is entered, and nothing when there is
    none; it may be shared by any number of requests at once.
    """

    __slots__ = ("name", "opened", "operation")

    name: str
    operation: str | None
    opened: list[_Entry] | None

    def __enter__(self) -> Self:
        if self.opened is None and _current() is None:
            self.opened = _ALONE
        else:
            self._enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.opened is _ALONE:
            self.opened = None
        else:
            self._exit(kind, error, trace)

    def __call__(self, function: F) -> F:
        name, operation = self.name, self.operation
        return decorated(lambda: stage(name, operation), function)

    def _enter(self) -> None:
        owner = _current()
        opened = self.opened
        if opened is None or opened is _ALONE:
            # Whoever was alone outside is still in, and now has company.
            opened = self.opened = [] if opened is None else [_OUTSIDE]
        if owner is None:
            opened.append(_OUTSIDE)
        else:
            opened.append((owner, stage(self.name, self.operation)))

    def _exit(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the last stage of this budget; when it was entered elsewhere, the likeliest."""
        owner = _current()
        opened = self.opened
        while entries := (opened or [])[:]:
            outside = [entry for entry in entries if entry is _OUTSIDE]
            mine = outside if owner is None else [entry for entry in entries if entry[0] is owner]
            entry = (mine or outside or entries)[-1]
            with suppress(ValueError):  # another thread has just left the same way
                opened.remove(entry)  # type: ignore[union-attr]
                if entry[1] is not None:
                    entry[1].__exit__(kind, error, trace)
                return


def stage(
    name: str,
    operation: str | None = None,
    fallback: Callable[..., Any] | None = None,
) -> StageContext:
    """Time a component: ``with budget.stage("db"):`` or ``@budget.stage("db")``.

    Works the same in ``def`` and ``async def``, nested, in parallel tasks and in threads that
    carry the budget. The call opens the stage, the end of the block closes it; an exception
    passes through and marks the stage failed. Made outside a request, the same object may
    serve any number of requests, each of which it opens a stage of when it is entered.

    Args:
        name: The stage, as the policy file calls it.
        operation: One of the stage's operations, such as ``"select"``.
        fallback: For decorators: what is called in place of the function, with the same arguments,
            when the forecast says that the stage will not fit and the policy's mode is ``enforce``.

    Raises:
        TypeError: *fallback* is no function; or, once a function is decorated, cannot be called in
            its place.

    """
    if fallback is not None:
        from budgetware._core.alternative import OrElse  # noqa: PLC0415 - most stages have none

        return OrElse(stage, _current, name, operation, fallback)
    owner = _current()
    if owner is None:
        loose = LooseStage()
        loose.name = name
        loose.operation = operation
        loose.opened = None
        return loose
    opens = owner.opens
    opening = opens()
    opening.name = name
    if operation is not None:
        opening.operation = operation
    if len(owner) >= owner.room:
        owner.settle()
    clock = owner.clock
    try:
        opening.start = clock()
    except Exception:  # noqa: BLE001 - the clock has been told of
        opening.start = None
        return opening
    # Last, so that other threads never see a stage without its start.
    owner.append(opening)
    return opening


class Shield:
    """A block in which the clock neither answers nor cancels its request."""

    __slots__ = ("_held", "_owner")

    def __init__(self, owner: Budget | None) -> None:
        self._owner = owner
        self._held: list[None] = []

    def __enter__(self) -> None:
        if self._owner is not None:
            self._owner.shield()
            self._held.append(None)

    def __exit__(self, *_: object) -> None:
        if self._owner is not None and self._held:
            self._held.pop()
            self._owner.unshield()


class OpensStages(Protocol):
    """The type of ``budget.stage``."""

    def __call__(
        self,
        name: str,
        operation: str | None = None,
        fallback: Callable[..., Any] | None = None,
    ) -> StageContext:
        """See ``stage``."""


class CurrentBudget:
    """The budget of the running request, whichever that is.

    Outside a request every call is a no-op, and time is unlimited.

    Attributes:
        stage: Times a component: ``with budget.stage("db"):`` or ``@budget.stage("db")``. It is
            held by the object and not by its class: Python binds the method of an imported name
            anew at every call, at a quarter of what a stage costs.

    """

    __slots__ = ("stage",)

    def __init__(self) -> None:
        self.stage: OpensStages = stage

    def affords(self, name: str) -> bool:
        """Tell whether stage *name* and what follows it will still fit.

        The decision a stage with a ``fallback`` takes. Always yes where the mode is not
        ``enforce``: what another mode would have said is only counted.
        """
        from budgetware._core.alternative import fits  # noqa: PLC0415 - most services only observe

        return fits(_current(), name)

    def degrade(self, reason: str) -> None:
        """Answer this request now with something smaller; nothing outside ``enforce``.

        Leaves the application by an exception that is no ``Exception``. Once the response has
        begun there is nothing to be done, and nothing is.

        Args:
            reason: Why, as one word for metrics and logs.

        """
        from budgetware._core.alternative import degrade  # noqa: PLC0415 - likewise

        degrade(_current(), reason)

    def shield(self) -> Shield:
        """Let the clock neither answer nor cancel while ``with budget.shield():`` is open.

        For what has to be finished before anything is sent. What came due meanwhile is done as
        soon as the last shield of the request is left.
        """
        return Shield(_current())

    def remaining(self) -> float:
        """Return the seconds left: negative when overdrawn, ``math.inf`` where nothing limits."""
        owner = _current()
        return inf if owner is None else owner.remaining()

    def elapsed(self) -> float:
        """Return the seconds since the budget began, without waits for the client."""
        owner = _current()
        return 0.0 if owner is None else owner.elapsed()

    def pool(self) -> float:
        """Return the seconds nobody has a claim on, ``math.inf`` where nothing limits.

        That is what remains beyond the reserve and the allocations of the stages still to run;
        an optional stage has no claim until it is opened.
        """
        owner = _current()
        return inf if owner is None else owner.pool()

    @property
    def route(self) -> str | None:
        """The route the budget belongs to, ``None`` outside a request."""
        owner = _current()
        return None if owner is None else owner.lane.plan.route

    @property
    def tier(self) -> str | None:
        """The caller's tier; assign it once authentication knows better.

        The budget is then planned anew with the tier's limits, from the same start. A name the
        policy does not list leaves the budget as it is.
        """
        owner = _current()
        return None if owner is None else owner.lane.plan.tier

    @tier.setter
    def tier(self, name: str) -> None:
        owner = _current()
        if owner is not None and owner.end is None:
            lane = owner.lane.lanes.get(name) if isinstance(name, str) else None
            if lane is None:
                owner.lane.fault("unknown_tier")
            else:
                owner.replan(lane)

    def carry(self, function: Callable[P, R]) -> Callable[P, R]:
        """Return *function* bound to this budget, for threads Python does not hand it to.

        ``executor.submit(budget.carry(work))``, ``Thread(target=budget.carry(work))`` and
        ``loop.run_in_executor(None, budget.carry(work))`` need it; ``asyncio.to_thread``, tasks
        and anyio's threads do not. Outside a request *function* is returned as it is. While it
        runs, the request's slot among those that run at once is not free, even if the request
        has ended meanwhile.
        """
        owner = _current()
        if owner is None:
            return function
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def carried_async(*args: Any, **kwargs: Any) -> Any:
                token, held = current_budget.set(owner), _held(owner)
                try:
                    return await function(*args, **kwargs)
                finally:
                    _let_go(owner, held)
                    with suppress(ValueError):  # closed from another context, where nothing is set
                        current_budget.reset(token)

            return cast("Callable[P, R]", carried_async)

        @functools.wraps(function)
        def carried(*args: P.args, **kwargs: P.kwargs) -> R:
            token, held = current_budget.set(owner), _held(owner)
            try:
                return function(*args, **kwargs)
            finally:
                _let_go(owner, held)
                current_budget.reset(token)

        return carried


def _held(owner: Budget) -> Visit | None:
    try:
        return owner.hold()
    except Exception:  # noqa: BLE001 - called by the application, which must not notice
        owner.lane.fault("hold")
        return None


def _let_go(owner: Budget, held: Visit | None) -> None:
    if held is not None:
        try:
            held.leave()
        except Exception:  # noqa: BLE001 - likewise
            owner.lane.fault("hold")


handle = CurrentBudget()
