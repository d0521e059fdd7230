"""Whose turn it is to ask."""

from __future__ import annotations

import asyncio
import random

import pytest

from budgetware.answers.redis_room import Room
from budgetware.limits.turns import Turns


def test_turns_are_given_in_order_and_only_so_many() -> None:
    """Nobody overtakes, and there are never more than there is room for."""

    async def main() -> tuple[list[int], int]:
        turns = Turns(Room(2))
        order, most = [], 0

        async def ask(number: int) -> None:
            nonlocal most
            await turns.take()
            order.append(number)
            most = max(most, turns.under_way)
            await asyncio.sleep(0)
            turns.give_back()

        await asyncio.gather(*(ask(number) for number in range(20)))
        assert turns.under_way == 0
        return order, most

    assert asyncio.run(main()) == (list(range(20)), 2)


def test_it_says_who_had_to_wait() -> None:
    """The first has not, the second has."""

    async def main() -> list[bool]:
        turns = Turns(Room(1))
        first = await turns.take()
        second = asyncio.ensure_future(turns.take())
        await asyncio.sleep(0)
        turns.give_back()
        return [first, await second]

    assert asyncio.run(main()) == [False, True]


@pytest.mark.parametrize("seed", range(20))
def test_no_turn_is_lost_to_those_who_leave(seed: int) -> None:
    """Cancelled before, at and after the moment their turn comes, all are there again."""
    draw = random.Random(seed)

    async def main() -> None:
        room = Room(3)
        turns = Turns(room)

        async def ask() -> None:
            await turns.take()
            try:
                for _ in range(draw.randrange(3)):
                    await asyncio.sleep(0)
            finally:
                turns.give_back()

        tasks = []
        for _ in range(200):
            tasks.append(asyncio.ensure_future(ask()))
            if draw.random() < 0.5:
                draw.choice(tasks).cancel()
            if draw.random() < 0.2:
                room.missed()
            if draw.random() < 0.5:
                await asyncio.sleep(0)
        await asyncio.gather(*tasks, return_exceptions=True)

        assert turns.under_way == 0
        assert not turns._queue
        assert await turns.take() is False

    asyncio.run(main())
