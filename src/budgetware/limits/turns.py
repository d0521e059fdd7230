"""Whose turn is it to ask? One after another, while there is room, on one event loop.

Those in the queue cost next to nothing; what they wait is part of the time they have anyway.
"""

from __future__ import annotations

import asyncio
from collections import deque

from budgetware.answers.redis_room import Room


class Turns:
    """Turns to ask, given in the order in which they were asked for.

    Args:
        room: How many may be had at once.

    Attributes:
        under_way: How many there are.

    """

    def __init__(self, room: Room) -> None:
        self.under_way = 0
        self._room = room
        self._queue: deque[asyncio.Future[None]] = deque()

    async def take(self) -> bool:
        """Wait for a turn, which ``give_back`` ends; tell whether it had to be waited for.

        Raises:
            asyncio.CancelledError: There is none then.

        """
        if self.under_way < self._room.at_once and not self._queue:
            self.under_way += 1
            return False
        turn = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back()  # it came too late
            else:
                self._queue.remove(turn)
            raise
        return True

    def give_back(self) -> None:
        """End a turn, and begin as many as there is room for."""
        self.under_way -= 1
        while self._queue and self.under_way < self._room.at_once:
            turn = self._queue.popleft()
            if not turn.done():
                self.under_way += 1
                turn.set_result(None)
