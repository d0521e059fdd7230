"""What a request holds while its work runs: its slot, and off the clock."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import pytest
from tests.core.programs import Play, current

from budgetware._core.budget import Budget
from budgetware._core.current import handle

if TYPE_CHECKING:
    from budgetware._core.entrance import Visit


class Held:
    """A hold on a slot."""

    def __init__(self, broken: str = "") -> None:
        self.now = 0
        self._broken = broken

    def share(self) -> Held:
        """Hold it once more."""
        if self._broken == "share":
            raise RuntimeError("a fault of ours")
        self.now += 1
        return self

    def leave(self) -> None:
        """Hold it once less."""
        self.now -= 1
        if self._broken == "leave":
            raise RuntimeError("a fault of ours")


@pytest.mark.parametrize("broken", ["", "share", "leave"])
def test_carried_work_holds_its_requests_slot(broken: str) -> None:
    """While it runs, and in tasks as in threads; a fault of ours costs it nothing."""
    play = Play()
    budget = play.engine.begin("GET", "/x")
    visit = Held(broken)
    budget.visit = cast("Visit", visit)

    async def work() -> int:
        await asyncio.sleep(0)
        return visit.now

    with current(budget):
        carried, carried_async = handle.carry(lambda: visit.now), handle.carry(work)
    seen = [carried(), asyncio.run(carried_async())]

    assert seen == ([0, 0] if broken == "share" else [1, 1])
    assert visit.now == 0
    assert play.engine.tally.faults == ({"hold": 2} if broken else {})


def test_a_shield_is_held_for_the_length_of_its_block() -> None:
    """Outside a request, and left more often than entered, it is nothing."""

    class Shielding(Budget):
        """A budget that counts its shields."""

        __slots__ = ("shields",)

        shields: list[int]

        def shield(self) -> None:
            self.shields.append(1)

        def unshield(self) -> None:
            self.shields.append(-1)

    play = Play()
    budget = play.engine.begin_as(Shielding, "GET", "/x", None, None)
    budget.shields = []
    with handle.shield():
        pass
    with current(budget):
        with handle.shield(), handle.shield():
            assert sum(budget.shields) == 2
        handle.shield().__exit__(None, None, None)

    assert budget.shields == [1, 1, -1, -1]


def test_a_plain_budget_cannot_be_overtaken() -> None:
    """So its shields hold nothing off, and its turns are nobody's."""
    budget = Play().engine.begin("GET", "/x")
    with current(budget), handle.shield():
        assert not budget.shielded
    budget.turn("cheap")

    assert budget.hold() is None
