"""How many questions may be under way at once? As many as were answered in time lately.

A question that is given up takes its connection with it, and opening another costs several times
what a question costs. So when answers come late because this process is busy, asking on makes it
busier, and it would stay so after what has made it busy is gone. The room shrinks to half with
every question in vain, to one when the server is lost, and grows by one for every room full of
answers, as a TCP sender's window does (RFC 5681, section 3.1); like that, it does not grow while
it is not used (RFC 7661, section 4.3).
"""

from __future__ import annotations

from typing import Final

FIRST: Final = 8
"""Where it begins: a thousand questions per second of some milliseconds each are fewer."""


class Room:
    """Room for questions under way.

    Needs no lock: a change that is lost is made good by the next.

    Args:
        most: Questions at once.

    """

    def __init__(self, most: int) -> None:
        self._most = float(most)
        self._size = min(self._most, float(FIRST))

    @property
    def at_once(self) -> int:
        """How many may be under way; at least 1."""
        return int(self._size)

    def answered(self, under_way: int) -> None:
        """Take note of an answer, which was one of so many under way."""
        size = self._size
        if size / 2 <= under_way and size < self._most:
            self._size = min(self._most, size + 1 / size)

    def missed(self) -> None:
        """Take note of a question in vain."""
        self._size = max(1.0, self._size / 2)

    def lost(self) -> None:
        """Begin with one at a time once the server is asked again."""
        self._size = 1.0
