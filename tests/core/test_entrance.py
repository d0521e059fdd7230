"""The entrance: who is asked, what is counted, and what a reload changes."""

from __future__ import annotations

import gc
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgetware._core.course import Course
from budgetware._core.entrance import Entrance, Passage, Visit
from budgetware._core.forecast import Forecast
from budgetware._core.policy import Mode, Plan, Policy, TierPolicy
from budgetware._core.steering import Steering, Traffic

POLICY = Policy(
    mode=Mode.ENFORCE,
    concurrency=2,
    tiers={"free": TierPolicy(rate=1.0), "pro": TierPolicy(queue=1.0)},
)
PLAN = Plan(route="signals", tier="pro", mode=Mode.ENFORCE)
FREE = replace(PLAN, tier="free")


class Hall:
    """An entrance on a clock that stands still, with what it has told."""

    def __init__(self, policy: Policy = POLICY) -> None:
        self.now = 100.0
        self.told: list[tuple[str | None, Mode, Passage]] = []
        self.entrance = Entrance(lambda: self.now, lambda *what: self.told.append(what))
        self.entrance.adopt(policy)
        self.woken = 0

    def visit(self, plan: Plan = PLAN) -> Visit:
        """Return the visit of a request that is asked."""
        visit = self.entrance.visit(plan, "GET", "/signals")
        assert visit is not None
        return visit

    def enter(self, plan: Plan = PLAN, remaining_s: float = 10.0) -> tuple[Visit, bool]:
        """Have a request ask for a slot."""
        visit = self.visit(plan)
        return visit, visit.enter(self.now, remaining_s)

    def queue(self, visit: Visit) -> bool:
        """Have a request join the queue."""
        return visit.queue(self.now, self.wake)

    def wake(self) -> None:
        """Count that somebody's wait is over."""
        self.woken += 1

    @property
    def passages(self) -> list[str]:
        """What was counted."""
        return [passage.value for _, _, passage in self.told]

    @property
    def in_flight(self) -> int:
        """How many slots are taken."""
        assert self.entrance.enforced is not None
        return self.entrance.enforced.in_flight


@pytest.mark.parametrize(
    ("method", "path", "root"),
    [
        ("GET", "/healthz", None),
        ("GET", "/readyz/", ""),
        ("GET", "/api/healthz", "/api"),
        ("OPTIONS", "/signals", None),
    ],
)
def test_health_checks_and_preflights_are_not_asked(
    method: str, path: str, root: str | None
) -> None:
    """Wherever the application is mounted."""
    assert Hall().entrance.visit(PLAN, method, path, root) is None


def test_a_lane_that_observes_is_not_asked() -> None:
    """Nor one whose tier has no limit of any kind."""
    hall = Hall(replace(POLICY, concurrency=None))

    observing = replace(FREE, mode=Mode.OBSERVE)
    assert hall.entrance.visit(observing, "GET", "/") is None
    assert hall.entrance.visit(PLAN, "GET", "/") is None
    assert hall.entrance.visit(FREE, "GET", "/") is not None


def test_without_tiers_the_process_has_its_limit_all_the_same() -> None:
    """Everybody is of the one tier that has no name."""
    hall = Hall(Policy(mode=Mode.ENFORCE, concurrency=1))
    plan = Plan(route="_unmatched", mode=Mode.ENFORCE)

    kept, first = hall.enter(plan)
    refused, second = hall.enter(plan)

    assert (first, second) == (True, False)
    assert kept.tier is refused.tier is None


def test_to_be_let_in_at_once_is_not_counted() -> None:
    """Only what is out of the ordinary is."""
    hall = Hall()
    visit, admitted = hall.enter()
    visit.leave()

    assert admitted
    assert hall.told == []
    assert hall.in_flight == 0


def test_a_waiter_is_counted_when_it_begins_and_when_it_ends() -> None:
    """First as queued, then as admitted; it is told that it has waited."""
    hall = Hall()
    (first, _), (_second, _) = hall.enter(), hall.enter()
    visit, admitted = hall.enter(remaining_s=0.6)
    assert not admitted
    assert visit.wait_s == pytest.approx(0.3)
    assert hall.queue(visit)

    first.leave()

    assert hall.woken == 1
    assert visit.settle()
    assert visit.waited
    assert hall.passages == ["queued", "admitted"]


def test_a_waiter_whose_time_is_up_does_not_run() -> None:
    """Nor does it hold anything."""
    hall = Hall()
    held = [hall.enter(), hall.enter()]
    visit, _ = hall.enter()
    hall.queue(visit)

    assert not visit.settle()
    assert hall.passages == ["queued", "expired"]
    visit.leave()
    for one, _ in held:
        one.leave()
    assert hall.in_flight == 0


def test_a_slot_that_was_freed_meanwhile_needs_no_wait() -> None:
    """Between asking and joining the queue somebody may have left."""
    hall = Hall()
    (first, _), (_second, _) = hall.enter(), hall.enter()
    visit, admitted = hall.enter()
    first.leave()

    assert not admitted
    assert not hall.queue(visit)
    assert visit.settle()
    assert hall.in_flight == 2


def test_a_visit_nobody_ends_ends_when_it_is_collected() -> None:
    """A server that forgets to close a body does not use up the slots."""
    hall = Hall()
    visit, _ = hall.enter()
    assert hall.in_flight == 1

    del visit
    gc.collect()

    assert hall.in_flight == 0


def test_a_shared_slot_is_free_when_all_have_left() -> None:
    """A thread that outlives its request still uses what the limit is about."""
    hall = Hall()
    visit, _ = hall.enter()
    thread, another = visit.share(), visit.share()
    assert thread is not None
    assert another is not None
    assert hall.in_flight == 1

    for one in (visit, visit, thread):
        one.leave()
    assert hall.in_flight == 1
    del another
    gc.collect()

    assert hall.in_flight == 0
    assert visit.share() is None


def test_who_holds_no_slot_shares_none() -> None:
    """Before it has asked, in the queue, turned away, or where there is no limit."""
    hall = Hall()
    unasked = hall.visit()
    held = [hall.enter() for _ in range(2)]
    queued, _ = hall.enter()
    hall.queue(queued)
    unlimited = Hall(replace(POLICY, concurrency=None)).visit(FREE)

    assert [one.share() for one in (unasked, queued, unlimited)] == [None] * 3
    assert len(held) == hall.in_flight == 2
    assert not unlimited.queue(0.0, lambda: None)
    assert unlimited.settle()


def test_below_its_mount_point_a_health_check_is_one_too() -> None:
    """Whatever prefix the server was given."""
    hall = Hall()

    assert hall.entrance.visit(PLAN, "GET", "/api/healthz", "/api") is None
    assert hall.entrance.visit(PLAN, "GET", "/api/healthz") is not None


def test_a_tier_without_a_rate_takes_nothing() -> None:
    """Whoever asks."""
    assert Hall().visit().take("me", 100.0) == 0.0


def test_a_broken_clock_loses_no_slot() -> None:
    """Leaving never raises."""
    hall = Hall()
    visit, _ = hall.enter()

    def broken() -> float:
        raise OSError

    hall.entrance.clock = broken
    visit.leave()
    visit.leave()

    assert hall.in_flight == 0


def test_shadow_lets_everybody_in_and_takes_nothing() -> None:
    """It counts what it would have said, on slots and rates of its own."""
    hall = Hall()
    shadow = replace(FREE, mode=Mode.SHADOW)
    visits = [hall.visit(shadow) for _ in range(5)]
    over = [visit.over_rate(visit.take("me", hall.now)) for visit in visits]
    entered = [visit.enter(hall.now, 10.0) for visit in visits]
    waiting = hall.visit(replace(PLAN, mode=Mode.SHADOW))

    assert over == [False] * 5
    assert entered == [True] * 5
    assert waiting.enter(hall.now, 10.0)
    assert hall.passages == ["rate"] * 4 + ["refused"] * 3 + ["queued"]
    assert {mode for _, mode, _ in hall.told} == {Mode.SHADOW}
    assert hall.in_flight == 0
    assert hall.visit(FREE).take("me", hall.now) == 0


def test_callers_have_rates_of_their_own() -> None:
    """And all whom nobody knows share one."""
    hall = Hall()

    assert [hall.visit(FREE).take(who, hall.now) > 0 for who in ("a", "a", "b", None, None)] == [
        False, True, False, False, True,
    ]  # fmt: skip
    assert hall.visit(PLAN).take("a", hall.now) == 0


def test_a_reload_that_takes_the_limit_away_lets_everybody_in() -> None:
    """Those that wait, too; what was taken before is given back to where it came from."""
    hall = Hall()
    (first, _), (second, _) = hall.enter(), hall.enter()
    waiting, _ = hall.enter()
    hall.queue(waiting)

    hall.entrance.adopt(replace(POLICY, concurrency=None, tiers={"pro": TierPolicy()}))

    assert waiting.settle()
    assert hall.entrance.visit(PLAN, "GET", "/") is None
    for visit in (first, second, waiting):
        visit.leave()
    assert hall.in_flight == 0


def test_a_reload_that_narrows_the_limit_waits_until_enough_have_left() -> None:
    """Nothing that runs is interrupted, and the counts go on."""
    hall = Hall()
    (first, _), (second, _) = hall.enter(), hall.enter()
    hall.entrance.adopt(replace(POLICY, concurrency=1))

    first.leave()
    assert not hall.enter()[1]
    second.leave()
    assert hall.enter()[1]


def test_a_policy_that_cannot_be_kept_changes_nothing() -> None:
    """Shares of more than there is are an error of whoever wrote them."""
    hall = Hall()
    broken = replace(POLICY, tiers={"a": TierPolicy(share=0.9), "b": TierPolicy(share=0.9)})

    with pytest.raises(ValueError, match="shares"):
        hall.entrance.adopt(broken)

    assert hall.enter()[1]


def test_what_was_waited_for_is_not_the_services_time() -> None:
    """The course of a request that has waited begins when it was let in."""
    plan = replace(PLAN, limit_s=1.0)
    traffic = Traffic(Forecast(), lambda: 0.5)
    steering = Steering(plan, traffic, 0.0, lambda _: None)
    course = Course(steering, 0.0)

    course.wait_until(0.4)
    course.at(None, 0.6, 0.0)
    course.leave(0.5, full=True)

    assert [at_s for _, at_s, _, _ in course._passings] == [0.0]
    assert traffic.now == 0


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from("eqslgxr")), max_size=60))
def test_after_any_storm_nothing_is_held(steps: list[tuple[int, str]]) -> None:
    """Whatever order requests enter, queue, settle and leave in, or are forgotten."""
    hall = Hall()
    visits: dict[int, Visit] = {}
    for number, step in steps:
        if step == "x":
            hall.now += 0.4
        elif step == "r":
            hall.entrance.adopt(replace(POLICY, concurrency=number + 1))
        elif number not in visits:
            _begin(hall, visits, number, queues=step == "q")
        else:
            _go_on(visits, number, step)
        assert hall.in_flight <= 6
    for visit in visits.values():
        visit.leave()
    assert hall.in_flight == 0
    assert hall.entrance.enforced is not None
    assert set(hall.entrance.enforced.load().values()) == {(0, 0)}


def _begin(hall: Hall, visits: dict[int, Visit], number: int, *, queues: bool) -> None:
    visits[number], admitted = hall.enter(PLAN if number % 2 or queues else FREE)
    if queues and not admitted:
        hall.queue(visits[number])


def _go_on(visits: dict[int, Visit], number: int, step: str) -> None:
    if step == "s" and visits[number].waited:
        visits[number].settle()
    if step == "l":
        visits[number].leave()
    if step in "lg":
        del visits[number]


def test_the_slot_of_a_request_that_waits_for_its_client_is_lent() -> None:
    """And taken back; a visit that holds none has nothing to lend."""
    hall = Hall()
    visits = [hall.enter()[0] for _ in range(2)]
    turned_away, let_in = hall.enter()
    assert not let_in
    for visit in (*visits, turned_away):
        visit.idle()
    hall.now += 1.0
    other, let_in = hall.enter()
    assert let_in
    for visit in (*visits, turned_away):
        visit.resume()

    assert hall.in_flight == 3
    for visit in (*visits, turned_away, other):
        visit.leave()
        visit.idle()
        visit.resume()
    assert hall.in_flight == 0


def test_a_clock_that_fails_loses_no_slot() -> None:
    """Time does not go on for those who wait, that is all."""
    hall = Hall()
    visit, _ = hall.enter()
    del hall.now
    visit.idle()
    visit.resume()
    visit.leave()

    assert hall.in_flight == 0
