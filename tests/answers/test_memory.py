"""What this process keeps."""

from __future__ import annotations

import os
import random
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.answers.requests_made_up import stored

from budgetware.answers.memory import ENTRY_BYTES, MemoryStore, footprint_bytes


def _key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def test_an_entry_lives_as_long_as_it_may_be_used() -> None:
    """It is found with its age until its window is over, and then it is gone."""
    store = MemoryStore()
    store.put(b"k", stored(kept_s=61.0), 0.5, 100.0)

    found = store.get(b"k", 160.0)

    assert found is not None
    assert (found.resident_s, found.is_fresh) == (60.5, False)
    assert store.get(b"other", 160.0) is None
    assert store.get(b"k", 160.5) is None
    assert (len(store), store.size_bytes) == (0, 0)


def test_what_began_later_stays() -> None:
    """A request that took long does not replace what a later one has brought back since."""
    store = MemoryStore()
    store.put(b"k", stored(b"new"), 0.1, 100.0)
    store.put(b"k", stored(b"old"), 5.0, 101.0)
    store.put(b"gone", stored(kept_s=1.0), 1.0, 101.0)

    found = store.get(b"k", 101.0)

    assert found is not None
    assert found.stored.body == b"new"
    assert len(store) == 1


def test_a_clock_that_goes_back_makes_nothing_younger_than_new() -> None:
    """An entry is never of a negative age."""
    store = MemoryStore()
    store.put(b"k", stored(), 0.0, 100.0)

    found = store.get(b"k", 99.0)

    assert found is not None
    assert found.resident_s == 0


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3000), st.booleans()), max_size=60),
    st.integers(1, 12_000),
    st.integers(1, 6),
)
def test_the_bounds_hold_always(
    steps: list[tuple[int, int, bool]], most_bytes: int, most_entries: int
) -> None:
    """After every step bytes and entries are within bounds, and the sum is right."""
    store = MemoryStore(most_bytes, most_entries)
    for now, (number, length, reads) in enumerate(steps):
        if reads:
            store.get(_key(number), now)
        else:
            store.put(_key(number), stored(bytes(length)), 0.0, now)
        assert store.size_bytes <= most_bytes
        assert len(store) <= most_entries
        entries = store._entries.items()
        assert store.size_bytes == sum(footprint_bytes(key, one) for key, (one, _) in entries)


def test_the_one_used_longest_ago_goes_first() -> None:
    """Looking at an entry keeps it."""
    store = MemoryStore(most_entries=2)
    for number in (1, 2):
        store.put(_key(number), stored(), 0.0, 0.0)
    store.get(_key(1), 0.0)
    store.put(_key(3), stored(), 0.0, 0.0)

    assert [number for number in (1, 2, 3) if store.get(_key(number), 0.0)] == [1, 3]


def test_what_is_longer_than_the_store_is_not_kept() -> None:
    """One entry never empties the store for nothing."""
    store = MemoryStore(most_bytes=3 * ENTRY_BYTES)
    store.put(_key(1), stored(), 0.0, 0.0)
    store.put(_key(2), stored(bytes(4 * ENTRY_BYTES)), 0.0, 0.0)

    assert len(store) == 1


@pytest.mark.parametrize("bounds", [(0, 1), (1, 0), (-1, 1)])
def test_bounds_are_positive(bounds: tuple[int, int]) -> None:
    """A store of nothing is a mistake."""
    with pytest.raises(ValueError, match="positive"):
        MemoryStore(*bounds)


def test_thirty_two_threads_share_it() -> None:
    """Bounds and sums hold, and no thread finds what was put under another key."""
    store = MemoryStore(most_bytes=200_000, most_entries=100)
    wrong: list[object] = []
    over: list[int] = []

    def work(seed: int) -> None:
        draw = random.Random(seed)
        for now in range(1500):
            number = draw.randrange(300)
            if draw.random() < 0.5:
                store.put(_key(number), stored(b"%d" % number * 50), 0.0, now)
            else:
                found = store.get(_key(number), now)
                if found is not None and found.stored.body != b"%d" % number * 50:
                    wrong.append((number, found))
            if store.size_bytes > 200_000 + 32 * 10_000 or len(store) > 100 + 32:
                over.append(store.size_bytes)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (wrong, over) == ([], [])
    entries = store._entries.items()
    assert store.size_bytes == sum(footprint_bytes(key, one) for key, (one, _) in entries)
    assert store.size_bytes <= 200_000
    assert len(store) <= 100


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_begins_with_an_empty_store_it_can_use() -> None:
    """Even when a thread of the parent was in the middle of a change."""
    store = MemoryStore()
    store.put(b"k", stored(), 0.0, 0.0)
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with store._lock:
            held.set()
            release.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(60)
    child = os.fork()
    if child == 0:
        store.put(b"mine", stored(), 0.0, 0.0)
        os._exit(0 if store.get(b"mine", 0.0) and len(store) == 1 else 1)
    _, status = os.waitpid(child, 0)
    release.set()
    holder.join()

    assert os.waitstatus_to_exitcode(status) == 0
    assert len(store) == 1
