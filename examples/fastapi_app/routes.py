"""The trading API. Each ``with budget.stage(...)`` is one line of the promise in the policy."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Final, Literal

from fastapi import APIRouter, BackgroundTasks, Depends, HTTPException
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from starlette.responses import Response

from budgetware import budget
from examples.fastapi_app.database import Database, Order
from examples.fastapi_app.market import SYMBOLS
from examples.fastapi_app.model import Features, features_of
from examples.fastapi_app.platform import (
    Glance,
    KnownCaller,
    ListedSymbol,
    Platform,
    ThePlatform,
    known_caller,
)

CERTAIN_ENOUGH: Final = 0.55
UNDECIDED: Final = 0.5
MOST_PER_ORDER: Final = 1_000_000.0

router: Final = APIRouter(tags=["trading"], dependencies=[Depends(known_caller)])


class Signal(BaseModel):
    """What to do about a symbol."""

    symbol: str
    price: float
    volatility: float
    chance_of_rise: float | None
    action: Literal["buy", "sell", "hold"]
    desk: str | None


class Quote(BaseModel):
    """The latest price of a symbol."""

    symbol: str
    price: float


class OrderForm(BaseModel):
    """What a caller wants to buy; a negative quantity sells."""

    symbol: str
    quantity: int = Field(ge=-10_000, le=10_000)


class Receipt(BaseModel):
    """An order that was taken."""

    order: int
    price: float


def last_score(platform: Platform, symbol: str, _features: Features) -> float:
    """Return what the model said last: what stands in for it when it will not fit."""
    return platform.scores.get(symbol, UNDECIDED)


@budget.stage("ml", fallback=last_score)
def score(platform: Platform, symbol: str, features: Features) -> float:
    """Ask the model."""
    chance = platform.scores[symbol] = platform.model.chance_of_rise(features)
    return chance


@router.get("/signals/{symbol}", response_model=Signal)
async def signal(symbol: ListedSymbol, platform: ThePlatform) -> Response:
    """Compute a trading signal: the critical path, 30 ms for an enterprise caller."""
    with budget.stage("db", "history"):
        prices = await platform.database.history(symbol)
    with budget.stage("bridge"):
        features = features_of(prices)
    chance: float | None = None
    action: Literal["buy", "sell", "hold"] = "hold"
    if features.lively:
        chance = score(platform, symbol, features)
        with budget.stage("trading"):
            if max(chance, 1.0 - chance) > CERTAIN_ENOUGH:
                action = "buy" if chance > CERTAIN_ENOUGH else "sell"
    platform.glances[symbol] = Glance(prices[-1], features.volatility)
    with budget.stage("hub"):
        desk = await platform.desks.of(symbol)
    with budget.stage("response"):
        found = Signal(
            symbol=symbol,
            price=prices[-1],
            volatility=features.volatility,
            chance_of_rise=chance,
            action=action,
            desk=desk,
        )
        return _answer(found)


@router.get("/quotes/{symbol}", response_model=Quote)
def quote(symbol: ListedSymbol, platform: ThePlatform) -> Response:
    """Look the latest price up: a plain function, which FastAPI runs in a thread."""
    with budget.stage("db", "latest"):
        price = platform.database.latest_sync(symbol)
    with budget.stage("response"):
        return _answer(Quote(symbol=symbol, price=price))


@router.post("/orders", status_code=201, response_model=Receipt)
async def order(
    form: OrderForm,
    caller: KnownCaller,
    platform: ThePlatform,
    later: BackgroundTasks,
) -> Response:
    """Take an order; the caller's position is worked out after the answer has left."""
    with budget.stage("gateway"):
        if form.symbol not in SYMBOLS:
            raise HTTPException(404, f"{form.symbol} is not traded here")
    with budget.stage("db", "latest"):
        price = await platform.database.latest(form.symbol)
    with budget.stage("trading"):
        if abs(form.quantity) * price > MOST_PER_ORDER:
            raise HTTPException(422, "that is more than one order may be worth")
    with budget.stage("db", "insert"):
        taken = Order(caller.name, form.symbol, form.quantity, price)
        number = await platform.database.place(taken)
    later.add_task(platform.database.settle, caller.name)
    with budget.stage("response"):
        return _answer(Receipt(order=number, price=price), 201, later)


@router.get("/reports/{name}")
async def report(name: Literal["orders", "ticks"], platform: ThePlatform) -> StreamingResponse:
    """Stream a table line by line; this budget ends with the last line, not with the first."""
    return StreamingResponse(_lines(platform.database, name), media_type="application/x-ndjson")


async def _lines(database: Database, table: str) -> AsyncIterator[str]:
    last = 0
    while True:
        with budget.stage("db", "page"):
            rows = await database.page(table, after=last)
        if not rows:
            return
        last = rows[-1][0]
        with budget.stage("response"):
            lines = "".join(json.dumps(row) + "\n" for row in rows)
        yield lines


def _answer(
    found: BaseModel,
    status: int = 200,
    later: BackgroundTasks | None = None,
) -> Response:
    return Response(
        found.model_dump_json(), status, media_type="application/json", background=later
    )
