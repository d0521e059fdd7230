"""Admission: who runs, who waits and who does not, and that no slot is ever lost."""

from __future__ import annotations

import os
import threading
from functools import partial
from math import nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgetware._core.admit import (
    EXEMPT_PATHS,
    LENT_AFTER_S,
    LONGEST_WAIT_S,
    Admission,
    is_exempt,
    precedence,
    shares_of,
    wait_allowed_s,
)
from budgetware._core.policy import Policy, TierPolicy
from budgetware._core.ticket import State, Ticket

ORDER = ("enterprise", "pro", "free")


def fill(admission: Admission, tier: str, count: int) -> list[Ticket]:
    """Take *count* slots for *tier*."""
    tickets = [admission.enter(tier, 0.0) for _ in range(count)]
    assert all(ticket.admitted for ticket in tickets)
    return tickets


def test_so_many_run_at_once() -> None:
    """The slots are given out one by one; when one is left the next may start."""
    admission = Admission(2, {}, ORDER)
    first, second = fill(admission, "free", 2)

    assert admission.enter("free", 0.0).state is State.REFUSED
    admission.leave(first, 1.0)
    assert admission.enter("pro", 1.0).admitted
    assert admission.in_flight == 2
    assert second.admitted


def test_a_share_is_always_there() -> None:
    """Others take what no share claims and nothing more; its owner takes both."""
    admission = Admission(10, {"enterprise": 0.5}, ORDER)
    fill(admission, "free", 5)
    assert not admission.enter("free", 0.0).admitted
    assert not admission.enter("pro", 0.0).admitted

    fill(admission, "enterprise", 5)
    assert not admission.enter("enterprise", 0.0).admitted

    lone = Admission(10, {"enterprise": 0.5}, ORDER)
    fill(lone, "enterprise", 10)


@pytest.mark.parametrize(("lend", "borrowed"), [(0.0, 2), (0.5, 6), (1.0, 10)])
def test_how_much_of_an_idle_share_is_lent_can_be_said(lend: float, borrowed: int) -> None:
    """The rest of it stays free for its owner, and what was lent goes to the owner first."""
    admission = Admission(10, {"enterprise": 0.8}, ORDER, lend=lend)
    tickets = fill(admission, "free", borrowed)
    assert not admission.enter("free", 0.0).admitted
    fill(admission, "enterprise", 10 - borrowed)

    lowest = admission.enter("pro", 0.0, 1.0)
    owner = admission.enter("enterprise", 0.0, 1.0)
    admission.leave(tickets.pop(), 0.5)

    assert (lowest.admitted, owner.admitted) == (False, True)


def test_shares_are_whole_slots() -> None:
    """The nearest number, one at least, and no more together than there are, highest first."""
    order = ("a", "b", "c", "d")
    admission = Admission(3, {"a": 0.5, "b": 0.3, "c": 0.1, "d": 0.1}, order)

    assert [admission._tiers[name].guaranteed for name in order] == [2, 1, 0, 0]


def test_a_freed_slot_goes_to_the_highest_tier_that_waits() -> None:
    """However long the others have been waiting."""
    admission = Admission(1, {}, ORDER)
    (running,) = fill(admission, "free", 1)
    told: list[str] = []
    waiting = {
        tier: admission.enter(tier, 0.0, 9.0, lambda tier=tier: told.append(tier))  # type: ignore[misc]
        for tier in reversed(ORDER)
    }

    for tier in ORDER:
        admission.leave(running, 1.0)
        running = waiting[tier]
        assert running.admitted
        assert running.waited_s == 1.0

    assert told == list(ORDER)


def test_a_tier_gets_its_share_before_higher_ones_get_more() -> None:
    """Whoever is below its share is next, when what it left was lent."""
    admission = Admission(2, {"free": 0.5}, ORDER, lend=1.0)
    first, _ = fill(admission, "enterprise", 2)
    higher = admission.enter("enterprise", 0.0, 9.0)
    lowest = admission.enter("free", 0.0, 9.0)

    admission.leave(first, 1.0)

    assert (higher.state, lowest.state) == (State.QUEUED, State.ADMITTED)


def test_leaving_twice_is_leaving_once() -> None:
    """Whatever the state: admitted, queued, refused or gone."""
    admission = Admission(1, {}, ORDER)
    (running,) = fill(admission, "free", 1)
    queued = admission.enter("free", 0.0, 1.0)
    refused = admission.enter("free", 0.0)
    for _ in range(3):
        admission.leave(queued, 0.0)
        admission.leave(refused, 0.0)
    assert admission.in_flight == 1

    for _ in range(3):
        admission.leave(running, 0.0)
    assert admission.in_flight == 0
    assert fill(admission, "free", 1)


def test_a_thread_that_still_runs_keeps_the_slot() -> None:
    """A slot that two share is free when the last of them has left, in whatever order."""
    admission = Admission(4, {}, ORDER)
    for request_first in (True, False):
        (request,) = fill(admission, "free", 1)
        thread = admission.join(request)
        assert thread.admitted
        both = (request, thread) if request_first else (thread, request)
        admission.leave(both[0], 1.0)
        admission.leave(both[0], 1.0)
        assert admission.in_flight == 1
        admission.leave(both[1], 2.0)
        assert admission.in_flight == 0

    deeper = fill(admission, "free", 1)
    deeper.extend((admission.join(deeper[0]), admission.join(admission.join(deeper[0]))))
    assert admission.in_flight == 1


def test_what_holds_no_slot_has_none_to_share() -> None:
    """Joining a request that is over, queued or refused gives nothing and costs nothing."""
    admission = Admission(1, {}, ORDER)
    (over,) = fill(admission, "free", 1)
    queued, refused = admission.enter("free", 0.0, 1.0), admission.enter("free", 0.0)
    others = [admission.join(queued), admission.join(refused)]
    admission.leave(queued, 0.0)
    admission.leave(over, 0.0)
    others.append(admission.join(over))
    for other in others:
        assert not other.admitted
        admission.leave(other, 0.0)

    assert admission.in_flight == 0


def test_an_unknown_tier_is_the_lowest() -> None:
    """A name nobody listed has the lowest tier's slots and queue."""
    admission = Admission(2, {"enterprise": 0.5}, ORDER)
    admission.enter("nonsense", 0.0)

    assert admission.load()["free"] == (1, 0)
    assert not admission.enter("nonsense", 0.0).admitted


def test_limits_change_under_what_is_running() -> None:
    """More slots are given out at once; fewer take effect as slots are left; nobody is stopped."""
    admission = Admission(2, {}, ORDER)
    running = fill(admission, "free", 2)
    waiting = [admission.enter("pro", 0.0, 9.0) for _ in range(2)]
    admission.reshape(3, {}, ORDER)
    assert [ticket.admitted for ticket in waiting] == [True, False]

    admission.reshape(1, {"pro": 1.0}, ORDER)
    states = []
    for ticket in (*running, waiting[0]):
        admission.leave(ticket, 1.0)
        states.append(waiting[1].state)
    assert states == [State.QUEUED, State.QUEUED, State.ADMITTED]
    assert admission.in_flight == 1


def test_the_waiters_of_a_tier_that_is_gone_are_refused() -> None:
    """They are told; what runs of it still counts until it has left."""
    admission = Admission(1, {"pro": 0.5}, ORDER)
    (running,) = fill(admission, "pro", 1)
    told: list[str] = []
    waiter = admission.enter("pro", 0.0, 9.0, lambda: told.append("pro"))

    admission.reshape(1, {}, ("enterprise", "free"))

    assert (waiter.state, told) == (State.REFUSED, ["pro"])
    assert not admission.enter("enterprise", 0.0).admitted
    admission.leave(running, 1.0)
    assert admission.in_flight == 0
    assert admission.enter("pro", 0.0).admitted
    assert admission.load()["free"] == (1, 0)


@pytest.mark.parametrize(
    ("concurrency", "shares", "order", "lend"),
    [
        (0, {}, ORDER, 0.0),
        (1, {}, (), 0.0),
        (1, {"pro": 0.6, "free": 0.5}, ORDER, 0.0),
        (1, {"pro": -0.1}, ORDER, 0.0),
        (1, {"pro": nan}, ORDER, 0.0),
        (1, {}, ORDER, 1.5),
    ],
)
def test_impossible_limits_are_refused(
    concurrency: int,
    shares: dict[str, float],
    order: tuple[str, ...],
    lend: float,
) -> None:
    """No slots, no tiers, shares of more than there is."""
    with pytest.raises(ValueError, match="not"):
        Admission(concurrency, shares, order, lend=lend)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_a_child_process_begins_with_all_slots_free() -> None:
    """What the parent runs stays there, even if its ticket is left in the child too."""
    admission = Admission(2, {"pro": 0.5}, ORDER)
    ours = fill(admission, "pro", 2)
    queued = admission.enter("free", 0.0, 9.0)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with admission._lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for ticket in (*ours, queued):
                admission.leave(ticket, 1.0)
            fine = admission._lock.acquire(timeout=5)
            admission._lock.release()
            fine = fine and admission.in_flight == 0 and not admission.give_up(queued)
            fill(admission, "pro", 2)
            code = 0 if fine and not admission.enter("free", 0.0).admitted else 2
        finally:
            os._exit(code)
    done.set()
    thread.join()

    assert os.waitpid(child, 0)[1] == 0
    assert admission.in_flight == 2
    assert queued.state is State.QUEUED


@given(st.none() | st.floats(), st.floats())
def test_no_wait_is_longer_than_half_of_what_is_left(
    queue_s: float | None,
    remaining_s: float,
) -> None:
    """Nor than the tier's queue, nor than a day; whatever the numbers, it is one."""
    wait_s = wait_allowed_s(queue_s, remaining_s)

    assert 0 <= wait_s <= LONGEST_WAIT_S
    if wait_s:
        assert queue_s is not None
        assert wait_s <= min(queue_s, remaining_s / 2)


def test_health_checks_and_preflights_are_never_asked() -> None:
    """With or without a closing slash; other paths are, and the list may be another."""
    assert all(is_exempt("GET", path) and is_exempt("GET", path + "/") for path in EXEMPT_PATHS)
    assert is_exempt("OPTIONS", "/signals/x")
    assert not is_exempt("GET", "/healthz/../signals")
    assert not is_exempt("GET", "/")
    assert not is_exempt("GET", "")
    assert not is_exempt("GET", "/healthz", paths=())


def test_the_policy_says_who_comes_first() -> None:
    """The first tier of the file is the lowest, and only written shares are guaranteed."""
    tiers = {"free": TierPolicy(), "pro": TierPolicy(), "enterprise": TierPolicy(share=0.5)}
    policy = Policy(concurrency=64, tiers=tiers)

    assert precedence(policy) == ORDER
    assert precedence(policy)[-1] == policy.default_tier
    assert shares_of(policy) == {"enterprise": 0.5}
    assert precedence(Policy()) == (None,)
    assert Admission(1, {}, precedence(Policy())).enter(None, 0.0).admitted


def test_an_idle_slot_is_lent_to_whoever_finds_no_room() -> None:
    """Not at once, for most bodies are on their way; and it is taken back, over the limit."""
    admission = Admission(1, {}, ORDER)
    (slow,) = fill(admission, "free", 1)
    admission.idle(slow, 1.0)

    assert not admission.enter("pro", 1.0 + LENT_AFTER_S / 2).admitted
    other = admission.enter("pro", 1.0 + LENT_AFTER_S)
    assert other.admitted
    assert admission.in_flight == 1

    admission.resume(slow)
    assert admission.in_flight == 2
    admission.leave(other, 2.0)
    assert not admission.enter("pro", 2.0).admitted
    admission.leave(slow, 2.0)
    assert admission.in_flight == 0


def test_who_goes_on_before_its_slot_was_lent_has_it_still() -> None:
    """However often it waits, each wait begins anew."""
    admission = Admission(1, {}, ORDER)
    (slow,) = fill(admission, "free", 1)
    for at_s in range(3):
        admission.idle(slow, float(at_s))
        admission.resume(slow)
    admission.resume(slow)
    admission.idle(slow, 3.0)

    assert not admission.enter("free", 3.0).admitted
    assert admission.in_flight == 1


def test_an_idle_slot_of_a_share_is_its_tiers_first() -> None:
    """What is lent of it is kept for the tier that is guaranteed it."""
    admission = Admission(2, {"pro": 0.5}, ORDER)
    slow = fill(admission, "pro", 1) + fill(admission, "free", 1)
    for ticket in slow:
        admission.idle(ticket, 0.0)

    assert admission.enter("free", 1.0).admitted
    assert not admission.enter("free", 1.0).admitted
    assert admission.enter("pro", 1.0).admitted


def test_who_waits_comes_before_who_comes() -> None:
    """A newcomer that finds an idle slot finds the queue in front of it."""
    admission = Admission(1, {}, ORDER)
    (slow,) = fill(admission, "free", 1)
    admission.idle(slow, 0.0)
    told: list[str] = []
    waiter = admission.enter("free", 0.0, 9.0, lambda: told.append("free"))

    newcomer = admission.enter("free", 1.0)

    assert (waiter.state, newcomer.state) == (State.ADMITTED, State.REFUSED)
    assert told == ["free"]


@pytest.mark.parametrize(("until_s", "runs"), [(LENT_AFTER_S / 2, False), (LENT_AFTER_S, True)])
def test_whose_wait_is_over_takes_an_idle_slot(until_s: float, *, runs: bool) -> None:
    """Nobody need have come or gone meanwhile."""
    admission = Admission(1, {}, ORDER)
    (slow,) = fill(admission, "free", 1)
    admission.idle(slow, 0.0)
    waiter = admission.enter("free", 0.0, until_s)

    assert admission.give_up(waiter, until_s) is runs
    assert waiter.state is (State.ADMITTED if runs else State.EXPIRED)
    assert waiter.waited_s == (until_s if runs else 0.0)
    assert admission.load() == {"enterprise": (0, 0), "pro": (0, 0), "free": (1, 0)}


def test_who_waits_is_given_what_has_become_idle() -> None:
    """Of all that wait as many as there are idle slots, once one of them looks."""
    admission = Admission(2, {}, ORDER)
    admission.lend_idle(0.0)
    slow = fill(admission, "free", 2)
    told: list[int] = []
    waiters = [admission.enter("free", 0.0, 9.0, partial(told.append, n)) for n in range(3)]
    for ticket in slow:
        admission.idle(ticket, 1.0)

    admission.lend_idle(1.0 + LENT_AFTER_S / 2)
    assert told == []
    admission.lend_idle(1.0 + LENT_AFTER_S)

    assert told == [0, 1]
    assert [waiter.state for waiter in waiters] == [State.ADMITTED] * 2 + [State.QUEUED]
    assert waiters[0].waited_s == 1.0 + LENT_AFTER_S


def test_the_slot_of_a_thread_that_still_runs_is_not_idle() -> None:
    """Its request may wait for whom it likes."""
    admission = Admission(1, {}, ORDER)
    (request,) = fill(admission, "free", 1)
    thread = admission.join(request)
    admission.idle(request, 0.0)
    assert not admission.enter("free", 9.0).admitted

    admission.leave(thread, 9.0)
    admission.idle(request, 9.0)
    assert admission.enter("free", 10.0).admitted
    started_meanwhile = admission.join(request)
    assert admission.in_flight == 2
    admission.resume(request)
    admission.leave(started_meanwhile, 11.0)
    assert admission.in_flight == 2


def test_whoever_leaves_while_its_slot_is_lent_frees_nobody_elses() -> None:
    """Each slot is given back once, in whatever order."""
    for first in (0, 1):
        admission = Admission(1, {}, ORDER)
        (slow,) = fill(admission, "free", 1)
        admission.idle(slow, 0.0)
        both = (slow, admission.enter("free", 1.0))
        admission.leave(both[first], 2.0)
        assert admission.in_flight == (0 if first else 1)
        admission.leave(both[1 - first], 2.0)
        admission.resume(slow)
        assert admission.in_flight == 0
        assert fill(admission, "free", 1)


class Clients:
    """Requests that come, wait for their clients, go on and leave, and what must hold of them."""

    def __init__(self) -> None:
        self.admission = Admission(3, {"pro": 0.4}, ORDER)
        self.now_s = 0.0
        self.running: list[Ticket] = []
        self.idle: set[Ticket] = set()
        self.waiting: list[Ticket] = []

    def step(self, what: int, which: int, tier: str) -> None:
        """Do one thing of those there are."""
        self.now_s += LENT_AFTER_S / 3
        admission, now_s = self.admission, self.now_s
        if what < 3:
            ticket = admission.enter(tier, now_s, (what - 1) * 1.0)
            if ticket.state is State.QUEUED:
                self.waiting.append(ticket)
            elif ticket.admitted:
                self.running.append(ticket)
        elif what == 3 and self.waiting:
            admission.give_up(self.waiting[which % len(self.waiting)], now_s)
        elif self.running:
            ticket = self.running[which % len(self.running)]
            if what == 4:
                admission.idle(ticket, now_s)
                self.idle.add(ticket)
            elif what == 5:
                admission.resume(ticket)
                self.idle.discard(ticket)
            else:
                admission.leave(ticket, now_s)
                self.idle.discard(ticket)
                self.running.remove(ticket)
        self.running += [ticket for ticket in self.waiting if ticket.admitted]
        self.waiting = [ticket for ticket in self.waiting if ticket.state is State.QUEUED]

    def check(self) -> None:
        """Make sure that whoever is at work has a slot, and nobody else has."""
        at_work = len(self.running) - len(self.idle)
        in_use = self.admission.in_flight
        assert at_work <= in_use <= len(self.running)
        lent = sum(ticket.lent for ticket in self.running)
        assert in_use == len(self.running) - lent
        tiers = self.admission._tiers.values()
        assert sum(tier.in_use for tier in tiers) == in_use
        assert all(tier.in_use >= 0 for tier in tiers)
        assert sum(len(tier.waiting) for tier in tiers) == len(self.waiting)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 9), st.sampled_from(ORDER))))
def test_whatever_clients_do_the_slots_add_up(steps: list[tuple[int, int, str]]) -> None:
    """Slots taken are those of requests at work, and of idle ones that nobody has asked for."""
    clients = Clients()
    for step in steps:
        clients.step(*step)
        clients.check()
    for ticket in (*clients.running, *clients.waiting):
        clients.admission.leave(ticket, clients.now_s)

    assert clients.admission.in_flight == 0
