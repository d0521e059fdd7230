"""How users write it, for mypy alone: nothing here is ever run.

A line that type-checks today and not tomorrow is a change of the public API.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_type

from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.trace import NoOpTracerProvider

import budgetware.wsgi
from budgetware import (
    BudgetMiddleware,
    BudgetwareError,
    MissingExtra,
    Policy,
    PolicyError,
    __version__,
    budget,
)
from budgetware._core.record import RequestRecord
from budgetware.testing import (
    Capture,
    FakeClock,
    assert_within_budget,
    captured,
    recorded,
    request,
)

if TYPE_CHECKING:
    from fastapi import FastAPI
    from flask import Flask
    from starlette.applications import Starlette
    from starlette.types import Receive, Scope, Send

# Stages: a `with` block and a decorator in one; decorators keep signatures.

with budget.stage("db"):
    pass
with budget.stage("db", "select") as _, budget.stage("db", operation="insert"):
    pass


@budget.stage("ml")
def score(symbol: str, *, depth: int = 3) -> float:
    """Be a plain function."""
    return len(symbol) / depth


@budget.stage("ml", "fast")
async def score_async(symbol: str) -> float:
    """Be a coroutine function."""
    return float(len(symbol))


@budget.stage("db")
def rows() -> Iterator[int]:
    """Be a generator."""
    yield 1


@budget.stage("db")
async def rows_async() -> AsyncIterator[int]:
    """Be an async generator."""
    yield 1


class Repository:
    """Methods are functions, too."""

    @budget.stage("db")
    def find(self, key: int) -> str:
        """Look *key* up."""
        return str(key)


assert_type(score("x", depth=2), float)
assert_type(rows(), Iterator[int])
assert_type(rows_async(), AsyncIterator[int])
assert_type(Repository().find(1), str)


async def use() -> None:
    """Use stages in a coroutine."""
    with budget.stage("hub"):
        assert_type(await score_async("x"), float)


score(1)  # type: ignore[arg-type]
score("x", width=2)  # type: ignore[call-arg]
budget.stage(5)  # type: ignore[arg-type]
budget.stage("db", "select", "more")  # type: ignore[arg-type]

# The account.

assert_type(budget.remaining(), float)
assert_type(budget.elapsed(), float)
assert_type(budget.pool(), float)
assert_type(budget.route, str | None)
assert_type(budget.tier, str | None)
budget.tier = "pro"
budget.tier = 5  # type: ignore[assignment]
budget.route = "signals"  # type: ignore[misc]


# Threads.


def work(key: int) -> str:
    """Run in a thread."""
    return str(key)


with ThreadPoolExecutor() as pool:
    assert_type(pool.submit(budget.carry(work), 1).result(), str)
threading.Thread(target=budget.carry(work), args=(1,))
carried: Coroutine[Any, Any, float] = budget.carry(score_async)("x")
budget.carry(work)("1")  # type: ignore[arg-type]

# Jobs.

with budget.open("nightly-export") as account:
    assert_type(account.remaining(), float)
    assert_type(account.elapsed(), float)
    assert_type(account.pool(), float)
with budget.open("nightly-export", tier="pro"):
    pass


@budget.open("nightly-export")
def export(target: Path) -> int:
    """Be a job per call."""
    return len(target.parts)


assert_type(export(Path()), int)
budget.open("nightly-export", "pro")  # type: ignore[call-arg]

# Doors: every option has a type, and nothing else is an option.


def observe(record: RequestRecord) -> None:
    """Take note."""
    assert_type(record.elapsed_s, float)
    assert_type(record.stages[0].overage_s, float)


def asgi_doors(app: Starlette, fastapi: FastAPI) -> None:
    """Add the middleware to an ASGI application, or put it around one."""

    async def plain(scope: Scope, receive: Receive, send: Send) -> None: ...

    app.add_middleware(BudgetMiddleware)
    fastapi.add_middleware(BudgetMiddleware, policy="budgetware.yaml", environment="staging")
    BudgetMiddleware(plain)
    BudgetMiddleware(app)
    BudgetMiddleware(
        app,
        policy=Path("budgetware.yaml"),
        reload="file",
        tier=lambda scope: str(scope["user"].plan),
        server_timing=lambda scope: scope["path"].startswith("/internal"),
        meter_provider=NoOpMeterProvider(),
        tracer_provider=NoOpTracerProvider(),
        logger=None,
        histograms="recorded",
        traces="stages",
        observers=[observe, print],
        clock=FakeClock(),
    )
    BudgetMiddleware(app, policy=Policy(), reload=int(signal.SIGHUP), server_timing=True)
    BudgetMiddleware(app, policies="budgetware.yaml")  # type: ignore[call-arg]
    BudgetMiddleware(app, histograms="all")  # type: ignore[arg-type]
    BudgetMiddleware(app, observers=[score])  # type: ignore[list-item]
    BudgetMiddleware(app, lambda scope: "pro")  # type: ignore[misc,arg-type,call-arg,unused-ignore]


def wsgi_doors(app: Flask) -> None:
    """Put the middleware around a WSGI application."""

    def plain(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("200 OK", [])
        return [b""]

    app.wsgi_app = budgetware.wsgi.BudgetMiddleware(app.wsgi_app)  # type: ignore[method-assign]
    budgetware.wsgi.BudgetMiddleware(
        app,
        policy="budgetware.yaml",
        tier=lambda environ: environ.get("user.plan"),
        server_timing=True,
        traces="off",
    )
    budgetware.wsgi.BudgetMiddleware(app, tracing="off")  # type: ignore[call-arg]


# Errors.

try:
    pass
except PolicyError as error:
    assert_type((error.line, error.column), tuple[int, int])
    assert_type(error.file, str | None)
except MissingExtra as missing:
    assert_type(missing.extra, str)
except BudgetwareError:
    pass
assert_type(__version__, str)

# Tests.

clock = FakeClock()
clock.advance(0.01)
with captured("version: 1\n", clock=clock) as capture:
    assert_type(capture, Capture)
    with capture.request("GET", "/signals/x", tier="pro", status=200) as served:
        assert_type(served.remaining(), float)
    assert_type(capture.record, RequestRecord)
    assert_type(capture.records, list[RequestRecord])
    assert_within_budget(capture.records)
    assert_within_budget(capture.record)
with recorded() as records, request("POST", "/signals"):
    assert_type(records, list[RequestRecord])
