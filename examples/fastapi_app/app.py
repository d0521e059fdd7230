"""A trading API that keeps its promises in ``budgetware.yaml``, and can say when it did not.

``uvicorn --factory examples.fastapi_app.app:create_app`` runs it; ``README.md`` says what to look
at.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.types import Scope

from budgetware import BudgetMiddleware
from examples.callers import KEY_HEADER, tier_of
from examples.fastapi_app import admin, routes
from examples.fastapi_app.database import Database
from examples.fastapi_app.desks import Desks, hub_client
from examples.fastapi_app.model import Model
from examples.fastapi_app.observability import RequestId, configure_logging, metrics_for
from examples.fastapi_app.platform import Platform

if TYPE_CHECKING:
    from typing import Unpack

    from budgetware.runtime import Options

POLICY: Final = Path(__file__).with_name("budgetware.yaml")

_KEY_HEADER: Final = KEY_HEADER.lower().encode("ascii")


def create_app(**options: Unpack[Options]) -> FastAPI:
    """Return the service; *options* go to ``BudgetMiddleware``, for tests to look inside."""
    registry = CollectorRegistry()

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Platform]]:
        configure_logging()
        async with contextlib.AsyncExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            database = Database(Path(folder) / "trading.db")
            stack.push_async_callback(database.close)
            hub = await stack.enter_async_context(hub_client())
            yield {"platform": Platform(database, Model.trained(), Desks(hub), registry)}

    app = FastAPI(title="Trading API", lifespan=lifespan)
    app.include_router(routes.router)
    app.include_router(admin.router)
    settings: Options = {"policy": POLICY, "meter_provider": metrics_for(registry), **options}
    app.add_middleware(BudgetMiddleware, tier=caller_tier, **settings)
    app.add_middleware(RequestId)
    return app


def caller_tier(scope: Scope) -> str | None:
    """Look the tier of the caller's key up, before anything else happens to the request."""
    headers = dict(scope["headers"])
    key = headers.get(_KEY_HEADER)
    return tier_of(None if key is None else key.decode("latin-1"))
