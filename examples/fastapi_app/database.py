"""The ``db`` stage: SQLite behind SQLAlchemy, asynchronous and synchronous.

The file is made and filled at start, in a temporary folder. There is nothing of budgetware in
here: the code that calls a query opens the stage.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    func,
    insert,
    select,
)
from sqlalchemy.ext.asyncio import create_async_engine

from examples.fastapi_app.market import HISTORY, SYMBOLS, walk

TICKS: Final = 400
PAGE: Final = 1000
LONGEST_WAIT_S: Final = 0.25
LONGEST_TROUBLE_S: Final = 120.0

_metadata = MetaData()
_ticks = Table(
    "ticks",
    _metadata,
    Column("id", Integer, primary_key=True),
    Column("symbol", String(8), nullable=False, index=True),
    Column("price", Float, nullable=False),
)
_orders = Table(
    "orders",
    _metadata,
    Column("id", Integer, primary_key=True),
    Column("caller", String(32), nullable=False, index=True),
    Column("symbol", String(8), nullable=False),
    Column("quantity", Integer, nullable=False),
    Column("price", Float, nullable=False),
)
_positions = Table(
    "positions",
    _metadata,
    Column("caller", String(32), primary_key=True),
    Column("orders", Integer, nullable=False),
    Column("worth", Float, nullable=False),
)

TABLES: Final = {"ticks": _ticks, "orders": _orders}


class Order(NamedTuple):
    """What somebody wants to buy or, with a negative quantity, to sell."""

    caller: str
    symbol: str
    quantity: int
    price: float


class BusyDisk:
    """A disk that keeps queries waiting, for demonstrations: bounded, and it ends by itself.

    Every statement first runs ``SELECT wait_for_disk()`` on its own connection, a function in
    SQLite that really holds the connection up. Nothing about the measurement is simulated.
    """

    def __init__(self) -> None:
        self._wait_s = 0.0
        self._until = 0.0
        self._rng = random.Random(7)

    @property
    def wait_s(self) -> float:
        """How long a statement waits on average, now."""
        return self._wait_s if time.monotonic() < self._until else 0.0

    def keep_waiting(self, wait_s: float, for_s: float) -> None:
        """Let statements wait *wait_s* seconds, give or take a half, for the next *for_s*."""
        self._wait_s = min(max(wait_s, 0.0), LONGEST_WAIT_S)
        self._until = time.monotonic() + min(for_s, LONGEST_TROUBLE_S)

    def attach(self, engine: Engine) -> None:
        """Put the disk under every connection of *engine*."""
        event.listen(engine, "connect", self._define)
        event.listen(engine, "before_cursor_execute", self._wait)

    def _define(self, connection: Any, _record: object) -> None:
        connection.create_function("wait_for_disk", 0, self._hold)

    def _wait(self, _connection: Connection, cursor: Any, *_statement: object) -> None:
        if self.wait_s:
            cursor.execute("SELECT wait_for_disk()")

    def _hold(self) -> float:
        wait_s = self.wait_s * self._rng.uniform(0.5, 1.5)
        time.sleep(wait_s)
        return wait_s


class Database:
    """Prices, orders and positions.

    Args:
        path: The file to make.

    Attributes:
        disk: What the queries wait for when it is busy.

    """

    def __init__(self, path: Path) -> None:
        self.disk = BusyDisk()
        self._sync = create_engine(f"sqlite:///{path}")
        self._async = create_async_engine(f"sqlite+aiosqlite:///{path}")
        for engine in (self._sync, self._async.sync_engine):
            event.listen(engine, "connect", _in_a_hurry)
            self.disk.attach(engine)
        with self._sync.begin() as connection:
            _metadata.create_all(connection)
            connection.execute(
                insert(_ticks),
                [
                    {"symbol": symbol, "price": price}
                    for symbol in SYMBOLS
                    for price in walk(symbol, TICKS)
                ],
            )

    async def history(self, symbol: str) -> list[float]:
        """Return the latest prices of *symbol*, oldest first."""
        query = _prices(symbol).limit(HISTORY)
        async with self._async.connect() as connection:
            found = await connection.scalars(query)
        return list(found)[::-1]

    async def latest(self, symbol: str) -> float:
        """Return the latest price of *symbol*."""
        async with self._async.connect() as connection:
            return float((await connection.scalars(_prices(symbol).limit(1))).one())

    def latest_sync(self, symbol: str) -> float:
        """Return the latest price of *symbol*, for code that runs in a thread."""
        with self._sync.connect() as connection:
            return float(connection.scalars(_prices(symbol).limit(1)).one())

    async def place(self, order: Order) -> int:
        """Keep *order* and return its number."""
        async with self._async.begin() as connection:
            query = insert(_orders).values(order._asdict()).returning(_orders.c.id)
            return int((await connection.scalars(query)).one())

    async def settle(self, caller: str) -> None:
        """Work out anew what *caller* has ordered so far."""
        total = func.sum(_orders.c.quantity * _orders.c.price)
        query = select(func.count(), total).where(_orders.c.caller == caller)
        async with self._async.begin() as connection:
            orders, worth = (await connection.execute(query)).one()
            await connection.execute(
                insert(_positions)
                .prefix_with("OR REPLACE")
                .values(caller=caller, orders=orders, worth=worth or 0.0),
            )

    async def position(self, caller: str) -> tuple[int, float]:
        """Return how many orders *caller* has settled and what they come to."""
        query = select(_positions.c.orders, _positions.c.worth)
        async with self._async.connect() as connection:
            found = await connection.execute(query.where(_positions.c.caller == caller))
        row = found.one_or_none()
        return (0, 0.0) if row is None else (row.orders, row.worth)

    async def page(self, table: str, after: int) -> Sequence[tuple[Any, ...]]:
        """Return the next rows of *table* behind the one numbered *after*."""
        source = TABLES[table]
        query = select(source).where(source.c.id > after).order_by(source.c.id).limit(PAGE)
        async with self._async.connect() as connection:
            return [tuple(row) for row in await connection.execute(query)]

    async def close(self) -> None:
        """Close every connection."""
        await self._async.dispose()
        self._sync.dispose()


def _prices(symbol: str) -> Any:
    return select(_ticks.c.price).where(_ticks.c.symbol == symbol).order_by(_ticks.c.id.desc())


def _in_a_hurry(connection: Any, _record: object) -> None:
    # The file lives as long as the process: nothing is lost if a write is not on disk yet.
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=OFF")
    cursor.close()
