"""How much room there is for questions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from budgetware.answers.redis_room import FIRST, Room


def test_it_grows_only_where_it_is_used() -> None:
    """Answers to few questions at once say nothing of many."""
    room = Room(64)
    for _ in range(1000):
        room.answered(FIRST // 2 - 1)
    unused = room.at_once
    for _ in range(FIRST + 1):
        room.answered(FIRST)

    assert (unused, room.at_once) == (FIRST, FIRST + 1)


def test_a_question_in_vain_halves_it() -> None:
    """Down to one, and no further."""
    room = Room(64)
    sizes = []
    for _ in range(5):
        room.missed()
        sizes.append(room.at_once)

    assert sizes == [4, 2, 1, 1, 1]


def test_a_lost_server_is_asked_one_at_a_time() -> None:
    """And with every answer by more."""
    room = Room(4)
    room.lost()
    sizes = [room.at_once]
    for _ in range(8):
        room.answered(room.at_once)
        sizes.append(room.at_once)

    assert sizes[:2] == [1, 2]
    assert sizes == sorted(sizes)
    assert sizes[-1] == 4


@given(st.integers(1, 100), st.lists(st.sampled_from(["answered", "missed", "lost"])))
def test_there_is_always_room_and_never_too_much(most: int, happened: list[str]) -> None:
    """Whatever happens, in whatever order."""
    room = Room(most)
    for what in happened:
        if what == "answered":
            room.answered(room.at_once)
        else:
            getattr(room, what)()
        assert 1 <= room.at_once <= most
