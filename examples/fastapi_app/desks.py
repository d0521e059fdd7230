"""The ``hub`` stage: which desk trades a symbol, asked over HTTP and remembered for a while."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final

import httpx2

from examples.fastapi_app import hub

FRESH_S: Final = 5.0
"""How long an answer is remembered: a call takes about as long as the stage may, 2 ms."""


class Desks:
    """Asks the central hub.

    Args:
        client: Talks to the hub.
        clock: Monotonic seconds.

    """

    def __init__(
        self,
        client: httpx2.AsyncClient,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._clock = clock
        self._known: dict[str, tuple[float, str]] = {}

    def known(self, symbol: str) -> str | None:
        """Return the desk as it was last heard, without asking."""
        return self._known.get(symbol, (0.0, None))[1]

    async def of(self, symbol: str) -> str | None:
        """Return the desk that trades *symbol*, or ``None`` when the hub does not answer."""
        asked_at, desk = self._known.get(symbol, (float("-inf"), None))
        if self._clock() - asked_at < FRESH_S:
            return desk
        try:
            answer = await self._client.get(f"/desks/{symbol}")
            answer.raise_for_status()
        except httpx2.HTTPError:
            # An old answer is better than none, and a signal without a desk is still a signal.
            return desk
        desk = str(answer.json()["desk"])
        self._known[symbol] = (self._clock(), desk)
        return desk


def hub_client() -> httpx2.AsyncClient:
    """Return a client of the hub at ``TRADING_HUB_URL``, or of one within this process."""
    url = os.environ.get("TRADING_HUB_URL")
    if url is not None:
        return httpx2.AsyncClient(base_url=url, timeout=1.0)
    return httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=hub.create_app()),
        base_url="http://hub",
        timeout=1.0,
    )
