"""The ASGI door: opens a budget for every HTTP request of the application it wraps.

The middleware holds configuration only; an ``_Exchange`` holds the request. The application
runs in the caller's task with the caller's scope, its messages pass through as the same objects,
and its return value and exceptions are its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from math import inf
from typing import TYPE_CHECKING, Any, Final

from budgetware._core.budget import Budget
from budgetware._core.current import current_budget
from budgetware._core.engine import Engine
from budgetware._core.policy import Policy
from budgetware.errors import BudgetwareError
from budgetware.names import SERVER_TIMING, TIER_KEY
from budgetware.runtime import (
    SERVER_ERROR,
    SHORTEST_WAIT_S,
    WITH_BODY,
    Runtime,
    check_callables,
)
from budgetware.telemetry.server_timing import render

if TYPE_CHECKING:
    from typing import Unpack

    from budgetware.runtime import Options

_set = current_budget.set
_reset = current_budget.reset

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[Any]]

_SERVER_TIMING: Final = SERVER_TIMING.lower().encode("ascii")


class BudgetMiddleware:
    """Puts a budget around every HTTP request: ``app.add_middleware(BudgetMiddleware)``.

    Websockets, lifespan and whatever else is not HTTP pass through untouched.

    Args:
        app: The ASGI application.
        tier: Names the caller's tier from the ASGI scope. By default the tier is what an outer
            middleware stored as ``scope["state"]["budgetware.tier"]``; a request header is never
            believed by itself.
        server_timing: Whether to answer with a ``Server-Timing`` header, or a predicate of the
            scope that says so per request. It tells callers about internals; off by default.
        options: See ``budgetware.runtime.Options``: ``policy``, ``meter_provider`` and others.

    Raises:
        PolicyError: The policy file cannot be used.
        TypeError: An option does not exist, or *tier* or *server_timing* cannot be called.

    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        tier: Callable[[Scope], str | None] | None = None,
        server_timing: bool | Callable[[Scope], bool] = False,
        **options: Unpack[Options],
    ) -> None:
        check_callables(tier=tier, server_timing=server_timing or None)
        self._app = app
        self._tier = tier
        self._kind = _TimedExchange if server_timing is True else _Exchange
        self._tells_timing = server_timing if callable(server_timing) else None
        try:
            self._runtime = Runtime.start(**options)
        except BudgetwareError as error:
            if not _in_event_loop():
                raise
            # Starlette makes its middleware when the server is already running, and servers take
            # an exception there for an application without lifespan. So it is said in their words.
            self._app = _refusing(error)
            self._runtime = Runtime(
                Policy(service="refused"), {"histograms": "off", "traces": "off"}
            )
        self._engine = self._runtime.engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Serve one connection."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        engine = self._engine
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

    def _kind_of(self, scope: Scope) -> type[_Exchange]:
        try:
            tells = self._tells_timing(scope)  # type: ignore[misc]
        except Exception as error:  # noqa: BLE001 - the application's function, our call
            self._engine.fault("server_timing", error)
            return _Exchange
        return _TimedExchange if tells else _Exchange

    def _tier_of(self, scope: Scope) -> str | None:
        try:
            tier = self._tier(scope)  # type: ignore[misc]
        except Exception as error:  # noqa: BLE001 - the application's function, our call
            self._engine.fault("tier", error)
            return None
        return tier if isinstance(tier, str) else None


def _in_event_loop() -> bool:
    import anyio  # noqa: PLC0415 - only a door that cannot be opened asks

    try:
        anyio.get_current_task()
    except Exception:  # noqa: BLE001 - the exception's type differs between versions of anyio
        return False
    return True


def _refusing(error: BudgetwareError) -> ASGIApp:
    """Return an application that does not start, and says why."""

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            raise error
        await receive()
        await send({"type": "lifespan.startup.failed", "message": str(error)})

    return refuse


class _Exchange(Budget):
    """One request and its response: a budget that watches the messages pass."""

    __slots__ = ("engine", "forward")

    engine: Engine
    forward: Send

    def send(self, message: Message) -> Awaitable[None]:
        """Pass a message of the application on, noting the response's first and last byte.

        It gives what the server's own ``send`` gives, so that a message costs no coroutine of
        ours unless there is something to do after it has left.
        """
        try:
            kind = message["type"]
            if kind == "http.response.body":
                if "more_body" in message or self.odd:
                    return self._send_body(message)
                if self.engine.end(self):
                    return self._send_and_tell(message)
            elif kind == "http.response.start":
                status = self.status = message["status"]
                if status >= SERVER_ERROR:
                    self.engine.fail(self)
                if "trailers" in message:
                    self.odd = self.trailers = message["trailers"]
            elif kind in _OTHER_PARTS:
                return self._send_body(message)
        except Exception as error:  # noqa: BLE001 - a fault of ours must not lose the message
            self.engine.fault("send", error)
        forward = self.forward
        return forward(message)

    def timed(self, receive: Receive) -> Receive:
        """Return *receive* with the waits for the request's body left out of the budget."""
        engine = self.engine
        pending = True

        async def timed_receive() -> Message:
            nonlocal pending
            if not pending:
                return await receive()
            before = self._wait()
            try:
                message = await receive()
            finally:
                self._resume(before)
            try:
                kind = message["type"]
                if kind == "http.request":
                    pending = message.get("more_body", False)
                elif kind == "http.disconnect":
                    pending = False
                    if not hasattr(self, "status"):
                        engine.lose(self)
            except Exception as error:  # noqa: BLE001 - a fault of ours must not lose the message
                engine.fault("receive", error)
            return message

        return timed_receive

    def raised(self, error: BaseException) -> None:
        """Note that *error* left the application."""
        try:
            self.error = type(error)
            if isinstance(error, Exception):
                self.engine.fail(self)
        except Exception as fault:  # noqa: BLE001 - a fault of ours must not replace the error
            self.engine.fault("raised", fault)

    def finish(self) -> None:
        """Finish the budget of an application that came to an end without a last message."""
        try:
            error = getattr(self, "error", None)
            if hasattr(self, "status") or (error is not None and issubclass(error, Exception)):
                self.engine.finish(self)
            else:
                # Neither an answer nor an error of the application: nobody was left to answer.
                self.engine.lose(self)
        except Exception as fault:  # noqa: BLE001 - a fault of ours must not replace the outcome
            self.engine.fault("finish", fault)

    def _send_body(self, message: Message) -> Awaitable[None]:
        more = message.get("more_body") or message.get("more_trailers")
        trailers = getattr(self, "trailers", False)
        if more or (trailers and message["type"] != _TRAILERS):
            return self._send_part(message)
        if self.engine.end(self):
            return self._send_and_tell(message)
        forward = self.forward
        return forward(message)

    def _wait(self, *, byte: bool = False) -> float:
        """Return when a wait for the client begins, having noted the first *byte*."""
        try:
            now = self.clock()
            if byte:
                self.answering(now)
        except Exception as error:  # noqa: BLE001 - a fault of ours must not lose a message
            self.engine.fault("clock", error)
            return inf  # as the beginning of a wait, it makes no wait
        return now

    async def _send_part(self, message: Message) -> None:
        # The server holds a send back while the client does not read.
        byte = bool(message.get("body")) or "file" in message or "path" in message
        before = self._wait(byte=byte)
        try:
            await self.forward(message)
        finally:
            self._resume(before)

    def _resume(self, before: float) -> None:
        try:
            waited_s = self.clock() - before
            if waited_s > SHORTEST_WAIT_S:
                self.pause(waited_s)
        except Exception as error:  # noqa: BLE001 - a fault of ours must not end the response
            self.engine.fault("pause", error)

    async def _send_and_tell(self, message: Message) -> None:
        try:
            await self.forward(message)
        finally:
            try:
                self.engine.tell(self)
            except Exception as error:  # noqa: BLE001 - likewise
                self.engine.fault("tell", error)


class _TimedExchange(_Exchange):
    """An exchange whose response tells where the time went."""

    __slots__ = ()

    def send(self, message: Message) -> Awaitable[None]:
        """Put a ``Server-Timing`` header on the start of the response, and pass it on."""
        try:
            if message["type"] == "http.response.start":
                header = (_SERVER_TIMING, render(self))
                message = {**message, "headers": [*message.get("headers", ()), header]}
        except Exception as error:  # noqa: BLE001 - likewise
            self.engine.fault("server_timing", error)
        return _Exchange.send(self, message)


_TRAILERS: Final = "http.response.trailers"
_OTHER_PARTS: Final = frozenset(
    {"http.response.pathsend", "http.response.zerocopysend", _TRAILERS},
)
