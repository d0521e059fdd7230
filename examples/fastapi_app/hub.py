"""The central hub: a service of its own that knows which desk trades a symbol.

``uvicorn --factory examples.fastapi_app.hub:create_app --port 8001`` runs it.
"""

from __future__ import annotations

import zlib
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

_DESKS: Final = ("amsterdam", "jakarta", "chicago")


async def desk(request: Request) -> JSONResponse:
    """Say which desk trades a symbol."""
    symbol = request.path_params["symbol"]
    place = _DESKS[zlib.crc32(symbol.encode()) % len(_DESKS)]
    return JSONResponse({"symbol": symbol, "desk": place})


def create_app() -> Starlette:
    """Return the hub."""
    return Starlette(routes=[Route("/desks/{symbol}", desk)])
