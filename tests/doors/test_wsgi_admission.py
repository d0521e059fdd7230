"""Coming in over WSGI: rates, slots, the queue before them, and nobody left holding one."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from tests.doors.fault_points import Faults
from tests.doors.test_asgi_admission import POLICY, RATED, STEERED
from tests.doors.test_asgi_admission_alone import steps_of

from budgetware import budget
from budgetware._core.policy import Mode, Policy, TierPolicy
from budgetware.wsgi import BudgetMiddleware, StartResponse

ONE = replace(POLICY, concurrency=1, tiers={"free": TierPolicy(queue=60.0)})
NO_QUEUE = replace(POLICY, concurrency=1, tiers={"free": TierPolicy()})
Got = tuple[str, dict[str, str], bytes]


class Hall:
    """An application behind the door whose calls last until they are let go."""

    def __init__(self, policy: Policy, *, lazy: bool = False, **more: Any) -> None:
        self.entered, self.over = threading.Semaphore(0), threading.Event()
        self.lazy, self.calls = lazy, 0
        self.now = self.most = 0
        self._lock = threading.Lock()
        self.error: Exception | None = None
        self.door = BudgetMiddleware(self.app, policy=policy, clock=lambda: 1000.0, **more)

    def app(self, _: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer once it is let go."""
        with self._lock:
            self.calls += 1
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            self.entered.release()
            if self.error is not None:
                raise self.error
            assert self.over.wait(30)
        finally:
            with self._lock:
                self.now -= 1
        start_response("200 OK", [])
        return self.parts() if self.lazy else [b"full"]

    def parts(self) -> Iterator[bytes]:
        """Give the body step by step."""
        yield b"fu"
        yield b"ll"

    def begin(self, path: str = "/signals", method: str = "GET") -> tuple[Any, list[Any]]:
        """Call the door; return the body, not yet read, and what was begun."""
        began: list[Any] = []

        def start_response(status: str, headers: list[tuple[str, str]], *_: object) -> Any:
            began.append((status, dict(headers)))
            return lambda _: None

        environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "wsgi.input": None}
        return self.door(environ, start_response), began

    def ask(self, path: str = "/signals", method: str = "GET") -> Got:
        """Send one request; return the status, the headers and the body."""
        body, began = self.begin(path, method)
        try:
            content = b"".join(body)
        finally:
            getattr(body, "close", lambda: None)()
        assert len(began) == 1
        return *began[0], content

    def waiting(self) -> int:
        """Return how many wait for a slot."""
        admission = self.door._engine.entrance.enforced
        assert admission is not None
        return sum(waiting for _, waiting in admission.load().values())

    def check(self) -> None:
        """Make sure that nothing failed, and that nobody holds anything."""
        engine = self.door._engine
        assert engine.tally.faults == {}
        assert engine._traffic.now == 0
        admission = engine.entrance.enforced
        assert admission is None or admission.in_flight == 0


def test_a_caller_over_its_rate_is_told_when_to_come_back() -> None:
    """429 and ``Retry-After``."""
    hall = Hall(RATED)
    hall.over.set()

    answers = [hall.ask() for _ in range(3)]

    assert [status for status, _, _ in answers] == ["200 OK"] * 2 + ["429 Too Many Requests"]
    assert int(answers[-1][1]["retry-after"]) >= 1
    hall.check()


def test_a_process_never_runs_more_than_it_may() -> None:
    """Of 50 threads at once all wait, and all are served."""
    hall = Hall(replace(ONE, concurrency=4))
    hall.over.set()

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: hall.ask(), range(50)))

    assert hall.most <= 4
    served = [status for status, _, _ in answers].count("200 OK")
    assert served == hall.calls >= 20  # a queue is no longer than four times the slots, or 16
    hall.check()


def test_a_waiter_is_woken_and_the_rest_passes_or_is_refused() -> None:
    """A thread waits; health checks and preflights do not."""
    hall = Hall(ONE)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(hall.ask)
        assert hall.entered.acquire(timeout=30)
        second = pool.submit(hall.ask)
        while not hall.waiting():
            threading.Event().wait(0.001)
        passing = [pool.submit(hall.ask, "/healthz"), pool.submit(hall.ask, "/", "OPTIONS")]
        for _ in passing:
            assert hall.entered.acquire(timeout=30)
        assert hall.calls == 3
        hall.over.set()
        statuses = [one.result(30)[0] for one in (first, second, *passing)]

    assert statuses == ["200 OK"] * 4
    counts = hall.door._engine.tally.admission
    assert {key[2]: n for key, n in counts.items()} == {"queued": 1, "admitted": 1}
    hall.check()


def test_a_thread_that_still_runs_keeps_its_requests_slot() -> None:
    """Its request has been answered, and the process is still busy."""
    hall = Hall(NO_QUEUE)
    hall.over.set()
    over = threading.Event()
    threads: list[threading.Thread] = []
    answer = hall.app

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        threads.append(threading.Thread(target=budget.carry(over.wait), args=(30,)))
        threads[-1].start()
        return answer(environ, start_response)

    hall.door = BudgetMiddleware(app, policy=NO_QUEUE, clock=lambda: 1000.0)
    statuses = [hall.ask()[0] for _ in range(2)]
    over.set()
    threads[0].join()
    statuses.append(hall.ask()[0])
    threads[1].join()

    assert statuses == ["200 OK", "503 Service Unavailable", "200 OK"]
    hall.check()


@pytest.mark.parametrize("policy", [NO_QUEUE, STEERED])
def test_who_does_not_come_in_never_runs(policy: Policy) -> None:
    """At once or when its time is up: 503, or the route's own answer."""
    hall = Hall(policy)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(hall.ask)
        assert hall.entered.acquire(timeout=30)
        status, headers, body = hall.ask()
        assert hall.calls == 1
        hall.over.set()
        assert first.result(30)[2] == b"full"

    if policy is STEERED:
        assert (status, body) == ("200 OK", b"static")
    else:
        assert status == "503 Service Unavailable"
        assert int(headers["retry-after"]) >= 1
    hall.check()


@pytest.mark.parametrize(
    "policy", [NO_QUEUE, replace(STEERED, tiers={"pro": TierPolicy(budget=1)})]
)
def test_a_slot_is_held_until_the_body_is_closed(policy: Policy) -> None:
    """The application may be at work in every step of it."""
    hall = Hall(policy, lazy=True)
    hall.over.set()
    body, _ = hall.begin()
    assert next(iter(body)) == b"fu"

    assert hall.ask()[2] != b"full"
    body.close()

    assert hall.ask()[2] == b"full"
    hall.check()


def test_a_body_nobody_closes_gives_its_slot_back() -> None:
    """When it is collected."""
    hall = Hall(NO_QUEUE, lazy=True)
    hall.over.set()
    body, _ = hall.begin()
    del body

    assert hall.ask()[0] == "200 OK"
    hall.check()


@pytest.mark.parametrize("policy", [NO_QUEUE, STEERED])
def test_an_error_of_the_application_frees_the_slot_and_is_raised_once(policy: Policy) -> None:
    """The application is not called a second time, and the error is its own."""
    hall = Hall(policy)
    hall.error = ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        hall.ask()

    assert hall.calls == 1
    assert hall.error.__context__ is None
    hall.check()


def test_shadow_changes_nothing() -> None:
    """Everybody runs; what would have been said is counted."""
    hall = Hall(replace(RATED, mode=Mode.SHADOW, concurrency=1))
    hall.over.set()

    assert {hall.ask()[0] for _ in range(9)} == {"200 OK"}
    assert hall.door._engine.tally.admission == {("free", Mode.SHADOW, "rate"): 7}
    hall.check()


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("policy", [NO_QUEUE, RATED, STEERED])
def test_a_broken_step_changes_no_answer(
    monkeypatch: pytest.MonkeyPatch, policy: Policy, *, lazy: bool
) -> None:
    """Each step of the entrance raises, always or once: the request runs."""
    faults = Faults(monkeypatch)
    hall = Hall(policy, lazy=lazy)
    hall.over.set()
    hall.ask()
    for step in steps_of(faults):
        for once in (True, False):
            hall = Hall(policy, lazy=lazy)
            hall.over.set()
            faults.arm(step, once=once)
            body = hall.ask()[2]
            faults.arm(None)
            assert (body, hall.calls) == (b"full", 1), step


def test_a_waiter_has_the_slot_of_a_request_whose_client_stalls() -> None:
    """As soon as it may be lent, and not when the wait is over."""
    reads, sent = threading.Event(), threading.Event()

    class Stalled:
        def read(self, *_: int) -> bytes:
            reads.set()
            assert sent.wait(30)
            return b""

    def app(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        environ["wsgi.input"].read()
        start_response("200 OK", [])
        return [b"ok"]

    tiers = {"free": TierPolicy(budget=600.0, queue=300.0)}
    door = BudgetMiddleware(app, policy=replace(ONE, tiers=tiers))

    def ask(stream: object) -> bytes:
        environ = {"REQUEST_METHOD": "POST", "PATH_INFO": "/signals", "wsgi.input": stream}
        return b"".join(door(environ, lambda *_: lambda _: None))

    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(ask, Stalled())
        assert reads.wait(30)
        assert pool.submit(ask, io.BytesIO()).result(timeout=30) == b"ok"
        assert not slow.done()
        sent.set()
        assert slow.result(timeout=30) == b"ok"
