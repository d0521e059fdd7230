"""The WSGI door: opens a budget for every request of the application it wraps.

The budget is current while the application's code runs, in the call and in each step of the
body, and never in between, so nothing is left behind on the server's thread. The application's
``close()`` is called exactly once, on its own iterable.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from budgetware._core.budget import Budget
from budgetware._core.current import current_budget
from budgetware._core.engine import Engine
from budgetware.names import SERVER_TIMING, TIER_KEY
from budgetware.runtime import Runtime

if TYPE_CHECKING:
    from typing import Unpack

    from budgetware.runtime import Options

Environ = MutableMapping[str, Any]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType]
Write = Callable[[bytes], object]
StartResponse = Callable[..., Write]
WSGIApp = Callable[[Environ, StartResponse], Iterable[bytes]]

SERVER_ERROR: Final = 500

_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})


class BudgetMiddleware:
    """Puts a budget around every request: ``app.wsgi_app = BudgetMiddleware(app.wsgi_app)``.

    Args:
        app: The WSGI application.
        tier: Names the caller's tier from the WSGI environ. By default the tier is what an outer
            middleware stored as ``environ["budgetware.tier"]``; a request header is never
            believed by itself.
        server_timing: Whether to answer with a ``Server-Timing`` header, or a predicate of the
            environ that says so per request. It tells callers about internals; off by default.
        options: See ``budgetware.runtime.Options``: ``policy``, ``meter_provider`` and others.

    Raises:
        PolicyError: The policy file cannot be used.
        TypeError: *tier* or *server_timing* is a coroutine function.

    """

    def __init__(
        self,
        app: WSGIApp,
        *,
        tier: Callable[[Environ], str | None] | None = None,
        server_timing: bool | Callable[[Environ], bool] = False,
        **options: Unpack[Options],
    ) -> None:
        for name, function in (("tier", tier), ("server_timing", server_timing)):
            if inspect.iscoroutinefunction(function):
                raise TypeError(f"{name} must be a plain function, not a coroutine function")
        self._app = app
        self._tier = tier
        self._server_timing = server_timing
        self._runtime = Runtime.start(**options)
        self._engine = self._runtime.engine

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        try:
            exchange = self._open(environ, start_response)
        except Exception as error:  # noqa: BLE001 - a fault of ours costs the budget, not the answer
            self._engine.fault("begin", error)
            return self._app(environ, start_response)
        token = current_budget.set(exchange.budget)
        try:
            body = self._app(environ, exchange.start_response)
        except BaseException as error:
            exchange.raised(error)
            exchange.finish()
            raise
        finally:
            current_budget.reset(token)
        try:
            return exchange.body(body, environ.get("wsgi.file_wrapper"))
        except Exception as error:  # noqa: BLE001 - likewise
            self._engine.fault("body", error)
            return body

    def _open(self, environ: Environ, start_response: StartResponse) -> _Exchange:
        tier = self._tier_of(environ) if self._tier is not None else environ.get(TIER_KEY)
        method = environ["REQUEST_METHOD"]
        root = _decoded(environ.get("SCRIPT_NAME", ""))
        path = (root + _decoded(environ.get("PATH_INFO", ""))) or "/"
        budget = self._engine.begin(method, path, tier, root)
        timing = self._server_timing
        kind = _Exchange
        if timing and (timing is True or timing(environ)):
            kind = _TimedExchange
        exchange = kind(self._engine, budget, start_response)
        if method in _WITH_BODY:
            environ["wsgi.input"] = _TimedInput(environ["wsgi.input"], exchange)
        return exchange

    def _tier_of(self, environ: Environ) -> str | None:
        try:
            tier = self._tier(environ)  # type: ignore[misc]
        except Exception as error:  # noqa: BLE001 - the application's function, our call
            self._engine.fault("tier", error)
            return None
        return tier if isinstance(tier, str) else None


def _decoded(text: str) -> str:
    # PEP 3333 hands bytes over as latin-1 text.
    return text if text.isascii() else text.encode("latin-1").decode("utf-8", "replace")


class _Exchange:
    """One request and its response."""

    __slots__ = ("_engine", "_start_response", "budget")

    def __init__(self, engine: Engine, budget: Budget, start_response: StartResponse) -> None:
        self.budget = budget
        self._engine = engine
        self._start_response = start_response

    def start_response(
        self,
        status: str,
        headers: list[tuple[str, str]],
        *exc_info: ExcInfo | None,
    ) -> Write:
        """Pass the start of the response on; called again with *exc_info* it replaces it."""
        try:
            code = self.budget.status = int(status[:3])
            if code >= SERVER_ERROR:
                self._engine.fail(self.budget)
            headers = self._head(headers)
        except Exception as error:  # noqa: BLE001 - a fault of ours must not lose the response
            self._engine.fault("start_response", error)
        write = self._start_response(status, headers, *exc_info)

        def timed_write(data: bytes) -> object:
            budget = self.budget
            before = budget.clock()
            if budget.first_byte_at is None:
                budget.first_byte_at = before
            result = write(data)
            self.pause(budget.clock() - before)
            return result

        return timed_write

    def body(self, body: Iterable[bytes], file_wrapper: object) -> Iterable[bytes]:
        """Return *body* with its end noted, in the shape the server needs to recognise."""
        if type(body) is list or type(body) is tuple:
            self.close()
            return _ReadyBody(self, body)
        if isinstance(file_wrapper, type) and isinstance(body, file_wrapper):
            self.close()
            self._finish_with(body)
            return body
        if hasattr(body, "__len__"):
            return _SizedBody(self, body)
        return _Body(self, body)

    def pause(self, waited_s: float) -> None:
        """Leave out the time the server spent on the client."""
        try:
            self.budget.pause(waited_s)
        except Exception as error:  # noqa: BLE001 - a fault of ours must not end the response
            self._engine.fault("pause", error)

    def close(self) -> None:
        """End the budget: the application has nothing more to say."""
        if self.budget.end is None:
            self._engine.end(self.budget)

    def raised(self, error: BaseException) -> None:
        """Note that *error* left the application."""
        self.budget.error = type(error)
        if isinstance(error, Exception):
            self._engine.fail(self.budget)

    def finish(self) -> None:
        """Finish the budget, whatever way the application came to an end."""
        budget = self.budget
        error = getattr(budget, "error", None)
        if hasattr(budget, "status") or (error is not None and issubclass(error, Exception)):
            self._engine.finish(budget)
        else:
            # Neither an answer nor an error of the application: nobody was left to answer.
            self._engine.lose(budget)

    def _finish_with(self, body: Any) -> None:
        # The server sends a file of its own wrapper by itself; wrapping it would forbid that.
        close = getattr(body, "close", None)

        def close_and_finish() -> None:
            try:
                if close is not None:
                    close()
            finally:
                self.finish()

        try:
            body.close = close_and_finish
        except AttributeError:
            self.finish()

    def _head(self, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        return headers


class _TimedExchange(_Exchange):
    """An exchange whose response tells where the time went."""

    __slots__ = ()

    def _head(self, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        from budgetware.telemetry.server_timing import render  # noqa: PLC0415 - off by default

        return [*headers, (SERVER_TIMING, render(self.budget).decode("latin-1"))]


class _ReadyBody:
    """A body that was complete when the application returned."""

    __slots__ = ("_body", "_exchange")

    def __init__(self, exchange: _Exchange, body: list[bytes] | tuple[bytes, ...]) -> None:
        self._exchange = exchange
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def __len__(self) -> int:
        return len(self._body)

    def close(self) -> None:
        """Finish the request."""
        self._exchange.finish()


class _Body:
    """A body the application makes step by step; the time between steps is the server's."""

    __slots__ = ("_body", "_exchange", "_left_at", "_steps")

    def __init__(self, exchange: _Exchange, body: Iterable[bytes]) -> None:
        self._exchange = exchange
        self._body = body
        self._steps: Iterator[bytes] | None = None
        self._left_at = exchange.budget.clock()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        budget = self._exchange.budget
        clock = budget.clock
        self._exchange.pause(clock() - self._left_at)
        token = current_budget.set(budget)
        try:
            if self._steps is None:
                self._steps = iter(self._body)
            part = next(self._steps)
        except StopIteration:
            self._exchange.close()
            raise
        except BaseException as error:
            self._exchange.raised(error)
            raise
        finally:
            current_budget.reset(token)
        now = self._left_at = clock()
        if part and budget.first_byte_at is None:
            budget.first_byte_at = now
        return part

    def close(self) -> None:
        """Close the application's own iterable, then finish the request."""
        exchange = self._exchange
        close = getattr(self._body, "close", None)
        try:
            if close is not None:
                exchange.close()
                token = current_budget.set(exchange.budget)
                try:
                    close()
                finally:
                    current_budget.reset(token)
        except BaseException as error:
            exchange.raised(error)
            raise
        finally:
            exchange.finish()


class _SizedBody(_Body):
    """A step-by-step body whose length is known."""

    __slots__ = ()

    def __len__(self) -> int:
        return len(self._body)  # type: ignore[arg-type]


class _TimedInput:
    """The request's body; waiting for the client to send it is not the application's time."""

    def __init__(self, stream: Any, exchange: _Exchange) -> None:
        self._stream = stream
        self._exchange = exchange

    def read(self, *size: int) -> bytes:
        """Read up to *size* bytes."""
        with self._waiting():
            data: bytes = self._stream.read(*size)
        return data

    def readline(self, *size: int) -> bytes:
        """Read one line."""
        with self._waiting():
            line: bytes = self._stream.readline(*size)
        return line

    def readlines(self, *hint: int) -> list[bytes]:
        """Read all lines."""
        with self._waiting():
            lines: list[bytes] = self._stream.readlines(*hint)
        return lines

    def __iter__(self) -> Iterator[bytes]:
        while line := self.readline():
            yield line

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _waiting(self) -> Iterator[None]:
        clock = self._exchange.budget.clock
        before = clock()
        try:
            yield
        finally:
            self._exchange.pause(clock() - before)
