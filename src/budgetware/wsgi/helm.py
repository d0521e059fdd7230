"""The WSGI door's way for policies under which something is decided, and not only measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from random import random
from typing import TYPE_CHECKING, Any, Final

from budgetware._core.current import current_budget
from budgetware.answers.cache import ResponseCache
from budgetware.answers.menu import SHARED_S, ThreadMenu
from budgetware.http import WITH_BODY
from budgetware.runtime import identity_of
from budgetware.wsgi.asked import facts_of
from budgetware.wsgi.bodies import watched
from budgetware.wsgi.exchange import Exchange, StartResponse, TimedExchange, leave
from budgetware.wsgi.gate import Gate
from budgetware.wsgi.keeping import Keeping
from budgetware.wsgi.steered import GatedExchange, SteeredExchange
from budgetware.wsgi.steps import SizedSteeredBody, SteeredBody
from budgetware.wsgi.uploads import TimedInput, UncacheableInput

if TYPE_CHECKING:
    from budgetware._core.engine import Engine
    from budgetware._core.entrance import Visit
    from budgetware._core.lane import Lane
    from budgetware._core.steering import Steering
    from budgetware.answers.stored import Store
    from budgetware.limits.threads import SharedRates

_set = current_budget.set

App = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]

_CACHEABLE: Final = frozenset({"GET", "HEAD"})

Answering = tuple[
    Callable[[dict[str, Any]], object] | None,
    Mapping[str, Callable[[Any], Any]],
    "Store | None",
    "SharedRates | None",
]
"""Who names the caller, the application's own fallbacks by route, the shared store and rates."""


class Helm:
    """Serves requests that may be answered with something smaller, or not be let in at once.

    Args:
        app: The application.
        engine: Begins and ends budgets, and holds what steers them.
        kind_in: Returns ``TimedExchange`` for an environ whose answer tells where the time went.
        answering: See ``Answering``.

    """

    def __init__(
        self,
        app: App,
        engine: Engine,
        kind_in: Callable[[dict[str, Any]], type[Exchange]],
        answering: Answering,
    ) -> None:
        self._app = app
        self._engine = engine
        self._kind_in = kind_in
        self._identity, self._fallbacks, store, rates = answering
        self._gate = Gate(engine, rates)
        self._cache = ResponseCache(shared=store, told=engine.cached)
        self._shared_s = 0.0 if store is None else SHARED_S

    def serve(
        self,
        environ: dict[str, Any],
        start_response: StartResponse,
        lane: Lane,
        visit: Visit | None,
    ) -> Iterable[bytes]:
        """Serve one request of *lane*, which *visit* stands for at the entrance."""
        engine = self._engine
        try:
            exchange = engine.begin_in(GatedExchange if lane.gates else SteeredExchange, lane)
            exchange.engine = engine
            exchange.forward = start_response
            exchange.timed_answer = self._kind_in(environ) is TimedExchange
            asked = facts_of(
                environ, lane.plan, identity_of(self._identity, environ, self._engine.fault)
            )
            exchange.prepare(environ, asked, self._menu, Keeping(self._cache))
            method = environ["REQUEST_METHOD"]
            if method in WITH_BODY:
                environ["wsgi.input"] = TimedInput(environ["wsgi.input"], exchange)
            elif method in _CACHEABLE and lane.plan.cache is not None and "wsgi.input" in environ:
                environ["wsgi.input"] = UncacheableInput(environ["wsgi.input"], exchange)
            elif visit is not None and "wsgi.input" in environ:  # whose slot may be lent is watched
                environ["wsgi.input"] = TimedInput(environ["wsgi.input"], exchange)
        except Exception as error:  # noqa: BLE001 - a fault of ours costs the budget, not the answer
            engine.fault("begin", error)
        else:
            turned_away = None if visit is None else self._gate.turn_away(visit, exchange)
            if turned_away is not None:
                return turned_away
            if lane.steering is not None:
                exchange.embark(lane.steering)
            return self._run(environ, exchange)
        return self._app(environ, start_response)

    def _run(self, environ: dict[str, Any], exchange: SteeredExchange) -> Iterable[bytes]:
        outer = current_budget.get()
        token = _set(exchange)
        try:
            smaller = exchange.at_once()
            if smaller is not None:
                return smaller
            body = self._app(environ, exchange.start_response)
        except BaseException as error:  # noqa: BLE001 - raised again unless it is for us
            smaller = None
            try:
                smaller = exchange.turned(error, outer)
                if smaller is None:
                    exchange.raised(error)
                    raise
            finally:
                if smaller is None:
                    exchange.finish()
            return smaller
        finally:
            leave(token)
        try:
            wrapper = environ.get("wsgi.file_wrapper")
            steps = watched(exchange, body, wrapper, (SteeredBody, SizedSteeredBody))
            if steps is body:  # it was complete, or is a file that the server sends by itself
                exchange.keeping.whole = True
                exchange.idle()
        except Exception as error:  # noqa: BLE001 - likewise
            self._engine.fault("body", error)
        else:
            return steps
        exchange.finish()
        return body

    def _menu(self, steering: Steering) -> ThreadMenu:
        """Return what the route and tier of *steering* may answer with."""
        found = steering.menu
        if not isinstance(found, ThreadMenu):
            plan = steering.plan
            fallback = self._fallbacks.get(plan.route)
            fault = self._engine.fault
            found = ThreadMenu(plan, self._cache, fallback, random, fault, self._shared_s)
            steering.menu = found
        return found
