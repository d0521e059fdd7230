"""When a server that does not answer is asked again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from budgetware.limits.circuit import Circuit


def test_it_opens_after_failures_in_a_row() -> None:
    """Two are forgiven by a success; three are not."""
    circuit = Circuit(lambda: 0.5)
    for outcome in (circuit.failed, circuit.failed):
        outcome(1.0)
    circuit.succeeded()
    circuit.failed(1.0)
    circuit.failed(1.0)
    before = circuit.is_open, circuit.allows(1.0)

    circuit.failed(1.0)

    assert before == (False, True)
    assert (circuit.is_open, circuit.allows(1.49)) == (True, False)


def test_one_is_let_through_after_each_pause() -> None:
    """Pauses double up to a longest one, whether the one is answered or never heard of again."""
    circuit = Circuit(lambda: 0.5)
    for _ in range(3):
        circuit.failed(0.0)
    tries, now_s = [], 0.0
    while now_s < 20:
        now_s += 0.125
        if circuit.allows(now_s):
            tries.append(now_s)
            if len(tries) % 2:
                circuit.failed(now_s)

    assert tries == [0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5]


def test_a_success_closes_it_for_all() -> None:
    """And the next pause is a short one again."""
    circuit = Circuit(lambda: 0.5)
    for _ in range(3):
        circuit.failed(0.0)
    assert circuit.allows(0.5)
    circuit.succeeded()
    assert circuit.allows(0.5)

    for _ in range(3):
        circuit.failed(1.0)
    assert circuit.allows(1.5)


def test_many_failures_at_once_are_one_pause() -> None:
    """Threads that were waiting when it opened do not lengthen it."""
    circuit = Circuit(lambda: 0.5)
    for _ in range(40):
        circuit.failed(0.0)

    assert circuit.allows(0.5)


@given(st.floats(0, 1), st.floats(0, 1e6))
def test_a_clock_that_jumps_back_does_not_keep_it_open(draw: float, now_s: float) -> None:
    """No pause is longer than the longest one, wherever the clock goes."""
    circuit = Circuit(lambda: draw)
    for _ in range(3):
        circuit.failed(now_s + 1e6)

    assert circuit.allows(now_s)


def test_processes_do_not_come_back_in_step() -> None:
    """A pause varies by a fifth either way."""
    soon, late = Circuit(lambda: 0.0), Circuit(lambda: 1.0)
    for circuit in (soon, late):
        for _ in range(3):
            circuit.failed(0.0)

    assert [soon.allows(0.41), late.allows(0.59), late.allows(0.61)] == [True, False, True]


def test_somebody_else_may_open_it() -> None:
    """It is told so once, and then goes its own way."""
    circuit = Circuit(lambda: 0.5)

    told = circuit.open(1.0), circuit.open(1.25)

    assert told == (True, False)
    assert (circuit.is_open, circuit.allows(1.49), circuit.allows(1.5)) == (True, False, True)
    circuit.succeeded()
    assert not circuit.is_open
