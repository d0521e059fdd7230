"""What the routes share, and what they ask before they begin: the stages gateway and auth."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Final, NamedTuple

from fastapi import Depends, HTTPException, Request
from fastapi.security import APIKeyHeader
from prometheus_client import CollectorRegistry

from budgetware import budget
from examples.callers import KEY_HEADER, Caller, caller_of
from examples.fastapi_app.database import Database
from examples.fastapi_app.desks import Desks
from examples.fastapi_app.market import SYMBOLS
from examples.fastapi_app.model import Model, features_of


class Glance(NamedTuple):
    """What was last seen of a symbol.

    Attributes:
        price: Its price.
        volatility: How much it moved.

    """

    price: float
    volatility: float


@dataclass(frozen=True, slots=True)
class Platform:
    """Everything that is made once, at start.

    Attributes:
        database: Prices, orders and positions.
        model: Predicts what a price does next.
        desks: Asks the central hub.
        registry: What a scrape sees.
        glances: What was last seen of each symbol, to answer from when time is short.
        scores: What the model last said of it.

    """

    database: Database
    model: Model
    desks: Desks
    registry: CollectorRegistry
    glances: dict[str, Glance]
    scores: dict[str, float] = field(default_factory=dict)


async def glances_at(database: Database) -> dict[str, Glance]:
    """Look at every symbol once."""
    glances = {}
    for symbol in SYMBOLS:
        prices = await database.history(symbol)
        glances[symbol] = Glance(prices[-1], features_of(prices).volatility)
    return glances


async def _platform(request: Request) -> Platform:
    found: Platform = request.state.platform
    return found


async def _symbol(symbol: str) -> str:
    with budget.stage("gateway"):
        name = symbol.upper()
        if name not in SYMBOLS:
            raise HTTPException(404, f"{symbol} is not traded here; try {', '.join(SYMBOLS)}")
        return name


_key: Final = APIKeyHeader(name=KEY_HEADER, auto_error=False)


async def known_caller(key: Annotated[str | None, Depends(_key)]) -> Caller:
    """Say who calls; 401 for a key nobody has. Without a key it is nobody in particular."""
    with budget.stage("auth"):
        caller = caller_of(key)
        if caller is None:
            raise HTTPException(401, "nobody has this key")
        return caller


ThePlatform = Annotated[Platform, Depends(_platform)]
ListedSymbol = Annotated[str, Depends(_symbol)]
KnownCaller = Annotated[Caller, Depends(known_caller)]
