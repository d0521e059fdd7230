"""The WSGI door: opens a budget for every request of the application it wraps.

The budget is current while the application's code runs, in the call and in each step of the
body, and never in between, so nothing is left behind on the server's thread. The application's
``close()`` is called exactly once, on its own iterable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from budgetware._core.current import current_budget
from budgetware.names import TIER_KEY
from budgetware.runtime import WITH_BODY, Runtime, check_callables
from budgetware.wsgi.bodies import watched
from budgetware.wsgi.exchange import Exchange, StartResponse, TimedExchange, leave
from budgetware.wsgi.uploads import TimedInput

if TYPE_CHECKING:
    from typing import Unpack

    from budgetware.answers.stored import Store
    from budgetware.runtime import Options
    from budgetware.wsgi.helm import Helm

_set = current_budget.set

Environ = dict[str, Any]
WSGIApp = Callable[[Environ, StartResponse], Iterable[bytes]]

__all__ = ["BudgetMiddleware", "Environ", "StartResponse", "WSGIApp"]


class BudgetMiddleware:
    """Puts a budget around every request: ``app.wsgi_app = BudgetMiddleware(app.wsgi_app)``.

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
        server_timing: Whether to answer with a ``Server-Timing`` header, or a predicate of the
            environ that says so per request. It tells callers about internals; off by default.
        options: See ``budgetware.runtime.Options``: ``policy``, ``meter_provider`` and others.

    Raises:
        PolicyError: The policy file cannot be used.
        TypeError: An option does not exist, or *tier* or *server_timing* cannot be called.

    """

    def __init__(  # noqa: PLR0913 - a middleware's options
        self,
        app: WSGIApp,
        *,
        tier: Callable[[Environ], str | None] | None = None,
        identity: Callable[[Environ], str | None] | None = None,
        fallbacks: Mapping[str, Callable[[Any], Any]] | None = None,
        store: Store | None = None,
        server_timing: bool | Callable[[Environ], bool] = False,
        **options: Unpack[Options],
    ) -> None:
        check_callables(tier=tier, identity=identity, server_timing=server_timing or None)
        self._app = app
        self._tier = tier
        self._kind = TimedExchange if server_timing is True else Exchange
        self._tells_timing = server_timing if callable(server_timing) else None
        self._runtime = Runtime.start(**options)
        self._engine = self._runtime.engine
        self._answering = (identity, dict(fallbacks or {}), store)
        self._steers: Helm | None = None

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        engine = self._engine
        try:
            method = environ["REQUEST_METHOD"]
            root = environ.get("SCRIPT_NAME", "")
            path = root + environ.get("PATH_INFO", "")
            if not path.isascii():
                root, path = _decoded(root), _decoded(path)
            tier = environ.get(TIER_KEY) if self._tier is None else self._tier_of(environ)
            if engine.steers:
                steering = engine.lane(method, path or "/", tier, root).steering
                if steering is not None:
                    serve = self._helm().serve
                    return serve(environ, start_response, steering, method, path or "/", tier, root)
            kind = self._kind if self._tells_timing is None else self._kind_of(environ)
            exchange = engine.begin_as(kind, method, path or "/", tier, root)
            exchange.engine = engine
            exchange.forward = start_response
            if method != "GET" and method in WITH_BODY:
                environ["wsgi.input"] = TimedInput(environ["wsgi.input"], exchange)
        except Exception as error:  # noqa: BLE001 - a fault of ours costs the budget, not the answer
            engine.fault("begin", error)
        else:
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

    def _helm(self) -> Helm:
        """Return what serves requests that are decided on; made when there is the first."""
        if self._steers is None:
            from budgetware.wsgi.helm import Helm  # noqa: PLC0415 - most policies only observe

            self._steers = Helm(self._app, self._engine, self._answering)
        return self._steers

    def _kind_of(self, environ: Environ) -> type[Exchange]:
        try:
            tells = self._tells_timing(environ)  # type: ignore[misc]
        except Exception as error:  # noqa: BLE001 - the application's function, our call
            self._engine.fault("server_timing", error)
            return Exchange
        return TimedExchange if tells else Exchange

    def _tier_of(self, environ: Environ) -> str | None:
        try:
            tier = self._tier(environ)  # type: ignore[misc]
        except Exception as error:  # noqa: BLE001 - the application's function, our call
            self._engine.fault("tier", error)
            return None
        return tier if isinstance(tier, str) else None


def _decoded(text: str) -> str:
    # PEP 3333 hands bytes over as latin-1 text.
    return text.encode("latin-1").decode("utf-8", "replace")
