"""Under which word is a reason counted? Ours as they are, an application's within bounds.

What an application gives ``budget.degrade`` becomes an attribute of a metric, part of a header and
a key that is kept. It may hold anything, a message with an identifier in it for one.
"""

from __future__ import annotations

import re
from typing import Final

from budgetware._core.decide import Reason
from budgetware.names import OTHER

LONGEST_REASON: Final = 64
"""Characters of a reason; a longer one is no word."""

MOST_REASONS: Final = 32
"""Words of the application that are told apart, first come, first served."""

OURS: Final = frozenset(
    {
        *(reason.value for reason in Reason),
        "deadline_spent",
        "overloaded",
        "rate_exceeded",
    }
)
"""The reasons budgetware itself has; they take no place from the application's."""

_WORD: Final = re.compile(rf"[A-Za-z0-9_.-]{{1,{LONGEST_REASON}}}")


class Words:
    """The words of one process: so many, and they stay.

    Safe under threads without a lock, which a fork could leave held: a place is taken by ``pop``,
    which gives each of them to one thread. Two that bring the same new word at the same moment may
    take two places for it.

    Args:
        most: How many there may be.

    """

    def __init__(self, most: int = MOST_REASONS) -> None:
        self._places = [None] * most
        self._known: set[str] = set()

    def label(self, reason: object) -> str:
        """Return *reason* in lower case if it is a word there is room for, else ``_OTHER``.

        A label's label is itself.

        Args:
            reason: Whatever was given; a word has at most 64 letters, digits, ``_``, ``.``, ``-``.

        """
        if not isinstance(reason, str) or reason == OTHER or _WORD.fullmatch(reason) is None:
            return OTHER
        word = str.lower(reason)
        if word not in OURS and word not in self._known:
            try:
                self._places.pop()
            except IndexError:
                return OTHER
            self._known.add(word)
        return word


reason_label = Words().label
"""Return the word under which a reason is counted in this process; see ``Words.label``."""
