"""Admission under load: nothing is lost in a storm, and every tier gets what it was promised."""

from __future__ import annotations

import heapq
import random
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from budgetware._core.admit import Admission
from budgetware._core.ticket import State, Ticket

pytestmark = pytest.mark.exhaustive

ORDER = ("high", "middle", "low")
SERVICE_S = 0.05
SHARES = {"high": 0.4, "low": 0.2}


class Storm(RuleBasedStateMachine):
    """Anything in any order: the slots are always exactly those of the tickets that run."""

    def __init__(self) -> None:
        super().__init__()
        self.admission = Admission(5, SHARES, ORDER, most_waiting=3)
        self.concurrency = 5
        self.now_s = 0.0
        self.tickets: list[Ticket] = []
        self.woken: Counter[int] = Counter()

    @rule(tier=st.sampled_from((*ORDER, "other")), wait_s=st.sampled_from((0.0, 1.0, 3.0)))
    def enter(self, tier: str, wait_s: float) -> None:
        """Ask for a slot."""
        number = len(self.tickets)
        wake = (lambda: self.woken.update([number])) if number % 5 else None
        self.tickets.append(self.admission.enter(tier, self.now_s, wait_s, wake))

    @rule(step_s=st.sampled_from((0.5, 1.0, 2.0)))
    def wait(self, step_s: float) -> None:
        """Let time pass."""
        self.now_s += step_s

    @rule(pick=st.randoms())
    def leave(self, pick: random.Random) -> None:
        """Leave a ticket of any state."""
        if self.tickets:
            self.admission.leave(pick.choice(self.tickets), self.now_s)

    @rule(pick=st.randoms())
    def give_up(self, pick: random.Random) -> None:
        """Let a wait end."""
        if self.tickets:
            ticket = pick.choice(self.tickets)
            assert self.admission.give_up(ticket) == ticket.admitted

    @rule(pick=st.randoms())
    def join(self, pick: random.Random) -> None:
        """Share a slot."""
        if self.tickets:
            self.tickets.append(self.admission.join(pick.choice(self.tickets)))

    @rule(concurrency=st.integers(1, 8))
    def reshape(self, concurrency: int) -> None:
        """Change the limit."""
        self.admission.reshape(concurrency, SHARES, ORDER)
        self.concurrency = concurrency

    @invariant()
    def the_books_balance(self) -> None:
        """Compare with the tickets, one by one."""
        slots = {id(one.slot or one): one.tier for one in self.tickets if one.admitted}
        waiting = sum(one.state is State.QUEUED for one in self.tickets)
        tiers = self.admission._tiers.values()
        assert self.admission.in_flight == len(slots)
        assert sum(len(tier.waiting) for tier in tiers) == waiting
        assert max(self.woken.values(), default=0) <= 1
        for tier in tiers:
            assert tier.in_use == sum(one is tier for one in slots.values())
            assert tier.kept == max(0, tier.guaranteed - tier.in_use)
            assert len(tier.waiting) <= 3
            # Nobody waits for what is free.
            assert not (tier.waiting and self.admission._has_room(tier))

    def teardown(self) -> None:
        """Leave everything."""
        for ticket in self.tickets:
            self.admission.leave(ticket, self.now_s)
        assert self.admission.in_flight == 0
        assert set(self.admission.load().values()) <= {(0, 0)}
        assert self.admission._kept == sum(tier.kept for tier in self.admission._tiers.values())


TestStorm = Storm.TestCase
TestStorm.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


def test_a_million_operations_leave_nothing_behind() -> None:
    """Entering, leaving, giving up and joining at random end with every slot free."""
    pick = random.Random(20)
    admission = Admission(20, SHARES, ORDER, most_waiting=10)
    tickets: list[Ticket] = []
    most = 0
    for number in range(1_000_000):
        now_s, draw = number * 0.01, pick.random()
        if draw < 0.45 or not tickets:
            tickets.append(admission.enter(pick.choice(ORDER), now_s, pick.choice((0.0, 0.5))))
        elif draw < 0.5:
            tickets.append(admission.join(pick.choice(tickets)))
        elif draw < 0.6:
            admission.give_up(pick.choice(tickets))
        else:
            place = pick.randrange(len(tickets))
            tickets[place], tickets[-1] = tickets[-1], tickets[place]
            admission.leave(tickets.pop(), now_s)
        most = max(most, admission._in_use)
    for ticket in tickets:
        admission.leave(ticket, 0.0)

    assert most == 20
    assert admission.in_flight == 0
    assert set(admission.load().values()) == {(0, 0)}


@pytest.fixture
def restless() -> Iterator[None]:
    """Let threads take turns a thousand times as often as usual, so that races happen."""
    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(usual_s)


@pytest.mark.usefixtures("restless")
def test_thirty_two_threads_lose_nothing() -> None:
    """Waits, races of giving up with being admitted, and shared slots end with all slots free."""
    admission = Admission(4, SHARES, ORDER)
    barrier = threading.Barrier(32)
    running: Counter[str] = Counter()
    lock = threading.Lock()
    over: list[int] = []
    served: Counter[str] = Counter()

    def run(ticket: Ticket) -> None:
        with lock:
            running["now"] += 1
            served["all"] += 1
            if running["now"] > 4:
                over.append(running["now"])
        other = admission.join(ticket)
        admission.leave(ticket, 0.0)
        with lock:
            running["now"] -= 1
        admission.leave(other, 0.0)

    def work(seed: int) -> None:
        pick = random.Random(seed)
        barrier.wait()
        for _ in range(300):
            done = threading.Event()
            ticket = admission.enter(pick.choice(ORDER), 0.0, 1.0, done.set)
            if ticket.state is State.QUEUED:
                done.wait(pick.choice((0.0, 0.0005, 5.0)))
                admission.give_up(ticket)
            if ticket.admitted:
                run(ticket)
            admission.leave(ticket, 0.0)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert over == []
    assert served["all"] >= 300
    assert admission.in_flight == 0
    assert set(admission.load().values()) == {(0, 0)}


@dataclass
class Served:
    """What a simulated service did for one tier."""

    good: int = 0
    late: int = 0
    refused: int = 0
    waits_s: list[float] = field(default_factory=list)


def simulate(
    admission: Admission,
    arrivals: Sequence[tuple[float, str]],
    *,
    budget_s: float,
    wait_s: float,
) -> dict[str, Served]:
    """Run *arrivals*, each a time and a tier, on a fake clock; serving one takes 50 ms on average.

    A request is good if it ends within *budget_s*; a waiter gives up after *wait_s*.
    """
    pick, order = random.Random(4), count()
    seen = {tier: Served() for _, tier in arrivals}
    events: list[tuple[float, int, str, object]] = [
        (at_s, next(order), "arrive", tier) for at_s, tier in arrivals
    ]
    heapq.heapify(events)

    def start(ticket: Ticket, tier: str, arrived_s: float, now_s: float) -> None:
        ends_s = now_s + SERVICE_S * pick.uniform(0.5, 1.5)
        seen[tier].waits_s.append(now_s - arrived_s)
        seen[tier].good += ends_s - arrived_s <= budget_s
        seen[tier].late += ends_s - arrived_s > budget_s
        heapq.heappush(events, (ends_s, next(order), "end", ticket))

    clock = [0.0]
    while events:
        now_s, _, kind, what = heapq.heappop(events)
        clock[0] = now_s
        if kind == "arrive":
            tier = str(what)
            holder: list[Ticket] = []

            def wake(holder: list[Ticket] = holder, tier: str = tier, at_s: float = now_s) -> None:
                if holder[0].admitted:
                    start(holder[0], tier, at_s, clock[0])
                else:
                    seen[tier].refused += 1

            holder.append(admission.enter(tier, now_s, wait_s, wake))
            if holder[0].admitted:
                start(holder[0], tier, now_s, now_s)
            elif holder[0].state is State.QUEUED:
                heapq.heappush(events, (now_s + wait_s, next(order), "give up", holder[0]))
            else:
                seen[tier].refused += 1
        elif isinstance(what, Ticket) and kind == "end":
            admission.leave(what, now_s)
        elif isinstance(what, Ticket):
            admission.give_up(what)
    return seen


def poisson(
    pick: random.Random, tier: str, per_s: float, length_s: float
) -> Iterator[tuple[float, str]]:
    """Yield arrivals at random, so many a second."""
    now_s = pick.expovariate(per_s)
    while now_s < length_s:
        yield now_s, tier
        now_s += pick.expovariate(per_s)


def test_every_tier_gets_its_share_under_overload() -> None:
    """Three tiers at five times the capacity for a minute: each is served its share or more."""
    shares = {"high": 0.5, "middle": 0.3, "low": 0.2}
    admission = Admission(20, shares, ORDER)
    capacity_per_s = 20 / 0.05
    arrivals = [
        one
        for number, tier in enumerate(ORDER)
        for one in poisson(random.Random(number), tier, capacity_per_s * 5 / 3, 60.0)
    ]

    seen = simulate(admission, arrivals, budget_s=0.2, wait_s=0.1)

    served = {tier: one.good + one.late for tier, one in seen.items()}
    for tier, share in shares.items():
        assert served[tier] >= 0.9 * share * capacity_per_s * 60
    assert admission.in_flight == 0


def test_the_high_tier_does_not_notice_a_flood_from_below() -> None:
    """While it stays within its share its waits are none, whatever the lowest sends."""
    admission = Admission(20, {"high": 0.5}, ORDER)
    calm = list(poisson(random.Random(1), "high", 40.0, 60.0))
    flood = list(poisson(random.Random(2), "low", 2000.0, 60.0))

    seen = simulate(admission, calm + flood, budget_s=0.2, wait_s=0.1)

    assert seen["high"].good == len(calm)
    assert max(seen["high"].waits_s) == 0.0
    assert seen["low"].refused > 0


def test_goodput_holds_under_twice_the_load() -> None:
    """Twice the capacity for a minute: at least 80 % of it is served, and 99 % of that in time."""
    admission = Admission(20, {}, ORDER)
    capacity_per_s = 20 / 0.05
    arrivals = list(poisson(random.Random(3), "low", 2 * capacity_per_s, 60.0))

    seen = simulate(admission, arrivals, budget_s=0.1, wait_s=0.05)["low"]

    assert seen.good >= 0.8 * capacity_per_s * 60
    assert seen.good >= 0.99 * (seen.good + seen.late)


def test_it_recovers_when_the_load_is_gone() -> None:
    """Within a second of the end of an overload nobody is refused any more."""
    admission = Admission(20, {}, ORDER)
    pick = random.Random(7)
    arrivals = list(poisson(pick, "low", 2000.0, 10.0))
    arrivals += [(11.0 + at_s, "middle") for at_s, _ in poisson(pick, "low", 280.0, 10.0)]

    seen = simulate(admission, arrivals, budget_s=0.2, wait_s=0.1)

    assert seen["middle"].refused <= 0.01 * len(arrivals)
    assert seen["middle"].refused == 0
