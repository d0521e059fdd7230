"""The trading platform's web half: the same promise under WSGI.

``gunicorn -c examples/flask_app/gunicorn.conf.py 'examples.flask_app.app:create_app()'`` runs it.
Metrics go to whatever meter provider the process has; ``gunicorn.conf.py`` gives each worker one.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog
from flask import Flask, Response, abort, request

from budgetware import budget
from budgetware.wsgi import BudgetMiddleware
from examples.callers import KEY_HEADER, caller_of, tier_of

if TYPE_CHECKING:
    from typing import Unpack

    from budgetware.runtime import Options

POLICY: Final = Path(__file__).with_name("budgetware.yaml")
SYMBOLS: Final = ("ACME", "BOLT", "CRUX")
TICKS: Final = 500

_KEY_VARIABLE: Final = "HTTP_" + KEY_HEADER.upper().replace("-", "_")


def create_app(**options: Unpack[Options]) -> Flask:
    """Return the service; *options* go to ``BudgetMiddleware``, for tests to look inside."""
    _configure_logging()
    app = Flask(__name__)
    database = _seeded()

    @app.before_request
    def authenticate() -> None:
        with budget.stage("auth"):
            if caller_of(request.headers.get(KEY_HEADER)) is None:
                abort(401, "nobody has this key")

    @app.get("/quotes/<symbol>")
    def quote(symbol: str) -> dict[str, Any]:
        with budget.stage("db"):
            found = database.execute(
                "SELECT price FROM ticks WHERE symbol = ? ORDER BY id DESC LIMIT 1",
                (symbol,),
            ).fetchone()
        if found is None:
            abort(404, f"{symbol} is not traded here; try {', '.join(SYMBOLS)}")
        with budget.stage("response"):
            return {"symbol": symbol, "price": found[0]}

    @app.get("/reports/<symbol>")
    def report(symbol: str) -> Response:
        return Response(lines(symbol), mimetype="text/csv")

    def lines(symbol: str) -> Iterator[str]:
        with budget.stage("db"):
            rows = database.execute(
                "SELECT id, price FROM ticks WHERE symbol = ? ORDER BY id",
                (symbol,),
            ).fetchall()
        for start in range(0, len(rows), 100):
            yield "".join(f"{number},{price}\n" for number, price in rows[start : start + 100])

    settings: Options = {"policy": POLICY, **options}
    app.wsgi_app = BudgetMiddleware(  # type: ignore[method-assign]
        app.wsgi_app,
        tier=lambda environ: tier_of(environ.get(_KEY_VARIABLE)),
        **settings,
    )
    return app


def _seeded() -> sqlite3.Connection:
    """Return a database in memory, of each process its own; its lock serves all threads."""
    rng = random.Random(5)
    database = sqlite3.connect(":memory:", check_same_thread=False)
    database.execute("CREATE TABLE ticks (id INTEGER PRIMARY KEY, symbol TEXT, price REAL)")
    database.execute("CREATE INDEX by_symbol ON ticks (symbol)")
    database.executemany(
        "INSERT INTO ticks (symbol, price) VALUES (?, ?)",
        [(one, round(rng.uniform(90, 110), 2)) for one in SYMBOLS for _ in range(TICKS)],
    )
    database.commit()
    return database


def _configure_logging() -> None:
    """Have everything logged to standard output, one JSON object per event."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
    )
