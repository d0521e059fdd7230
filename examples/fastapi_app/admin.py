"""What operators may do, and what machines ask: admin routes, health and metrics."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, BackgroundTasks, Depends, HTTPException
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field
from starlette.responses import Response

from budgetware import budget
from examples.fastapi_app.database import LONGEST_TROUBLE_S, LONGEST_WAIT_S, Database
from examples.fastapi_app.platform import KnownCaller, ThePlatform


async def _operator(caller: KnownCaller) -> None:
    if not caller.operator:
        raise HTTPException(403, "for operators only")


router: Final = APIRouter()
_admin: Final = APIRouter(prefix="/admin", tags=["admin"], dependencies=[Depends(_operator)])


class Trouble(BaseModel):
    """How long every database statement waits on average, and when that ends by itself."""

    wait_ms: Annotated[float, Field(ge=0, le=LONGEST_WAIT_S * 1000)]
    for_s: Annotated[float, Field(ge=0, le=LONGEST_TROUBLE_S)] = 30.0


@_admin.put("/disk")
async def disk(trouble: Trouble, platform: ThePlatform) -> Trouble:
    """Make the database's disk busy, or idle again with ``{"wait_ms": 0}``."""
    platform.database.disk.keep_waiting(trouble.wait_ms / 1000, trouble.for_s)
    return trouble


@_admin.post("/exports", status_code=202)
async def export(platform: ThePlatform, later: BackgroundTasks) -> dict[str, str]:
    """Start the nightly export now; it runs after this answer, on a budget of its own."""
    later.add_task(nightly_export, platform.database)
    return {"export": "started"}


@budget.open("nightly-export")
async def nightly_export(database: Database) -> int:
    """Read every order and return how many there are: a job, with a promise like a request's."""
    last, count = 0, 0
    while True:
        with budget.stage("db"):
            rows = await database.page("orders", after=last)
        if not rows:
            return count
        last = rows[-1][0]
        count += len(rows)


@router.get("/health", include_in_schema=False)
async def health() -> dict[str, str]:
    """Say that the service is up."""
    return {"status": "ok"}


@router.get("/metrics", include_in_schema=False)
async def metrics(platform: ThePlatform) -> Response:
    """Give Prometheus everything that was measured up to now."""
    return Response(generate_latest(platform.registry), media_type=CONTENT_TYPE_LATEST)


router.include_router(_admin)
