"""What becomes of the application once we have answered its client? It goes on, undisturbed.

It is not told that the client has gone, for the client has not; what it fails with is reported
and goes no further, for the server would take it for a failure of the answer.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import anyio
import anyio.lowlevel

from budgetware.http import SAFE_METHODS

if TYPE_CHECKING:
    from budgetware.asgi.answering import AnsweringExchange
    from budgetware.asgi.exchange import Message, Receive

HOLD_S: Final = 10.0
"""Seconds for which the server's good-bye is kept from an application that asks for it."""

_log = logging.getLogger("budgetware")


def patient(exchange: AnsweringExchange, receive: Receive) -> Receive:
    """Return *receive* without the server's good-bye to a client that was answered by us.

    It is held back for ``HOLD_S``, so that work that ends with it is not cut short and nothing
    that waits for it waits for ever. Who is still reading the request is told at once: there is
    nothing more to read. A body that a GET has after all is noted: it is no part of any key.
    """
    pending = True

    async def patient_receive() -> Message:
        nonlocal pending
        message = await receive()
        try:
            kind = message["type"]
            if kind == "http.request":
                pending = message.get("more_body", False)
                if message.get("body") and exchange.asked.method in SAFE_METHODS:
                    exchange.has_body()
        except Exception as error:  # noqa: BLE001 - a fault of ours must not lose a message
            exchange.fault("receive", error, message)
            return message
        if kind == "http.disconnect":
            if not pending and exchange.is_behind:
                await anyio.sleep(HOLD_S)
            exchange.cut_short()
        return message

    return patient_receive


def report(exchange: AnsweringExchange, error: Exception) -> None:
    """Count and log what the work behind an answered request has failed with."""
    exchange.error = type(error)
    exchange.engine.fail(exchange)
    plan = exchange.lane.plan
    _log.error("the work behind an answered request of route %s failed", plan.route, exc_info=error)


async def dropped(exchange: AnsweringExchange) -> None:
    """Take the place of sending a message to a client that was answered by us.

    Raises:
        OSError: The application has sent for ``HOLD_S`` behind its client's back. From version 2.4
            of ASGI that is how it is told that nobody is there, and what ends an endless stream.

    """
    # A server would let others run now and then.
    await anyio.lowlevel.checkpoint()
    if not (exchange.is_behind and exchange.is_told_by_errors):
        return
    if exchange.given_for_s() > HOLD_S:
        exchange.cut_short()
        raise OSError("the client has had its answer")
