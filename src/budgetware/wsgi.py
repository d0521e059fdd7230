"""The WSGI door: opens a budget for every request of the application it wraps.

The budget is current while the application's code runs, in the call and in each step of the
body, and never in between, so nothing is left behind on the server's thread. The application's
``close()`` is called exactly once, on its own iterable.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from contextvars import Token
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from budgetware._core.budget import Budget
from budgetware._core.current import current_budget
from budgetware._core.engine import Engine
from budgetware.names import SERVER_TIMING, TIER_KEY
from budgetware.runtime import SERVER_ERROR, SHORTEST_WAIT_S, WITH_BODY, Runtime, check_callables

if TYPE_CHECKING:
    from typing import Unpack

    from budgetware.runtime import Options

_set = current_budget.set
_reset = current_budget.reset

Environ = dict[str, Any]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType]
Write = Callable[[bytes], object]
StartResponse = Callable[..., Write]
WSGIApp = Callable[[Environ, StartResponse], Iterable[bytes]]


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
        TypeError: An option does not exist, or *tier* or *server_timing* cannot be called.

    """

    def __init__(
        self,
        app: WSGIApp,
        *,
        tier: Callable[[Environ], str | None] | None = None,
        server_timing: bool | Callable[[Environ], bool] = False,
        **options: Unpack[Options],
    ) -> None:
        check_callables(tier=tier, server_timing=server_timing or None)
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
        else:
            token = _set(exchange.budget)
            try:
                body = self._app(environ, exchange.start_response)
            except BaseException as error:
                exchange.raised(error)
                exchange.finish()
                raise
            finally:
                _leave(token)
            try:
                return exchange.body(body, environ.get("wsgi.file_wrapper"))
            except Exception as error:  # noqa: BLE001 - likewise
                self._engine.fault("body", error)
            exchange.finish()
            return body
        # Out here, so that what the application raises has no error of ours for its context.
        return self._app(environ, start_response)

    def _open(self, environ: Environ, start_response: StartResponse) -> _Exchange:
        tier = self._tier_of(environ) if self._tier is not None else environ.get(TIER_KEY)
        method = environ["REQUEST_METHOD"]
        root = _decoded(environ.get("SCRIPT_NAME", ""))
        path = (root + _decoded(environ.get("PATH_INFO", ""))) or "/"
        budget = self._engine.begin(method, path, tier, root)
        tells = self._server_timing and self._tells_timing(environ)
        exchange = (_TimedExchange if tells else _Exchange)(self._engine, budget, start_response)
        if method in WITH_BODY:
            environ["wsgi.input"] = _TimedInput(environ["wsgi.input"], exchange)
        return exchange

    def _tells_timing(self, environ: Environ) -> bool:
        timing = self._server_timing
        try:
            return bool(timing(environ)) if callable(timing) else timing
        except Exception as error:  # noqa: BLE001 - the application's function, our call
            self._engine.fault("server_timing", error)
            return False

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


def _leave(token: Token[Budget | None]) -> None:
    try:  # noqa: SIM105 - suppress() would cost every step a call
        _reset(token)
    except ValueError:
        # The application left its thread in another context, where nothing was set.
        pass


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
        **named: Any,
    ) -> Write:
        """Pass the start of the response on; called again with *exc_info* it replaces it."""
        try:
            code = self.budget.status = int(status[:3])
            if code >= SERVER_ERROR:
                self._engine.fail(self.budget)
            headers = self._head(headers)
        except Exception as error:  # noqa: BLE001 - a fault of ours must not lose the response
            self._engine.fault("start_response", error)
        write = self._start_response(status, headers, *exc_info, **named)

        def timed_write(data: bytes) -> object:
            since = self.wait(data)
            result = write(data)
            self.pause(since)
            return result

        return timed_write

    def body(self, body: Iterable[bytes], file_wrapper: object) -> Iterable[bytes]:
        """Return *body* with its end noted, in the shape the server needs to recognise."""
        if type(body) is list or type(body) is tuple:
            self.close()
            return _ReadyBody(self, body) if hasattr(self.budget, "untold") else body
        if isinstance(file_wrapper, type) and isinstance(body, file_wrapper):
            self.close()
            self._finish_with(body)
            return body
        if hasattr(body, "__len__"):
            return _SizedBody(self, body)
        return _Body(self, body)

    def wait(self, part: bytes = b"") -> float:
        """Return when the server's time for *part* begins, having noted the first byte."""
        budget = self.budget
        try:
            now = budget.clock()
            if part:
                budget.answering(now)
        except Exception as error:  # noqa: BLE001 - a fault of ours must not end the response
            self._engine.fault("clock", error)
            return inf  # as the beginning of a wait, it makes no wait
        return now

    def pause(self, since: float) -> None:
        """Leave out the time the server has spent on the client *since*."""
        budget = self.budget
        try:
            waited_s = budget.clock() - since
            if waited_s > SHORTEST_WAIT_S:
                budget.pause(waited_s)
        except Exception as error:  # noqa: BLE001 - likewise
            self._engine.fault("pause", error)

    def close(self) -> None:
        """End the budget: the application has nothing more to say."""
        budget = self.budget
        try:
            if budget.end is None:
                if hasattr(budget, "status") or self._failed():
                    self._engine.end(budget)
                else:
                    # Neither an answer nor an error of its own: nobody was left to answer.
                    self._engine.lose(budget)
        except Exception as error:  # noqa: BLE001 - likewise
            self._engine.fault("close", error)

    def raised(self, error: BaseException) -> None:
        """Note that *error* left the application."""
        try:
            self.budget.error = type(error)
            if isinstance(error, Exception):
                self._engine.fail(self.budget)
        except Exception as fault:  # noqa: BLE001 - a fault of ours must not replace the error
            self._engine.fault("raised", fault)

    def finish(self) -> None:
        """Finish the budget, whatever way the application came to an end."""
        self.close()
        try:
            self._engine.finish(self.budget)
        except Exception as error:  # noqa: BLE001 - likewise
            self._engine.fault("finish", error)

    def _finish_with(self, body: Any) -> None:
        # The server sends a file of its own wrapper by itself; wrapping it would forbid that.
        # What the stack has run it forgets, so the body is in no cycle that keeps the budget.
        ending = ExitStack()
        ending.callback(self.finish)
        close = getattr(body, "close", None)
        if close is not None:
            ending.callback(close)
        try:
            body.close = ending.close
        except AttributeError:
            self.finish()

    def _failed(self) -> bool:
        error = getattr(self.budget, "error", None)
        return error is not None and issubclass(error, Exception)

    def _head(self, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        return headers


class _TimedExchange(_Exchange):
    """An exchange whose response tells where the time went."""

    __slots__ = ()

    def _head(self, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        from budgetware.telemetry.server_timing import render  # noqa: PLC0415 - off by default

        return [*headers, (SERVER_TIMING, render(self.budget).decode("latin-1"))]


class _ReadyBody:
    """A body that was complete when the application returned, and has to be told of afterwards."""

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
        self._left_at: float | None = None  # the first step follows at once

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        exchange = self._exchange
        if self._left_at is not None:
            exchange.pause(self._left_at)
        token = _set(exchange.budget)
        try:
            if self._steps is None:
                self._steps = iter(self._body)
            part = next(self._steps)
        except StopIteration:
            exchange.close()
            raise
        except BaseException as error:
            exchange.raised(error)
            raise
        finally:
            _leave(token)
        self._left_at = exchange.wait(part)
        return part

    def close(self) -> None:
        """Close the application's own iterable, then finish the request."""
        exchange = self._exchange
        if self._left_at is not None and exchange.budget.end is None:
            exchange.pause(self._left_at)
        close = getattr(self._body, "close", None)
        try:
            if close is not None:
                exchange.close()
                token = _set(exchange.budget)
                try:
                    close()
                finally:
                    _leave(token)
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


_OTHER_READS: Final = frozenset({"read1", "readinto", "readinto1"})
_END: Final = object()


class _TimedInput:
    """The request's body; waiting for the client to send it is not the application's time."""

    def __init__(self, stream: Any, exchange: _Exchange) -> None:
        self._stream = stream
        self._exchange = exchange

    def read(self, *size: Any, **named: Any) -> Any:
        """Read up to *size* bytes."""
        return self._timed(self._stream.read, *size, **named)

    def readline(self, *size: Any, **named: Any) -> Any:
        """Read one line."""
        return self._timed(self._stream.readline, *size, **named)

    def readlines(self, *hint: Any, **named: Any) -> Any:
        """Read all lines."""
        return self._timed(self._stream.readlines, *hint, **named)

    def __iter__(self) -> Iterator[bytes]:
        lines = iter(self._stream)
        while (line := self._timed(next, lines, _END)) is not _END:
            yield line

    def __next__(self) -> Any:
        return self._timed(next, self._stream)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._stream, name)
        return functools.partial(self._timed, found) if name in _OTHER_READS else found

    def _timed(self, read: Callable[..., Any], *args: Any, **named: Any) -> Any:
        since = self._exchange.wait()
        try:
            return read(*args, **named)
        finally:
            self._exchange.pause(since)
