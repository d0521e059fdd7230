"""The WSGI door: opens a budget for every request of the application it wraps.

The budget is current while the application's code runs, in the call and in each step of the
body, and never in between, so nothing is left behind on the server's thread. The application's
``close()`` is called exactly once, on its own iterable.

A request may be answered with something smaller before the application runs, and when the
application opens a stage or asks for it, as long as the response has not begun. A thread at work
can be neither overtaken by the clock nor cancelled: ``budget.shield()`` holds nothing off here,
and a policy with ``cancel_safe`` is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from budgetware._core.admit import is_exempt
from budgetware._core.current import current_budget
from budgetware._core.policy import Mode, Policy
from budgetware.errors import PolicyError, Problem
from budgetware.http import SAFE_METHODS, WITH_BODY
from budgetware.misuse import check_asked, check_served_by, checked_fallbacks
from budgetware.names import TIER_KEY
from budgetware.runtime import Runtime, check_named, is_nested, is_timed, tier_of
from budgetware.wsgi.bodies import watched
from budgetware.wsgi.exchange import Exchange, StartResponse, TimedExchange, leave
from budgetware.wsgi.uploads import TimedInput

if TYPE_CHECKING:
    from typing import Unpack

    from budgetware._core.budget import Budget
    from budgetware.answers.stored import Store
    from budgetware.limits.threads import SharedRates
    from budgetware.runtime import Options
    from budgetware.wsgi.helm import Helm

_current = current_budget.get
_set = current_budget.set

Environ = dict[str, Any]
WSGIApp = Callable[[Environ, StartResponse], Iterable[bytes]]

__all__ = ["BudgetMiddleware", "Environ", "StartResponse", "WSGIApp"]


class BudgetMiddleware:
    """Puts a budget around every request: ``app.wsgi_app = BudgetMiddleware(app.wsgi_app)``.

    A request that another of these with an equal policy, further out, has on its account passes
    through untouched.

    Args:
        app: The WSGI application.
        tier: Names the caller's tier from the WSGI environ. By default the tier is what an outer
            middleware stored as ``environ["budgetware.tier"]``; a request header is never
            believed by itself.
        identity: Names the caller, as the server knows it: cached answers never cross from one
            to another. Requests with credentials and without an identity are never answered from
            the cache.
        fallbacks: The application's own cheap answers by route; each is given the environ.
        store: Where several processes keep full responses, such as ``RedisStore``; this process's
            memory always does.
        rates: Where several processes count their callers' requests together: ``SharedRates``. By
            default each counts for itself.
        server_timing: Whether to answer with a ``Server-Timing`` header, or a predicate of the
            environ that says so per request. It tells callers about internals; off by default.
        options: See ``budgetware.runtime.Options``: ``policy``, ``meter_provider`` and others.

    Raises:
        PolicyError: The policy file cannot be used, or asks for what only ASGI can do.
        TypeError: An option does not exist or is of the wrong kind; *tier*, *identity* or
            *server_timing* cannot be called with the environ alone, or only be awaited; *store* or
            *rates* are not for threads; a fallback does not take one argument, or is for no route.

    """

    def __init__(  # noqa: PLR0913 - a middleware's options
        self,
        app: WSGIApp,
        *,
        tier: Callable[[Environ], str | None] | None = None,
        identity: Callable[[Environ], object] | None = None,
        fallbacks: Mapping[str, Callable[[Any], Any]] | None = None,
        store: Store | None = None,
        rates: SharedRates | None = None,
        server_timing: bool | Callable[[Environ], bool] = False,
        **options: Unpack[Options],
    ) -> None:
        check_asked("environ", tier=tier, identity=identity, server_timing=server_timing)
        check_served_by(store, rates, awaited=False)
        self._app = app
        self._tier = tier
        self._kind = TimedExchange if server_timing is True else Exchange
        self._tells_timing = server_timing if callable(server_timing) else None
        self._runtime = Runtime.start(**options)
        fallbacks = checked_fallbacks(fallbacks, self._runtime.engine.policy.routes)
        self._runtime.miss_fallbacks(fallbacks)
        check_named(self._runtime, store, rates)
        self._engine = self._runtime.engine
        _refuse_cancelling(self._engine.policy)
        self._answering = (identity, fallbacks, store, rates)
        self._helms: list[Helm] = []
        if self._engine.steers:
            self._helm()

    def __call__(  # noqa: C901 - every request pays for a call
        self, environ: Environ, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Serve one request."""
        if (outer := _current()) is not None and self._is_within(outer):
            return self._app(environ, start_response)
        engine = self._engine
        serve = None
        try:
            method = environ["REQUEST_METHOD"]
            root = environ.get("SCRIPT_NAME", "")
            path = root + environ.get("PATH_INFO", "")
            if not path.isascii():
                root, path = _decoded(root), _decoded(path)
            tier = environ.get(TIER_KEY) if self._tier is None else self._tier_of(environ)
            if engine.steers:
                serve = self._steered(environ, start_response, method, path or "/", tier, root)
            if serve is None:
                kind = self._kind if self._tells_timing is None else self._kind_of(environ)
                exchange = engine.begin_as(kind, method, path or "/", tier, root)
                exchange.engine = engine
                exchange.forward = start_response
                if method != "GET" and method in WITH_BODY:
                    environ["wsgi.input"] = TimedInput(environ["wsgi.input"], exchange)
        except Exception as error:  # noqa: BLE001 - a fault of ours costs the budget, not the answer
            engine.fault("begin", error)
        else:
            if serve is not None:
                return serve()
            token = _set(exchange)
            try:
                body = self._app(environ, exchange.start_response)
            except BaseException as error:
                exchange.raised(error)
                exchange.finish()
                raise
            finally:
                leave(token)
            try:
                return watched(exchange, body, environ.get("wsgi.file_wrapper"))
            except Exception as error:  # noqa: BLE001 - likewise
                engine.fault("body", error)
            exchange.finish()
            return body
        # Out here, so that what the application raises has no error of ours for its context.
        return self._app(environ, start_response)

    def _is_within(self, outer: Budget) -> bool:
        """Tell whether another door has the request on its account; said once."""
        nested = is_nested(outer, self._engine)
        if nested:
            self._runtime.telemetry.nested()
        return nested

    def _steered(  # noqa: PLR0913, PLR0917 - what the door has read of the request
        self,
        environ: Environ,
        start_response: StartResponse,
        method: str,
        path: str,
        tier: str | None,
        root: str,
    ) -> Callable[[], Iterable[bytes]] | None:
        """Return what serves the request if it is more than measured, or may come to be."""
        if is_exempt(method, path, root):
            return None
        lane = self._engine.lane(method, path, tier, root)
        visit = self._engine.entrance.visit(lane.plan, method, path, root)
        if (
            lane.steering is None
            and visit is None
            and method in SAFE_METHODS  # after any other nothing kept of its address may be used
            and all(other.steering is None for other in lane.lanes.values())
        ):
            return None
        return partial(self._helm().serve, environ, start_response, lane, visit)

    def _helm(self) -> Helm:
        """Return what serves requests that are decided on; made when there is the first."""
        if not self._helms:
            from budgetware.wsgi.helm import Helm  # noqa: PLC0415 - most policies only observe

            # After a reload two threads may come here at once: the first one's is everybody's.
            self._helms.append(Helm(self._app, self._engine, self._kind_in, self._answering))
        return self._helms[0]

    def _kind_in(self, environ: Environ) -> type[Exchange]:
        return self._kind if self._tells_timing is None else self._kind_of(environ)

    def _kind_of(self, environ: Environ) -> type[Exchange]:
        try:
            timed = is_timed(self._tells_timing, environ)  # type: ignore[arg-type]
        except Exception as error:  # noqa: BLE001 - the application's function, our call
            self._engine.fault("server_timing", error)
            return Exchange
        return TimedExchange if timed else Exchange

    def _tier_of(self, environ: Environ) -> str | None:
        try:
            return tier_of(self._tier, environ)  # type: ignore[arg-type]
        except Exception as error:  # noqa: BLE001 - the application's function, our call
            self._engine.fault("tier", error)
            return None


def _decoded(text: str) -> str:
    # PEP 3333 hands bytes over as latin-1 text.
    return text.encode("latin-1").decode("utf-8", "replace")


def _refuse_cancelling(policy: Policy) -> None:
    """Refuse a policy under which work would have to be cancelled.

    After a reload it is too late to refuse; ``cancel_safe`` is then without effect.
    """
    tiers = tuple(policy.tiers) or (None,)
    problems = tuple(
        Problem(
            message=(
                f"`cancel_safe` on route {name!r} asks for work to be cancelled at its deadline, "
                "but this is the WSGI door, and a thread cannot be cancelled"
            ),
            hint="remove `cancel_safe`, or serve the route by ASGI",
            path=f"routes.{name}.cancel_safe",
            code="cancel-safe-over-wsgi",
        )
        for name, route in policy.routes.items()
        if route.cancel_safe
        and route.match
        and any(policy.mode_of(route, tier) is Mode.ENFORCE for tier in tiers)
    )
    if problems:
        raise PolicyError(problems, policy.source)
