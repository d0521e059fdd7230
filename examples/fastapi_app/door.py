"""What the middleware asks of the application: who calls, and what to send when time is short.

All of this happens outside of any route, so what a route's dependencies would have refused is
refused here as well.
"""

from __future__ import annotations

from typing import Any, Final

from starlette.types import Scope

from examples.callers import KEY_HEADER, Caller, caller_of, tier_of
from examples.fastapi_app.platform import Platform
from examples.fastapi_app.routes import Signal

_KEY_HEADER: Final = KEY_HEADER.lower().encode("ascii")


def caller_tier(scope: Scope) -> str | None:
    """Look the tier of the caller's key up, before anything else happens to the request."""
    return tier_of(_key(scope))


def caller_name(scope: Scope) -> str | None:
    """Return whom answers are for: nobody else is sent a cached one. A wrong key is nobody's."""
    caller = _caller(scope)
    return None if caller is None else caller.name


async def quick_signal(scope: Scope) -> Any:
    """Answer ``GET /signals/{symbol}`` from memory: the price last seen, and no advice to move.

    It asks neither the database nor the model, so it takes microseconds whatever is slow.
    """
    if _caller(scope) is None:
        return 401, {}, {"detail": "nobody has this key"}
    platform: Platform = scope["state"]["platform"]
    symbol = scope["path"].rpartition("/")[2].upper()
    glance = platform.glances.get(symbol)
    if glance is None:
        return 404, {}, {"detail": "this is not traded here"}
    found = Signal(
        symbol=symbol,
        price=glance.price,
        volatility=glance.volatility,
        chance_of_rise=None,
        action="hold",
        desk=platform.desks.known(symbol),
    )
    return found.model_dump()


def _caller(scope: Scope) -> Caller | None:
    return caller_of(_key(scope))


def _key(scope: Scope) -> str | None:
    key = dict(scope["headers"]).get(_KEY_HEADER)
    return None if key is None else key.decode("latin-1")
