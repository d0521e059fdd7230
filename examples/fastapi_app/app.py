"""A trading API that keeps the promises in ``budgetware.yaml``, and says when it could not.

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

from budgetware import BudgetMiddleware
from examples.fastapi_app import admin, door, routes
from examples.fastapi_app.database import Database
from examples.fastapi_app.desks import Desks, hub_client
from examples.fastapi_app.model import Model
from examples.fastapi_app.observability import RequestId, configure_logging, metrics_for
from examples.fastapi_app.platform import Platform, glances_at

if TYPE_CHECKING:
    from typing import Unpack

    from budgetware.runtime import Options

POLICY: Final = Path(__file__).with_name("budgetware.yaml")


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
            glances = await glances_at(database)
            platform = Platform(database, Model.trained(), Desks(hub), registry, glances)
            yield {"platform": platform}

    app = FastAPI(title="Trading API", lifespan=lifespan)
    app.include_router(routes.router)
    app.include_router(admin.router)
    settings: Options = {"policy": POLICY, "meter_provider": metrics_for(registry), **options}
    app.add_middleware(
        BudgetMiddleware,
        tier=door.caller_tier,
        identity=door.caller_name,
        fallbacks={"signals": door.quick_signal},
        **settings,
    )
    app.add_middleware(RequestId)
    return app
