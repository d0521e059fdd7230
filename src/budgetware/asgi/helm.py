"""The ASGI door's way for policies under which something is decided, and not only measured."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import partial
from random import random
from typing import TYPE_CHECKING, Any

from budgetware._core.current import current_budget
from budgetware.answers.cache import AsyncResponseCache
from budgetware.answers.menu import SHARED_S, Menu
from budgetware.asgi.asked import facts_of
from budgetware.asgi.exchange import ASGIApp, Exchange, Receive, Scope, Send, TimedExchange
from budgetware.asgi.gate import Gate
from budgetware.asgi.keeping import Keeping
from budgetware.asgi.steered import GatedExchange, SteeredExchange
from budgetware.http import WITH_BODY
from budgetware.runtime import identity_of

if TYPE_CHECKING:
    from budgetware._core.engine import Engine
    from budgetware._core.steering import Steering
    from budgetware.answers.stored import AsyncStore
    from budgetware.limits.tasks import AsyncSharedRates

# anyio imports it when it is first used, which would be in front of a request.
importlib.import_module("anyio._backends._asyncio")

_set = current_budget.set
_reset = current_budget.reset

Answering = tuple[
    Callable[[Scope], object] | None,
    Mapping[str, Callable[[Any], Any]],
    "AsyncStore | None",
    "AsyncSharedRates | None",
]
"""Who names the caller, the application's own fallbacks by route, the shared store and rates."""


class Helm:
    """Serves requests that may be answered with something smaller, or not be let in at once.

    Args:
        app: The application.
        engine: Begins and ends budgets, and holds what steers them.
        tier_in: Returns the tier of a scope.
        kind_in: Returns ``TimedExchange`` for a scope whose answer tells where the time went.
        answering: See ``Answering``.

    """

    def __init__(
        self,
        app: ASGIApp,
        engine: Engine,
        tier_in: Callable[[Scope], str | None],
        kind_in: Callable[[Scope], type[Exchange]],
        answering: Answering,
    ) -> None:
        self._app = app
        self._engine = engine
        self._tier_in = tier_in
        self._kind_in = kind_in
        self._identity, self._fallbacks, store, rates = answering
        self._gate = Gate(engine, rates)
        self._cache = AsyncResponseCache(shared=store, told=engine.cached)
        self._shared_s = 0.0 if store is None else SHARED_S

    async def serve(
        self, scope: Scope, receive: Receive, send: Send, lifespan_state: object
    ) -> Any:
        """Serve one request of a server that gives each a copy of *lifespan_state*."""
        engine = self._engine
        try:
            method, path, root = scope["method"], scope["path"], scope.get("root_path")
            lane = engine.lane(method, path, self._tier_in(scope), root)
            exchange = engine.begin_in(GatedExchange if lane.gates else SteeredExchange, lane)
            exchange.engine = engine
            exchange.forward = send
            exchange.timed_answer = self._kind_in(scope) is TimedExchange
            who = identity_of(self._identity, scope, engine.fault)
            asked = facts_of(scope, lane.plan, who, lifespan_state)
            exchange.prepare(scope, asked, self._menu, Keeping(self._cache))
            visit = engine.entrance.visit(lane.plan, method, path, root)
            if lane.steering is not None and visit is None:
                exchange.embark(lane.steering)
            if visit is not None or method in WITH_BODY:  # whose slot may be lent is watched
                receive = exchange.timed(receive)
        except Exception as error:  # noqa: BLE001 - a fault of ours costs the budget, not the answer
            engine.fault("begin", error)
        else:
            if visit is None:
                return await self._run(exchange, receive)
            run = partial(self._run, exchange, receive)
            return await self._gate.serve(visit, exchange, run)
        return await self._app(scope, receive, send)

    async def _run(self, exchange: SteeredExchange, receive: Receive) -> Any:
        token = _set(exchange)
        try:
            return await exchange.serve(self._app, receive)
        except BaseException as error:
            exchange.raised(error)
            raise
        finally:
            exchange.finish()
            try:  # noqa: SIM105 - as in the door itself
                _reset(token)
            except ValueError:
                pass

    def _menu(self, steering: Steering) -> Menu:
        """Return what the route and tier of *steering* may answer with."""
        found = steering.menu
        if not isinstance(found, Menu):
            plan = steering.plan
            fallback = self._fallbacks.get(plan.route)
            found = Menu(plan, self._cache, fallback, random, self._engine.fault, self._shared_s)
            steering.menu = found
        return found
