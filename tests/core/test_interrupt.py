"""The way out of work that should not go on."""

from __future__ import annotations

import contextlib

import pytest

from budgetware._core.interrupt import AnswerNow, turn_of


def test_code_that_handles_its_own_failures_lets_it_through() -> None:
    """It is no ``Exception``, and says what it is to whoever sees it all the same."""
    turn = AnswerNow(object(), "unlikely")

    def answer() -> None:
        raise turn

    def handles_its_own_failures() -> None:
        with contextlib.suppress(Exception):
            answer()

    with pytest.raises(AnswerNow, match=r"something smaller: unlikely"):
        handles_its_own_failures()


def test_a_turn_is_found_among_others() -> None:
    """Task groups hand it on in groups of groups, with what else has gone wrong."""
    mine, other = object(), object()
    turn = AnswerNow(mine, "unlikely")
    inner = BaseExceptionGroup("inner", [AnswerNow(other, "unlikely"), turn])
    outer = BaseExceptionGroup("outer", [ValueError(), inner, KeyboardInterrupt()])

    assert turn_of(turn, mine) is turn
    assert turn_of(outer, mine) is turn
    assert turn_of(outer, object()) is None
    assert turn_of(ValueError(), mine) is None
