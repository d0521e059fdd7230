"""The ASGI door: opens a budget for every HTTP request of the application it wraps.

The middleware holds configuration only; an ``Exchange`` holds the request. The application
runs in the caller's task with the caller's scope, its messages pass through as the same objects,
and its return value and exceptions are its own.
"""

from __future__ import annotations

import asyncio
import copy
import importlib
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from budgetware._core.admit import is_exempt
from budgetware._core.current import current_budget
from budgetware._core.policy import Policy
from budgetware.asgi.exchange import (
    ASGIApp,
    Exchange,
    Message,
    Receive,
    Scope,
    Send,
    TimedExchange,
)
from budgetware.errors import BudgetwareError
from budgetware.http import WITH_BODY
from budgetware.misuse import check_asked, check_served_by, checked_fallbacks
from budgetware.names import TIER_KEY
from budgetware.runtime import (
    Runtime,
    check_named,
    check_options,
    is_nested,
    is_timed,
    policy_of,
    tier_of,
)

if TYPE_CHECKING:
    from typing import Unpack

    from budgetware._core.budget import Budget
    from budgetware._core.engine import Engine
    from budgetware.answers.stored import AsyncStore
    from budgetware.asgi.helm import Helm
    from budgetware.limits.tasks import AsyncSharedRates
    from budgetware.runtime import Options

__all__ = ["ASGIApp", "BudgetMiddleware", "Message", "Receive", "Scope", "Send"]

_current = current_budget.get
_set = current_budget.set
_reset = current_budget.reset


class BudgetMiddleware:
    """Puts a budget around every HTTP request: ``app.add_middleware(BudgetMiddleware)``.

    Websockets, lifespan and whatever else is not HTTP pass through untouched; so does a request
    that another of these with an equal policy, further out, has on its account.

    Args:
        app: The ASGI application.
        tier: Names the caller's tier from the ASGI scope. By default the tier is what an outer
            middleware stored as ``scope["state"]["budgetware.tier"]``; a request header is never
            believed by itself.
        identity: Names the caller, as the server knows it: cached answers never cross from one
            to another. Requests with credentials and without an identity are never answered from
            the cache.
        fallbacks: The application's own cheap answers by route; each is given the scope.
        store: Where several processes keep full responses, such as ``AsyncRedisStore``; this
            process's memory always does.
        rates: Where several processes count their callers' requests together: ``AsyncSharedRates``.
            By default each counts for itself.
        server_timing: Whether to answer with a ``Server-Timing`` header, or a predicate of the
            scope that says so per request. It tells callers about internals; off by default.
        options: See ``budgetware.runtime.Options``: ``policy``, ``meter_provider`` and others.

    Raises:
        PolicyError: The policy file cannot be used.
        TypeError: An option does not exist or is of the wrong kind; *tier*, *identity* or
            *server_timing* cannot be called with the scope alone, or only be awaited; *store* or
            *rates* are not for coroutines; a fallback does not take one argument, or is for no
            route.
        ValueError: ``BUDGETWARE_MODE`` names no mode.

    """

    def __init__(  # noqa: PLR0913 - a middleware's options
        self,
        app: ASGIApp,
        *,
        tier: Callable[[Scope], str | None] | None = None,
        identity: Callable[[Scope], object] | None = None,
        fallbacks: Mapping[str, Callable[[Any], Any]] | None = None,
        store: AsyncStore | None = None,
        rates: AsyncSharedRates | None = None,
        server_timing: bool | Callable[[Scope], bool] = False,
        **options: Unpack[Options],
    ) -> None:
        self._app = app
        self._tier = tier
        self._kind = TimedExchange if server_timing is True else Exchange
        self._tells_timing = server_timing if callable(server_timing) else None
        self._asks = {"tier": tier, "identity": identity, "server_timing": server_timing}
        self._answering = (identity, fallbacks or {}, store, rates)
        self._options = options
        self._steers: Helm | None = None
        self._has_looked = False
        self._lifespan_state: object = None
        if not _in_event_loop():
            self._check()
            self._open(self._read())

    async def __call__(  # noqa: C901, PLR0912 - every request pays for a call
        self, scope: Scope, receive: Receive, send: Send
    ) -> Any:
        """Serve one connection."""
        try:
            engine = self._engine
        except AttributeError:
            engine = await self._opened()
        try:
            is_http = scope["type"] == "http"
        except (KeyError, TypeError):  # it is no scope, and the application says so
            is_http = False
        if not is_http or ((outer := _current()) is not None and self._is_within(outer)):
            if not is_http:
                self._look_at(scope)
            if engine.steers:
                self._look_for_a_clock()
            return await self._app(scope, receive, send)
        if engine.steers and self._is_decided_on(scope):
            if not self._has_looked:  # servers may do without lifespan
                self._look_for_a_clock()
            return await self._helm().serve(scope, receive, send, self._lifespan_state)
        try:
            method = scope["method"]
            if self._tier is None:
                state = scope.get("state")
                tier = state.get(TIER_KEY) if state else None
            else:
                tier = self._tier_of(scope)
            kind = self._kind if self._tells_timing is None else self._kind_of(scope)
            exchange = engine.begin_as(kind, method, scope["path"], tier, scope.get("root_path"))
            exchange.engine = engine
            exchange.forward = send
            if method != "GET" and method in WITH_BODY:
                receive = exchange.timed(receive)
        except Exception as error:  # noqa: BLE001 - a fault of ours costs the budget, not the answer
            engine.fault("begin", error)
        else:
            token = _set(exchange)
            try:
                return await self._app(scope, receive, exchange.send)
            except BaseException as error:
                exchange.raised(error)
                raise
            finally:
                if exchange.end is None:
                    exchange.finish()
                try:  # noqa: SIM105 - suppress() would cost every request a call
                    _reset(token)
                except ValueError:
                    # The server closed the coroutine from another context, where nothing was set.
                    pass
        # Out here, so that what the application raises has no error of ours for its context.
        return await self._app(scope, receive, send)

    def _check(self) -> None:
        """Refuse what could not be asked or would not be awaited, for every request."""
        _, _, store, rates = self._answering
        check_asked("scope", **self._asks)
        check_served_by(store, rates, awaited=True)
        check_options(self._options)

    def _read(self) -> Policy:
        """Return the policy, having imported what it needs."""
        policy = policy_of(self._options)
        if policy.decides:
            importlib.import_module("budgetware.asgi.helm")
        return policy

    def _open(self, policy: Policy) -> None:
        """Begin to serve under *policy*."""
        self._options["policy"] = policy
        self._options.pop("environment", None)  # it was read with it
        self._runtime = Runtime.start(**self._options)
        identity, fallbacks, store, rates = self._answering
        fallbacks = checked_fallbacks(fallbacks, policy.routes)
        self._answering = (identity, fallbacks, store, rates)
        self._runtime.miss_fallbacks(fallbacks)
        check_named(self._runtime, store, rates)
        self._engine = self._runtime.engine
        if self._engine.steers:
            self._helm()

    async def _opened(self) -> Engine:
        """Open a door that was made in a running event loop, which must not wait for a file.

        Starlette makes its middleware when the server is already running, and servers take an
        exception there for an application without lifespan. So it is said in their words.
        """
        import anyio.to_thread  # noqa: PLC0415 - only a door that is made in a loop needs it

        try:
            async with self.__dict__.setdefault("_opening", anyio.Lock()):
                if not hasattr(self, "_engine"):  # others may have come at the same moment
                    self._check()
                    self._open(await anyio.to_thread.run_sync(self._read))
        except (BudgetwareError, TypeError, ValueError) as error:
            self._app = _refusing(error)
            self._runtime = Runtime(
                Policy(service="refused"), {"histograms": "off", "traces": "off"}
            )
            self._engine = self._runtime.engine
        return self._engine

    def _helm(self) -> Helm:
        """Return what serves requests that are decided on; made when there is the first."""
        if self._steers is None:
            from budgetware.asgi.helm import Helm  # noqa: PLC0415 - most policies only observe

            self._steers = Helm(
                self._app, self._engine, self._tier_in, self._kind_in, self._answering
            )
        return self._steers

    def _look_at(self, scope: Scope) -> None:
        """Note what the server's lifespan gives to the state of every request."""
        try:
            if scope["type"] == "lifespan":
                self._lifespan_state = scope.get("state")
        except Exception:  # noqa: BLE001, S110 - it is no scope, and the application says so
            pass

    def _is_within(self, outer: Budget) -> bool:
        """Tell whether another door has the request on its account; said once."""
        nested = is_nested(outer, self._engine)
        if nested:
            self._runtime.telemetry.nested()
        return nested

    def _look_for_a_clock(self) -> None:
        """Say, once, that there is none on trio."""
        self._has_looked = True
        if _is_on_trio():
            self._runtime.telemetry.no_clock()

    def _is_decided_on(self, scope: Scope) -> bool:
        """Tell whether anything may be decided on a request: on all but the exempt ones."""
        try:
            return not is_exempt(scope["method"], scope["path"], scope.get("root_path"))
        except Exception:  # noqa: BLE001 - who serves it finds the same, and counts it
            return True

    def _tier_in(self, scope: Scope) -> str | None:
        if self._tier is not None:
            return self._tier_of(scope)
        state = scope.get("state")
        return state.get(TIER_KEY) if state else None

    def _kind_in(self, scope: Scope) -> type[Exchange]:
        return self._kind if self._tells_timing is None else self._kind_of(scope)

    def _kind_of(self, scope: Scope) -> type[Exchange]:
        try:
            timed = is_timed(self._tells_timing, scope)  # type: ignore[arg-type]
        except Exception as error:  # noqa: BLE001 - the application's function, our call
            self._engine.fault("server_timing", error)
            return Exchange
        return TimedExchange if timed else Exchange

    def _tier_of(self, scope: Scope) -> str | None:
        try:
            return tier_of(self._tier, scope)  # type: ignore[arg-type]
        except Exception as error:  # noqa: BLE001 - the application's function, our call
            self._engine.fault("tier", error)
            return None


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _is_on_trio()
    return True


def _is_on_trio() -> bool:
    trio: Any = sys.modules.get("trio")
    return trio is not None and bool(trio.lowlevel.in_trio_run())


def _refusing(error: Exception) -> ASGIApp:
    """Return an application that does not start, and says why.

    It raises a copy each time: an exception that is raised again keeps the frames of all before.
    """
    # The thread that read the policy may keep its error for a while, but not the first request.
    error.__traceback__ = error.__context__ = None
    error = copy.copy(error)

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            raise copy.copy(error)
        await receive()
        await send({"type": "lifespan.startup.failed", "message": str(error)})
        raise copy.copy(error)  # some test clients wait for the call to end with one

    return refuse
