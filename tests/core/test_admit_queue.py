"""Admission's queues: who waits, in what order, how long, and how a wait ends."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nan

from budgetware._core.admit import LONGEST_WAIT_S, Admission
from budgetware._core.ticket import State, Ticket

ORDER = ("enterprise", "pro", "free")


def fill(admission: Admission, tier: str, count: int) -> list[Ticket]:
    """Take *count* slots for *tier*."""
    tickets = [admission.enter(tier, 0.0) for _ in range(count)]
    assert all(ticket.admitted for ticket in tickets)
    return tickets


def test_waiters_are_served_in_order() -> None:
    """As long as everybody's turn comes in time, the oldest is next."""
    admission = Admission(1, {}, ORDER)
    (running,) = fill(admission, "free", 1)
    waiting = [admission.enter("free", number, 9.0) for number in range(3)]

    for ticket in waiting:
        admission.leave(running, 4.0)
        assert ticket.admitted
        running = ticket


def test_the_newest_is_next_once_time_ran_out_for_one() -> None:
    """Under overload a fresh request still makes it; when nobody waits it is over."""
    admission = Admission(1, {}, ORDER)
    (running,) = fill(admission, "free", 1)
    impatient = admission.enter("free", 0.0, 0.1)
    waiting = [admission.enter("free", number, 9.0) for number in range(3)]
    assert not admission.give_up(impatient)
    assert impatient.state is State.EXPIRED

    for ticket in reversed(waiting):
        admission.leave(running, 4.0)
        assert ticket.admitted
        running = ticket

    again = [admission.enter("free", 5.0, 9.0) for _ in range(2)]
    admission.leave(running, 5.0)
    assert [ticket.admitted for ticket in again] == [True, False]


def test_a_client_that_left_is_no_sign_of_overload() -> None:
    """A waiter that goes away changes nothing in the order of the others."""
    admission = Admission(1, {}, ORDER)
    (running,) = fill(admission, "free", 1)
    gone, oldest, newest = [admission.enter("free", 0.0, 9.0) for _ in range(3)]
    admission.leave(gone, 1.0)

    admission.leave(running, 1.0)

    assert (gone.state, oldest.admitted, newest.admitted) == (State.LEFT, True, False)


def test_a_waiter_whose_time_is_up_is_dropped_before_it_runs() -> None:
    """Its slot goes on to the next at once, and it is told."""
    admission = Admission(1, {}, ORDER)
    (running,) = fill(admission, "free", 1)
    told: list[str] = []
    late = admission.enter("free", 0.0, 1.0, lambda: told.append("late"))
    fresh = admission.enter("free", 0.9, 1.0, lambda: told.append("fresh"))

    admission.leave(running, 1.0)

    assert (late.state, fresh.state, told) == (State.EXPIRED, State.ADMITTED, ["late", "fresh"])
    assert not admission.give_up(late)
    assert admission.in_flight == 1


def test_giving_up_too_late_is_having_a_slot() -> None:
    """Whoever is admitted while its timer goes off is told so, and runs or leaves."""
    admission = Admission(1, {}, ORDER)
    (running,) = fill(admission, "free", 1)
    ticket = admission.enter("free", 0.0, 1.0)
    admission.leave(running, 0.99)

    assert admission.give_up(ticket)
    admission.leave(ticket, 1.0)
    assert admission.in_flight == 0


def test_each_tiers_queue_is_bounded_by_itself() -> None:
    """A crowd of one tier takes up nobody else's room; those whose time is up make room."""
    admission = Admission(1, {}, ORDER, most_waiting=3)
    fill(admission, "free", 1)
    crowd = [admission.enter("free", 0.0, 1.0) for _ in range(5)]

    assert [one.state for one in crowd] == [State.QUEUED] * 3 + [State.REFUSED] * 2
    assert admission.enter("enterprise", 0.0, 1.0).state is State.QUEUED
    assert admission.load() == {"enterprise": (0, 1), "pro": (0, 0), "free": (1, 3)}
    assert admission.enter("free", 1.0, 1.0).state is State.QUEUED
    assert crowd[0].state is State.EXPIRED
    assert Admission(1, {}, ORDER, most_waiting=0).load()


def test_nobody_queues_where_nobody_may() -> None:
    """Without room in the queue, or without time, a refusal comes at once."""
    admission = Admission(1, {}, ORDER, most_waiting=0)
    fill(admission, "free", 1)
    assert admission.enter("free", 0.0, 1.0).state is State.REFUSED

    patient = Admission(1, {}, ORDER)
    fill(patient, "free", 1)
    for wait_s in (0.0, -1.0, nan):
        assert patient.enter("free", 0.0, wait_s).state is State.REFUSED
    assert patient.enter("free", 0.0, inf).expires_s == LONGEST_WAIT_S


def broken() -> None:
    """Fail as a closed event loop does."""
    raise RuntimeError("Event loop is closed")


def test_a_waiter_that_cannot_be_woken_loses_its_slot_to_the_next() -> None:
    """A thousand of them do, one after the other, and the one that can be woken runs."""
    admission = Admission(1, {}, ORDER, most_waiting=2000)
    (running,) = fill(admission, "free", 1)
    dead = [admission.enter("free", 0.0, 9.0, broken) for _ in range(1500)]
    alive = admission.enter("free", 0.0, 9.0)

    admission.leave(running, 1.0)

    assert admission.faults == 1500
    assert {ticket.state for ticket in dead} == {State.LEFT}
    assert alive.admitted
    assert admission.in_flight == 1


def test_leaving_in_the_middle_of_something_is_seen_to_afterwards() -> None:
    """A finalizer may run while its own thread holds the lock; nothing hangs, nothing is lost."""
    admission = Admission(2, {}, ORDER)
    first, second = fill(admission, "free", 2)
    count: Callable[..., None] = admission._count

    def collect(*arguments: object) -> None:
        admission._count = count  # type: ignore[method-assign]
        admission.leave(second, 1.0)
        count(*arguments)

    admission._count = collect  # type: ignore[method-assign, assignment]
    waiter = admission.enter("free", 0.0, 9.0)
    admission.leave(first, 0.5)

    assert waiter.admitted
    assert admission.in_flight == 1


def test_a_waking_waiter_may_do_anything() -> None:
    """No lock is held while it is told: it may leave, enter and join."""
    admission = Admission(1, {}, ORDER)
    (running,) = fill(admission, "free", 1)
    seen: list[Ticket] = []

    def wake() -> None:
        seen.append(admission.join(waiter))
        admission.leave(waiter, 1.0)
        admission.leave(seen[0], 1.0)
        seen.append(admission.enter("pro", 1.0))

    waiter = admission.enter("free", 0.0, 9.0, wake)
    admission.leave(running, 1.0)

    assert [ticket.state for ticket in seen] == [State.LEFT, State.ADMITTED]
    assert admission.in_flight == 1
