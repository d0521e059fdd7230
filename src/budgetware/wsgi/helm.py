"""The WSGI door's way for policies under which something is decided, and not only measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from random import random
from typing import TYPE_CHECKING, Any

from budgetware._core.current import current_budget
from budgetware.answers.cache import ResponseCache
from budgetware.answers.facts import RequestFacts
from budgetware.answers.menu import SHARED_S, ThreadMenu
from budgetware.runtime import WITH_BODY
from budgetware.wsgi.bodies import watched
from budgetware.wsgi.exchange import StartResponse, leave
from budgetware.wsgi.steered import Collecting, SteeredExchange
from budgetware.wsgi.uploads import TimedInput

if TYPE_CHECKING:
    from budgetware._core.engine import Engine
    from budgetware._core.steering import Steering
    from budgetware.answers.stored import Store

_set = current_budget.set

App = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]

Answering = tuple[
    Callable[[dict[str, Any]], str | None] | None,
    Mapping[str, Callable[[Any], Any]],
    "Store | None",
]
"""Who names the caller, the application's own fallbacks by route, and the shared store."""


class Helm:
    """Serves requests that may be answered with something smaller.

    Args:
        app: The application.
        engine: Begins and ends budgets, and holds what steers them.
        answering: See ``Answering``.

    """

    def __init__(self, app: App, engine: Engine, answering: Answering) -> None:
        self._app = app
        self._engine = engine
        self._identity, self._fallbacks, store = answering
        self._cache = ResponseCache(shared=store)
        self._shared_s = 0.0 if store is None else SHARED_S

    def serve(  # noqa: PLR0913, PLR0917 - what the door has read of the request
        self,
        environ: dict[str, Any],
        start_response: StartResponse,
        steering: Steering,
        method: str,
        path: str,
        tier: str | None,
        root: str,
    ) -> Iterable[bytes]:
        """Serve one request of a lane that *steering* decides for."""
        engine = self._engine
        try:
            exchange = engine.begin_as(SteeredExchange, method, path, tier, root)
            exchange.engine = engine
            exchange.forward = start_response
            asked = self._facts(environ, steering.plan.route, steering.plan.tier)
            exchange.embark(steering, self._menu(steering), asked, environ)
            if method != "GET" and method in WITH_BODY:
                environ["wsgi.input"] = TimedInput(environ["wsgi.input"], exchange)
            smaller = exchange.at_once()
        except Exception as error:  # noqa: BLE001 - a fault of ours costs the budget, not the answer
            engine.fault("begin", error)
            return self._app(environ, start_response)
        if smaller is not None:
            exchange.finish()
            return smaller
        token = _set(exchange)
        try:
            body = self._app(environ, exchange.start_response)
        except BaseException as error:
            smaller = exchange.turned(error)
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
            return steps if exchange.draft is None else Collecting(exchange, steps)
        except Exception as error:  # noqa: BLE001 - likewise
            engine.fault("body", error)
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
