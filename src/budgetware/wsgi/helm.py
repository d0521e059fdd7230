"""The WSGI door's way for policies under which something is decided, and not only measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from random import random
from typing import TYPE_CHECKING, Any

from budgetware._core.current import current_budget
from budgetware._core.entrance import after_waiting
from budgetware.answers.cache import ResponseCache
from budgetware.answers.facts import RequestFacts
from budgetware.answers.menu import SHARED_S, ThreadMenu
from budgetware.runtime import WITH_BODY
from budgetware.wsgi.bodies import watched
from budgetware.wsgi.exchange import Exchange, StartResponse, TimedExchange, leave
from budgetware.wsgi.gate import (
    AdmittedExchange,
    AdmittedSteeredExchange,
    AdmittedTimedExchange,
    Gate,
)
from budgetware.wsgi.steered import Collecting, SteeredExchange
from budgetware.wsgi.uploads import TimedInput

if TYPE_CHECKING:
    from budgetware._core.engine import Engine
    from budgetware._core.entrance import Visit
    from budgetware._core.lane import Lane
    from budgetware._core.steering import Steering
    from budgetware.answers.stored import Store
    from budgetware.limits.threads import SharedRates

_set = current_budget.set

App = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]

Answering = tuple[
    Callable[[dict[str, Any]], str | None] | None,
    Mapping[str, Callable[[Any], Any]],
    "Store | None",
    "SharedRates | None",
]
"""Who names the caller, the application's own fallbacks by route, the shared store and rates."""

Where = tuple[str, str, str | None, str]
"""A request's method, path, tier, and where the application is mounted."""


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
        self._cache = ResponseCache(shared=store)
        self._shared_s = 0.0 if store is None else SHARED_S

    def serve(
        self,
        environ: dict[str, Any],
        start_response: StartResponse,
        lane: Lane,
        visit: Visit | None,
        where: Where,
    ) -> Iterable[bytes]:
        """Serve one request of *lane*: steered, or asked at the entrance, or both."""
        engine = self._engine
        try:
            exchange = self._begun(environ, lane, visit, where)
            exchange.engine = engine
            exchange.forward = start_response
            steering, menu, asked = lane.steering, None, None
            if steering is not None:
                menu = self._menu(steering)
                asked = self._facts(environ, steering.plan.route, steering.plan.tier)
            if where[0] != "GET" and where[0] in WITH_BODY:
                environ["wsgi.input"] = TimedInput(environ["wsgi.input"], exchange)
        except Exception as error:  # noqa: BLE001 - a fault of ours costs the budget, not the answer
            engine.fault("begin", error)
            return self._app(environ, start_response)
        if visit is not None:
            who = partial(self._identity_of, environ)
            if asked is not None:
                who = partial(getattr, asked, "identity")
            answer = self._gate.turn_away(visit, exchange, environ, menu, asked, who)
            if answer is not None:
                return answer
        if isinstance(exchange, SteeredExchange):
            try:
                exchange.embark(steering, menu, asked, environ)  # type: ignore[arg-type]
                smaller = self._at_once(exchange, steering, visit)
            except Exception as error:  # noqa: BLE001 - likewise
                engine.fault("begin", error)
                return self._app(environ, start_response)
            if smaller is not None:
                exchange.finish()
                return smaller
        return self._run(environ, exchange)

    @staticmethod
    def _at_once(
        exchange: SteeredExchange, steering: Steering | None, visit: Visit | None
    ) -> Iterable[bytes] | None:
        if visit is not None and visit.waited and steering is not None:
            exchange.course = after_waiting(exchange.course, steering, exchange.clock())
        return exchange.at_once()

    def _begun(
        self, environ: dict[str, Any], lane: Lane, visit: Visit | None, where: Where
    ) -> Exchange:
        if visit is None:
            return self._engine.begin_as(SteeredExchange, *where)
        kind: type[AdmittedExchange | AdmittedSteeredExchange] = AdmittedSteeredExchange
        if lane.steering is None:
            timed = self._kind_in(environ) is TimedExchange
            kind = AdmittedTimedExchange if timed else AdmittedExchange
        exchange = self._engine.begin_as(kind, *where)
        exchange.visit = visit
        return exchange

    def _run(self, environ: dict[str, Any], exchange: Exchange) -> Iterable[bytes]:
        token = _set(exchange)
        try:
            body = self._app(environ, exchange.start_response)
        except BaseException as error:
            smaller = exchange.turned(error) if isinstance(exchange, SteeredExchange) else None
            if smaller is not None:
                exchange.finish()
                return smaller
            exchange.raised(error)
            exchange.finish()
            raise
        finally:
            leave(token)
        try:
            steps = watched(exchange, body, environ.get("wsgi.file_wrapper"))
            if isinstance(exchange, SteeredExchange) and exchange.draft is not None:
                return Collecting(exchange, steps)
        except Exception as error:  # noqa: BLE001 - likewise
            self._engine.fault("body", error)
        else:
            return steps
        exchange.finish()
        return body

    def _menu(self, steering: Steering) -> ThreadMenu:
        found = steering.menu
        if not isinstance(found, ThreadMenu):
            plan = steering.plan
            fallback = self._fallbacks.get(plan.route)
            fault = self._engine.fault
            found = ThreadMenu(plan, self._cache, fallback, random, fault, self._shared_s)
            steering.menu = found
        return found

    def _facts(self, environ: dict[str, Any], route: str, tier: str | None) -> RequestFacts:
        target = environ.get("RAW_URI") or environ.get("REQUEST_URI")
        if target is None:
            query = environ.get("QUERY_STRING", "")
            target = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
            target += "?" + query if query else ""
        headers = [
            (name[5:].replace("_", "-").lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in environ.items()
            if name.startswith("HTTP_") and isinstance(value, str)
        ]
        return RequestFacts(
            route=route,
            method=environ["REQUEST_METHOD"],
            target=target.encode("latin-1", "replace"),
            headers=tuple(headers),
            scheme=environ.get("wsgi.url_scheme", "http"),
            tier=tier,
            identity=self._identity_of(environ),
        )

    def _identity_of(self, environ: dict[str, Any]) -> str | None:
        if self._identity is None:
            return None
        try:
            identity = self._identity(environ)
        except Exception as error:  # noqa: BLE001 - the application's function, our call
            self._engine.fault("identity", error)
            return None
        return identity if isinstance(identity, str) else None
