"""What is refused when an application starts? What could never work, in one line each.

An option of the wrong kind that is let pass is a fault of every request, or is silently missing.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, TypeVar

T = TypeVar("T")

_COROUTINE: Final = "a coroutine function"
_CACHED: Final = type(functools.lru_cache(len))  # functools has no name for it

_STORE: Final[Mapping[str, Sequence[str]]] = {
    "get": ("key", "now", "wait_s"),
    "put": ("key", "stored", "resident_s", "now"),
}
_RATES: Final[Mapping[str, Sequence[str]]] = {
    "take": ("tier", "identity", "rate_per_s", "burst", "now_s", "remaining_s", "namespace")
}
_LOGS: Final = ("info", "warning", "error")


def check_called(name: str, function: object, words: str, arguments: int = 1) -> None:
    """Refuse what cannot be called, or does not return at once.

    Args:
        name: The option it was given as.
        function: What was given.
        words: What it will be called with, in words.
        arguments: How many that are.

    Raises:
        TypeError: It cannot be used.

    """
    if not callable(function):
        raise TypeError(f"{name} must be a function, not {function!r:.80}")
    if (kind := _kind_of(function)) != "":
        raise TypeError(f"{name} must be a plain function, and {_name_of(function)} is {kind}")
    if (why := _misfit(function, (None,) * arguments)) != "":
        raise TypeError(f"{name} is called with {words}, and {why}")


def check_asked(request: str, *, server_timing: object, **functions: object) -> None:
    """Refuse what a door cannot ask for each request, under the names it was given.

    Args:
        request: What stands for a request, in one word.
        server_timing: A function, or whether to.
        functions: Those that are a function or ``None``.

    Raises:
        TypeError: One of them cannot be used.

    """
    for name, function in functions.items():
        if function is not None:
            check_called(name, function, f"the {request} alone")
    if server_timing is not None and not isinstance(server_timing, bool):
        if not callable(server_timing):
            raise TypeError(
                f"server_timing must be a function of the {request}, True or False, "
                f"not {server_timing!r:.80}"
            )
        check_called("server_timing", server_timing, f"the {request} alone")


def check_served_by(store: object, rates: object, *, awaited: bool) -> None:
    """Refuse a shared store, and shared rates, that a door could not ask.

    Args:
        store: What several processes keep responses in, if anything.
        rates: What they count their callers in, if anything.
        awaited: Whether they are asked by coroutines, and not by threads.

    Raises:
        TypeError: One of them cannot be used.

    """
    who = "coroutines" if awaited else "threads"
    kinds = ("AsyncRedisStore", "AsyncSharedRates") if awaited else ("RedisStore", "SharedRates")
    asked = (("store", store, _STORE), ("rates", rates, _RATES))
    for (name, given, methods), kind in zip(asked, kinds, strict=True):
        if given is not None and (why := _unfit(given, methods, awaited=awaited)) != "":
            raise TypeError(f"{name} must be for {who}, as {kind}(...) is, but {why}")


def checked_fallbacks(fallbacks: object, routes: Collection[str]) -> dict[str, Callable[..., Any]]:
    """Return *fallbacks* by route.

    Raises:
        TypeError: They are no mapping, or one is for none of *routes*, or does not take one
            argument.

    """
    if not isinstance(fallbacks, Mapping | None):
        raise TypeError(
            f"fallbacks must be a mapping of routes to functions, not {fallbacks!r:.80}"
        )
    found = dict(fallbacks or {})
    for route, function in found.items():
        if not callable(function):
            raise TypeError(f"the fallback of {route!r} must be a function, not {function!r:.80}")
        if _kind_of(function) not in {"", _COROUTINE}:
            raise TypeError(
                f"the fallback of {route!r} returns a whole response, "
                f"and {_name_of(function)} is a generator"
            )
        if (why := _misfit(function, (None,))) != "":
            raise TypeError(
                f"the fallback of {route!r} is called with the scope or environ alone, and {why}"
            )
        if route not in routes:
            raise TypeError(
                f"there is no route {route!r} for a fallback{did_you_mean(route, routes)}"
            )
    return found


def check_observers(observers: object) -> None:
    """Refuse observers that could not be told.

    Raises:
        TypeError: They are no list of callables, or one does not take a record alone.

    """
    if (
        callable(observers)
        or not isinstance(observers, Collection)  # an iterator would be empty the second time
        or not all(map(callable, observers))
    ):
        raise TypeError(f"observers must be a list of callables, not {observers!r:.80}")
    for observer in observers:
        check_called("an observer", observer, "one RequestRecord")


def check_telemetry(logger: object, meter_provider: object, tracer_provider: object) -> None:
    """Refuse what telemetry could not be written to, as far as that can be told.

    Raises:
        TypeError: One of them is of another kind.

    """
    if logger is not None and (
        isinstance(logger, type | logging.Logger | logging.LoggerAdapter)
        # What structlog.get_logger returns must not be asked for more: it may settle for good.
        or not (_has(logger, "bind") or all(_has(logger, level) for level in _LOGS))
    ):
        raise TypeError(
            "logger must be a structlog logger, as structlog.get_logger() or "
            f"structlog.wrap_logger(...) returns, not {_kind_name(logger)}"
        )
    given = ("meter_provider", meter_provider), ("tracer_provider", tracer_provider)
    for (name, provider), method in zip(given, ("get_meter", "get_tracer"), strict=True):
        if provider is not None and (isinstance(provider, type) or not _has(provider, method)):
            raise TypeError(
                f"{name} must be OpenTelemetry's, with {method}(), not {_kind_name(provider)}"
            )


def check_text(name: str, given: object) -> None:
    """Refuse what is no text, under the name of its argument.

    Raises:
        TypeError: It is something else.

    """
    if not isinstance(given, str):
        raise TypeError(f"{name} must be a str, not {given!r:.40}")


def check_seconds(name: str, given: object, most_s: float) -> None:
    """Refuse what is no time to wait, under the name of its argument.

    Raises:
        TypeError: It is no number.
        ValueError: It is not more than 0, or more than *most_s*.

    """
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise TypeError(f"{name} must be a number of seconds, not {given!r:.40}")
    if not 0 < given <= most_s:
        raise ValueError(f"{name} is more than 0 and at most {most_s:g} seconds, not {given!r:.40}")


def check_whole(name: str, given: object, least: int) -> None:
    """Refuse what is no number of things, under the name of its argument.

    Raises:
        TypeError: It is no whole number.
        ValueError: It is below *least*.

    """
    if isinstance(given, bool) or not isinstance(given, int):
        raise TypeError(f"{name} must be a whole number, not {given!r:.40}")
    if given < least:
        raise ValueError(f"{name} must be at least {least}, not {given!r:.40}")


def did_you_mean(name: object, known: Collection[str]) -> str:
    """Return a question that names the closest of *known*, empty if none is close."""
    close = difflib.get_close_matches(str(name), known, 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _kind_of(function: object) -> str:
    """Return why what *function* returns is not there at once, empty if it is."""
    work = _work_of(function)
    if inspect.isasyncgenfunction(work):
        return "an async generator function"
    if inspect.isgeneratorfunction(work):
        return "a generator function"
    return _COROUTINE if any(map(inspect.iscoroutinefunction, (function, work))) else ""


def _work_of(function: Any) -> object:
    """Return the function that runs when *function* is called."""
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif isinstance(function, staticmethod | classmethod):
            function = function.__func__
        elif isinstance(function, _CACHED):
            function = function.__wrapped__
        else:
            break
    # A wrapper of any other kind may well await what it wraps.
    is_object = not (inspect.isroutine(function) or inspect.isclass(function))
    return type(function).__call__ if is_object else function


def _misfit(function: Any, arguments: Sequence[object]) -> str:
    """Return why *function* cannot be called with *arguments*, empty if it can or nobody knows."""
    try:
        # That of a decorator's own function: it may call what it wraps with something else.
        signature = inspect.signature(function, follow_wrapped=False)
    except Exception:  # noqa: BLE001 - some builtins do not tell, and annotations may mean nothing yet
        return ""
    try:
        signature.bind(*arguments)
    except TypeError as error:
        return f"{_name_of(function)}{signature} cannot be: {error}"
    return ""


def _unfit(given: object, methods: Mapping[str, Sequence[str]], *, awaited: bool) -> str:
    """Return why *given* cannot be asked by these methods, empty if it can."""
    kind = _kind_name(given)
    if isinstance(given, type):
        return f"it is {kind}, not an instance of it"
    for method, arguments in methods.items():
        asks = getattr(given, method, None)
        if not callable(asks):
            return f"{kind} has no method {method}"
        waits = awaited and method != "put"  # which only begins to keep
        if (_kind_of(asks) == _COROUTINE) is not waits:
            return f"{kind}.{method} is {'no' if waits else 'a'} coroutine function"
        if (why := _misfit(asks, arguments)) != "":
            return f"{kind}.{method} is called with ({', '.join(arguments)}), and {why}"
    return ""


def _has(given: object, method: str) -> bool:
    try:
        return callable(getattr(given, method, None))
    except Exception:  # noqa: BLE001 - nothing is known, and it is found out when it is used
        return True


def _kind_name(given: object) -> str:
    return f"the class {given.__name__}" if isinstance(given, type) else type(given).__name__


def _name_of(function: object) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)
