"""How busy the machine is, on a clock that is held back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from budgetware.policyfile import load
from examples.demo.machine import LATE_S, Timers
from examples.demo.story import CRITICAL
from examples.fastapi_app.app import POLICY


class HeldBack:
    """A clock whose sleeps take longer than they should, by what *delays* say.

    Cancels who sleeps when there are no more.
    """

    def __init__(self, delays: Iterator[float]) -> None:
        self.now = 0.0
        self._delays = delays

    async def sleep(self, seconds: float) -> None:
        """Let so many seconds pass, and some more."""
        delay = next(self._delays, None)
        if delay is None:
            raise asyncio.CancelledError
        self.now += seconds + delay


async def _timers(*delays: float) -> Timers:
    clock = HeldBack(iter(delays))
    timers = Timers(lambda: clock.now, clock.sleep)
    with pytest.raises(asyncio.CancelledError):
        await timers.run()
    return timers


def test_late_timers_are_counted_once() -> None:
    """The share of those that were later than a promise allows, since it was last asked for."""
    timers = asyncio.run(_timers(0.0, 0.001, 0.5, 0.002))

    assert timers.late() == 0.25
    assert timers.late() == 0.0


def test_a_timer_is_late_when_a_promise_is() -> None:
    """It may be as late as the policy keeps in reserve for a signal."""
    reserve = load(POLICY).routes[CRITICAL].reserve

    assert reserve is not None
    assert reserve.of(0.0) == LATE_S
