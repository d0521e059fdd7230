"""How many events may be written."""

from __future__ import annotations

import threading
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.doors.broken_clock import WAYS, BrokenClock, ClockError
from tests.telemetry.driving import Clock

from budgetware.telemetry.limiter import MOST_KEYS, Limiter, _Bucket


def test_a_key_has_a_burst_and_then_a_rate() -> None:
    """Five at once, then one a second; the next one says how many were left out."""
    clock = Clock()
    limiter = Limiter(clock=clock)

    assert [limiter.admit("k") for _ in range(8)] == [0, 0, 0, 0, 0, None, None, None]
    clock.now += 1
    assert [limiter.admit("k") for _ in range(2)] == [3, None]
    clock.now += 1
    assert limiter.admit("k") == 1
    assert limiter.admit("other") == 0


def test_all_keys_together_have_a_limit_too() -> None:
    """Many keys at once are held back as one, and each remembers what it lost."""
    clock = Clock()
    limiter = Limiter(rate=10, burst=10, total_rate=2, total_burst=4, clock=clock)

    first = [limiter.admit(key) for key in range(6)]
    clock.now += 1
    second = [limiter.admit(key) for key in (4, 5, 0)]

    assert first == [0, 0, 0, 0, None, None]
    assert second == [1, 1, None]


def test_keys_are_bounded() -> None:
    """Keys beyond the cap share one allowance instead of growing the table."""
    clock = Clock()
    limiter = Limiter(total_rate=1e9, total_burst=1e9, clock=clock)

    admitted = [limiter.admit(key) for key in range(3 * MOST_KEYS)]

    assert len(limiter._keys) == MOST_KEYS
    assert sum(one is not None for one in admitted) == MOST_KEYS + 5


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(-0.5, 2)), max_size=200))
def test_everything_is_written_or_counted(events: list[tuple[int, float]]) -> None:
    """No event is lost from the books, and no second sees more than the rates allow."""
    clock = Clock()
    limiter = Limiter(clock=clock)
    begin = clock.now
    suppressed = dict.fromkeys(range(4), 0)
    reported = dict.fromkeys(range(4), 0)
    written = dict.fromkeys(range(4), 0)
    for key, step in events:
        clock.now += max(0.0, step)
        admitted = limiter.admit(key)
        if admitted is None:
            suppressed[key] += 1
        else:
            written[key] += 1
            reported[key] += admitted

    for key in range(4):
        left = suppressed[key] - reported[key]
        assert left >= 0
        bucket = limiter._keys.get(key)
        assert left == (0 if bucket is None else bucket.suppressed)
        assert written[key] <= 5 + (clock.now - begin) * 1.0 + 1e-6


def test_a_collection_in_the_middle_of_an_event_may_bring_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the garbage collector finishes while this thread is counting is counted as well."""
    limiter = Limiter(clock=Clock())
    admitted: list[int | None] = []
    make = _Bucket.__init__

    def collect(bucket: _Bucket, tokens: float, at: float) -> None:
        monkeypatch.setattr(_Bucket, "__init__", make)
        admitted.extend(limiter.admit("k") for _ in range(6))
        make(bucket, tokens, at)

    monkeypatch.setattr(_Bucket, "__init__", collect)
    thread = threading.Thread(target=lambda: admitted.append(limiter.admit("k")), daemon=True)
    thread.start()
    thread.join(20)

    assert admitted == [0, 0, 0, 0, 0, None, None]


@pytest.mark.parametrize("way", WAYS)
def test_a_clock_that_fails_silences_no_key_for_good(way: str) -> None:
    """Once the clock is right again, all is as before."""
    time = Clock()
    clock = BrokenClock(f"{way} for good").over(time)
    limiter = Limiter(clock=clock)
    for _ in range(10):
        with suppress(ClockError, TypeError):
            limiter.admit("k")
    clock.broken_at = 10_000

    for _ in range(2):
        time.now += 10.0
        admitted = [limiter.admit("k") is not None for _ in range(6)]
    assert admitted == [True] * 5 + [False]
