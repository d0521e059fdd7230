"""A Flask request behind budgetware, in this process."""

from __future__ import annotations

import io
import sys
from time import thread_time
from typing import TYPE_CHECKING, Any

from benchmarks.asgi import HELLO, STAGES
from benchmarks.compare import Candidate, Rounds, quietest, report
from benchmarks.telemetry import Telemetry
from flask import Flask

from budgetware import budget
from budgetware.wsgi import BudgetMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    WSGIApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

TIMES = 128


def hello() -> str:
    """Answer at once."""
    return "hello"


def hello_in_stages() -> str:
    """Answer after the eight stages of the trading policy."""
    with budget.stage("gateway"):
        pass
    with budget.stage("auth"):
        pass
    with budget.stage("bridge"):
        pass
    with budget.stage("db"):
        pass
    with budget.stage("ml"):
        pass
    with budget.stage("trading"):
        pass
    with budget.stage("hub"):
        pass
    with budget.stage("response"):
        pass
    return "hello"


def application(view: Callable[[], str]) -> WSGIApp:
    """Return a Flask application that has *view* under a fixed path."""
    app = Flask("bench")
    app.add_url_rule(HELLO, "hello", view)
    return app.wsgi_app


def environ() -> dict[str, Any]:
    """Return the environ of a new request."""
    return {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": HELLO,
        "QUERY_STRING": "",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "127.0.0.1:8000",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }


def start_response(*_: object) -> Callable[[bytes], None]:
    """Take the start of a response."""
    return lambda _: None


def timing(app: WSGIApp, sent: dict[str, int], name: str) -> Callable[[int], float]:
    """Return what sends *app* so many requests and returns its processor seconds."""

    def timed(times: int) -> float:
        sent[name] = sent.get(name, 0) + times
        environs = [environ() for _ in range(times)]
        before = thread_time()
        for one in environs:
            body = app(one, start_response)
            for _ in body:
                pass
            close = getattr(body, "close", None)
            if close is not None:
                close()
        return thread_time() - before

    return timed


def good(rounds: Rounds) -> bool:
    """Tell whether one set is enough."""
    return rounds.ratio_usually("eight", "bare") <= 1.25


def measure(quick: bool) -> dict[str, Any]:  # noqa: FBT001 - the one switch there is
    """Return the values of this group's rows."""
    sent: dict[str, int] = {}
    none, eight = Telemetry(), Telemetry()
    apps: dict[str, WSGIApp] = {
        "bare": application(hello),
        "zero": BudgetMiddleware(application(hello), **none.options),
        "eight": BudgetMiddleware(application(hello_in_stages), **eight.options),
    }
    candidates = [Candidate(name, timing(app, sent, name), TIMES) for name, app in apps.items()]
    rounds, remark = quietest(candidates, 60 if quick else 200, good)
    none.verify("zero", sent["zero"])
    eight.verify("eight", sent["eight"], STAGES)
    bare = rounds.least("bare")
    added = rounds.added_usually("eight", "bare")
    least = rounds.least("eight") / bare
    notes = [f"bare {1e6 * bare:.1f} us", f"added {1e6 * added:.1f} us", f"by minima {least:.2f}"]
    return {
        "rows": {
            "wsgi-8": {
                "value": rounds.ratio_usually("eight", "bare"),
                "remark": "; ".join([*notes, *([remark] if remark else [])]),
            },
            "wsgi-0": {"value": rounds.ratio_usually("zero", "bare")},
        },
        "details": rounds.figures(),
    }


if __name__ == "__main__":
    sys.exit(report(measure))
