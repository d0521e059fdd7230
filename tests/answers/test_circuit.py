"""Whether to ask, and who probes."""

from __future__ import annotations

from budgetware.answers.circuit import (
    FAILURES_TO_OPEN,
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    PROBE_LEASE_S,
    Circuit,
)


def _opened() -> Circuit:
    circuit = Circuit()
    for _ in range(FAILURES_TO_OPEN):
        circuit.failed(100.0)
    return circuit


def test_failures_in_a_row_open_it_and_one_success_closes_it() -> None:
    """A success in between counts from the start again."""
    circuit = Circuit()
    for _ in range(FAILURES_TO_OPEN - 1):
        circuit.failed(100.0)
    circuit.succeeded()
    for _ in range(FAILURES_TO_OPEN - 1):
        circuit.failed(100.0)
    states = [circuit.is_open]
    circuit.failed(100.0)
    states.append(circuit.is_open)
    circuit.succeeded()
    states.append(circuit.is_open)

    assert states == [False, True, False]


def test_one_probe_at_a_time() -> None:
    """After the pause one caller may start it, and another only when that one is lost."""
    circuit = _opened()
    begin = 100.0 + FIRST_PAUSE_S

    assert not Circuit().may_probe(begin)
    assert not circuit.may_probe(begin - 0.01)
    assert [circuit.may_probe(begin) for _ in range(3)] == [True, False, False]
    assert not circuit.may_probe(begin + PROBE_LEASE_S - 0.01)
    assert circuit.may_probe(begin + PROBE_LEASE_S)


def test_pauses_grow_to_a_bound_that_allows_a_return_within_ten_seconds() -> None:
    """Each probe that fails waits twice as long, up to the bound."""
    circuit = _opened()
    now, pauses = 100.0, []
    for _ in range(6):
        circuit.probe_failed(now)
        step = next(step for step in range(1000) if circuit.may_probe(now + step / 10))
        pauses.append(step / 10)
        now += step / 10

    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE_S
    assert LONGEST_PAUSE_S + PROBE_LEASE_S < 10
