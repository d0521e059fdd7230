"""Coming in over ASGI: rates, slots, the queue before them, and nobody left holding one."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.doors.steered_play import Answered
from tests.doors.virtual_time import Time

from budgetware import budget
from budgetware._core.outlook import RouteForecast
from budgetware._core.policy import Match, Mode, Policy, Route, StaticAnswer, TierPolicy
from budgetware.asgi import BudgetMiddleware, Message, Receive, Scope, Send

SIGNALS = Route(name="signals", match=(Match("*", "/signals"),))
POLICY = Policy(
    mode=Mode.ENFORCE,
    concurrency=4,
    tiers={"free": TierPolicy(queue=0.5), "pro": TierPolicy(queue=0.5, share=0.5)},
    routes={"signals": SIGNALS},
)
STEERED = replace(
    POLICY,
    concurrency=1,
    tiers={"pro": TierPolicy(budget=0.1, queue=0.02)},
    routes={
        "signals": replace(SIGNALS, answers=("static",), static=StaticAnswer(body="static")),
    },
)
RATED = replace(POLICY, concurrency=None, tiers={"free": TierPolicy(rate=2.0)})


class Hall:
    """An application behind the door, on a time of its own, and who was in it."""

    def __init__(
        self, policy: Policy = POLICY, seconds: float = 0.1, time: Time | None = None, **more: Any
    ) -> None:
        self.time = Time() if time is None else time
        self.seconds = seconds
        self.now = self.most = 0
        self.began: list[str | None] = []
        self.error: Exception | None = None
        more.setdefault("identity", lambda scope: scope.get("who"))
        self.door = BudgetMiddleware(
            self.app,
            policy=policy,
            clock=self.time,
            tier=lambda scope: scope.get("tier"),
            **more,
        )

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take the time it takes, and answer."""
        del receive
        self.now += 1
        self.most = max(self.most, self.now)
        self.began.append(scope.get("name"))
        try:
            if self.error is not None:
                raise self.error
            await anyio.sleep(self.seconds)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"full"})
        finally:
            self.now -= 1

    async def asking(self, path: str = "/signals", method: str = "GET", **more: Any) -> Answered:
        """Send one request from within the loop."""
        answered, began_s = Answered(), self.time.now

        async def send(message: Message) -> None:
            answered.messages.append(message)
            answered.at_s.append(self.time.now - began_s)

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [],
            **more,
        }
        await self.door(scope, receive, send)
        return answered

    def ask(self, **more: Any) -> Answered:
        """Send one request and wait until the application is done with it."""
        return self.time.run(self.asking(**more))

    def ask_all(self, requests: Sequence[dict[str, Any]]) -> list[Answered]:
        """Send requests at the same moment, and wait for all."""

        async def main() -> list[Answered]:
            return await asyncio.gather(*(self.asking(**one) for one in requests))

        return self.time.run(main())

    @property
    def passages(self) -> dict[str, int]:
        """What was counted at the entrance."""
        counts = self.door._engine.tally.admission
        return {passage: count for (_, _, passage), count in sorted(counts.items(), key=str)}

    def check(self) -> None:
        """Make sure that nothing failed, and that nobody holds anything."""
        engine = self.door._engine
        assert engine.tally.faults == {}
        assert engine._traffic.now == 0
        assert self.now == 0
        assert budget.route is None
        for admission in (engine.entrance.enforced, engine.entrance.shadow):
            assert admission is None or admission.in_flight == 0
            assert admission is None or set(admission.load().values()) == {(0, 0)}


def status(answered: Answered) -> int:
    """Return the status a client got."""
    assert answered.complete
    found: int = answered.messages[0]["status"]
    return found


def test_a_caller_over_its_rate_is_told_when_to_come_back() -> None:
    """429, ``Retry-After`` and a problem document; others have rates of their own."""
    hall = Hall(RATED)

    statuses = [status(hall.ask(who="me")) for _ in range(2)]
    refused = hall.ask(who="me")
    other = hall.ask(who="you")

    assert statuses == [200, 200]
    assert status(refused) == 429
    headers = dict(refused.messages[0]["headers"])
    assert int(headers[b"retry-after"]) >= 1
    assert json.loads(refused.body)["reason"] == "rate_exceeded"
    assert status(other) == 200
    assert hall.passages == {"rate": 1}
    hall.door._engine.absorb()
    series = hall.door._engine.tally.requests["signals", "free"]
    assert series.outcomes["rejected"] == 1
    hall.check()


def test_callers_nobody_knows_share_one_rate() -> None:
    """Time lets them in again."""
    hall = Hall(RATED, seconds=0.0)

    first = [status(hall.ask()) for _ in range(4)]
    hall.time.now += 1.0

    assert first == [200, 200, 429, 429]
    assert status(hall.ask()) == 200
    hall.check()


def test_a_process_never_runs_more_than_it_may() -> None:
    """Of 50 at once, all that can be served in time are, and each is answered once."""
    hall = Hall()

    answers = hall.ask_all([{"tier": "free"}] * 25 + [{"tier": "pro"}] * 25)

    statuses = [status(answered) for answered in answers]
    assert hall.most == 4
    assert statuses.count(200) == len(hall.began)
    assert statuses.count(503) == 50 - len(hall.began)
    assert len(hall.began) >= 16
    hall.check()


def test_the_higher_tier_comes_in_first() -> None:
    """Whoever of it waits goes before everybody below it."""
    tiers = {"free": TierPolicy(queue=0.5), "pro": TierPolicy(queue=0.5)}
    hall = Hall(replace(POLICY, concurrency=1, tiers=tiers))

    hall.ask_all(
        [{"tier": "pro", "name": "running"}]
        + [{"tier": "free", "name": "free"}] * 2
        + [{"tier": "pro", "name": "pro"}] * 2
    )

    assert hall.began == ["running", "pro", "pro", "free", "free"]
    assert hall.passages == {"queued": 2, "admitted": 2}  # of each tier
    hall.check()


def test_a_waiter_is_woken_as_soon_as_there_is_room() -> None:
    """It runs the moment the one before it has ended."""
    hall = Hall(replace(POLICY, concurrency=1))

    first, second = hall.ask_all([{"tier": "pro"}, {"tier": "pro"}])

    assert [first.at_s[-1], second.at_s[-1]] == pytest.approx([0.1, 0.2])
    assert hall.passages == {"queued": 1, "admitted": 1}
    hall.check()


def test_a_waiter_whose_time_is_up_never_runs() -> None:
    """It is told so at once: 503, when to come back, and why."""
    hall = Hall(replace(POLICY, concurrency=1), seconds=2.0)

    _, expired = hall.ask_all([{"tier": "pro"}, {"tier": "pro"}])

    assert status(expired) == 503
    assert expired.at_s[0] == pytest.approx(0.5)
    assert int(dict(expired.messages[0]["headers"])[b"retry-after"]) >= 1
    assert json.loads(expired.body)["reason"] == "overloaded"
    assert len(hall.began) == 1
    assert hall.passages == {"queued": 1, "expired": 1}
    hall.check()


def test_a_tier_without_a_queue_is_refused_at_once() -> None:
    """It waits for nothing."""
    hall = Hall(replace(POLICY, concurrency=1, tiers={"free": TierPolicy()}))

    _, refused = hall.ask_all([{}, {}])

    assert (status(refused), refused.at_s[0]) == (503, 0.0)
    assert hall.passages == {"refused": 1}
    hall.check()


def test_nobody_waits_for_more_than_half_of_what_is_left() -> None:
    """The wait is part of the request's budget."""
    policy = replace(POLICY, concurrency=1, tiers={"free": TierPolicy(budget=0.2, queue=5.0)})
    hall = Hall(policy, seconds=1.0)

    _, expired = hall.ask_all([{}, {}])

    assert status(expired) == 503
    assert expired.at_s[0] == pytest.approx(0.1)
    hall.check()


def test_who_is_refused_has_the_routes_own_answer() -> None:
    """What the file lists comes before the honest no, and says what it is."""
    hall = Hall(STEERED, seconds=0.08)

    _, refused = hall.ask_all([{}, {}])

    assert (status(refused), refused.kind, refused.body) == (200, "static", b"static")
    degraded = hall.door._engine.tally.degraded
    assert degraded["signals", "pro", "static", "overloaded"] == 1
    hall.check()


def test_what_was_waited_for_is_not_billed_to_the_service(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The forecast learns what the service takes; the record, what the caller waited."""
    records: list[Any] = []
    policy = replace(STEERED, tiers={"pro": TierPolicy(budget=1.0, queue=0.3)})
    hall = Hall(policy, seconds=0.1, observers=[records.append])
    learned: list[float] = []
    monkeypatch.setattr(
        RouteForecast, "learn", lambda _, path, **_more: learned.append(path.duration_s)
    )

    hall.ask_all([{}, {}])

    assert learned == [pytest.approx(0.1)] * 2
    assert [record.elapsed_s for record in records] == [pytest.approx(0.1), pytest.approx(0.2)]
    hall.check()


def test_a_slot_is_held_while_the_work_goes_on_behind_an_answered_client() -> None:
    """The clock answers; the process is as busy as before, and so says no to the next."""
    hall = Hall(STEERED, seconds=0.5)

    async def main() -> tuple[Answered, Answered]:
        first = asyncio.ensure_future(hall.asking())
        await asyncio.sleep(0.2)
        second = await hall.asking()
        assert not first.done()
        return await first, second

    first, second = hall.time.run(main())

    assert (first.kind, first.at_s[-1] <= 0.1) == ("static", True)
    assert (second.kind, len(hall.began)) == ("static", 1)
    assert hall.passages["expired"] == 1
    hall.check()


def test_health_checks_and_preflights_pass_at_full_load() -> None:
    """Who restarts a service that does not answer must not be told no."""
    hall = Hall(replace(POLICY, concurrency=1, tiers={"free": TierPolicy(rate=1.0)}))

    answers = hall.ask_all(
        [{"who": "a"}, {"who": "b"}]
        + [{"path": "/healthz"}] * 5
        + [{"path": "/api/readyz", "root_path": "/api"}] * 5
        + [{"method": "OPTIONS"}] * 5
    )

    assert [status(answered) for answered in answers] == [200, 503, *[200] * 15]
    hall.check()


def test_shadow_changes_nothing() -> None:
    """Everybody runs at once; what would have been said is counted."""
    hall = Hall(replace(POLICY, mode=Mode.SHADOW, tiers={"free": TierPolicy(queue=1, rate=40)}))

    answers = hall.ask_all([{}] * 50)

    assert {status(answered) for answered in answers} == {200}
    assert {answered.at_s[-1] for answered in answers} == {hall.seconds + answers[0].at_s[0] - 0.1}
    assert hall.most == 50
    assert hall.passages == {"rate": 10, "queued": 46}
    hall.check()


def test_a_lane_that_observes_is_not_asked() -> None:
    """One tier may, while another is held to its limits."""
    tiers = {"free": TierPolicy(mode=Mode.OBSERVE), "pro": TierPolicy()}
    hall = Hall(replace(POLICY, concurrency=1, tiers=tiers))

    answers = hall.ask_all([{"tier": "free"}] * 10 + [{"tier": "pro"}] * 2)

    assert [status(answered) for answered in answers] == [*[200] * 11, 503]
    assert hall.passages == {"refused": 1}
    hall.check()


def test_an_error_of_the_application_frees_the_slot() -> None:
    """It is the application's own, with nothing of ours for its context."""
    hall = Hall(replace(POLICY, concurrency=1, tiers={}))
    hall.error = ValueError("mine")

    for _ in range(3):
        with pytest.raises(ValueError, match="mine"):
            hall.ask()

    assert hall.error.__context__ is None
    hall.check()


@settings(deadline=None, max_examples=40)
@given(
    storm=st.lists(
        st.tuples(
            st.integers(0, 1000),
            st.sampled_from(["free", "pro"]),
            st.one_of(st.none(), st.integers(0, 1000)),
        ),
        max_size=30,
    ),
    steered=st.booleans(),
)
def test_after_any_storm_nothing_is_held(
    storm: list[tuple[int, str, int | None]], *, steered: bool
) -> None:
    """Requests come when they like, and some are cancelled: running, waiting, or answered."""
    hall = Hall(STEERED if steered else replace(POLICY, concurrency=2))

    async def one(after_ms: int, tier: str, cancelled_ms: int | None) -> None:
        await asyncio.sleep(after_ms / 1000)
        task = asyncio.ensure_future(hall.asking(tier=tier))
        if cancelled_ms is not None:
            await asyncio.sleep(cancelled_ms / 1000)
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            assert (await task).complete

    async def main() -> None:
        await asyncio.gather(*(one(*request) for request in storm))

    hall.time.run(main())

    assert hall.most <= 2
    hall.check()
