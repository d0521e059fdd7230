"""One world: what was drawn for it, what has happened in it, and what did not hold."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextvars import Context
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from opentelemetry.metrics import NoOpMeterProvider

from budgetware._core.decide import Action
from budgetware._core.steering import Steering
from budgetware.answers.preparing import FallbackLate
from budgetware.http import CLIENT_ERROR, SAFE_METHODS
from simulation.clients import Request, draw_requests
from simulation.doors import Guarded, request_state
from simulation.forks import forked
from simulation.invariants import check_clean, check_end
from simulation.loop import VirtualTime
from simulation.policies import GRID_S, draw_policy, grid
from simulation.redis_double import MOODS, RedisDouble

if TYPE_CHECKING:
    from budgetware._core.policy import Policy
    from budgetware._core.record import RequestRecord
    from simulation.applications import Run

FORKS: Final = 0.02
"""How likely a child is forked in the middle of a world."""

MOST_IDENTITIES: Final = 8
"""Callers whose rates are remembered one by one: so few that some are forgotten."""


class Event(NamedTuple):
    """Something that has happened.

    Attributes:
        at_s: When, in seconds since the world began.
        who: Whom it has happened to.
        what: What it was.

    """

    at_s: float
    who: str
    what: str

    def __str__(self) -> str:
        return f"{self.at_s:9.4f}  {self.who:<14}{self.what}"


class World(ABC):
    """One world, whichever door it is behind.

    Args:
        seed: All that is drawn is drawn from it.
        threads: Whether requests are served by threads.

    Attributes:
        time: Its clock.
        clock: The same, as the doors are given it.
        rng: Draws what the world is like; what happens to one request is drawn from its own.
        trace: What has happened so far.
        broken: What did not hold.
        theme: What happens in it more often than elsewhere.
        disorder: How likely an application is to end in a strange way.
        policies: Those that were ever in force.
        requests: Those that are sent.
        runs: What the application has made of them.
        doors: Every door there is.
        outer_doors: Those that servers send requests to.
        served_by: At which of them each request has arrived, and when.
        writes: At which of them which address was written to, and when.
        redis: What they share, if anything.
        url: Where that is.
        loose: How much work goes on by itself.
        gave_up: How many requests were cancelled.

    """

    def __init__(self, seed: int, *, threads: bool) -> None:
        self._threads = threads
        self.rng = Random(f"world {seed}")
        self.time = VirtualTime()
        self.clock: Callable[[], float] = self.time
        self.began_s = self.time.now
        self.trace: list[Event] = []
        self.broken: list[str] = []
        self.met: Counter[str] = Counter()
        self.theme = self.rng.choice(("mixed", "mixed", "kept", "cancelled"))
        self.disorder = 0.05 if self.theme == "kept" else 0.3
        self.policies = [draw_policy(self.rng, self.theme, threads=threads)]
        self.reloads_at_s = grid(self.rng, 0, 60) if self.rng.random() < 0.15 else None
        if self.reloads_at_s is not None:
            self.policies.append(draw_policy(self.rng, self.theme, threads=threads))
        self.requests = draw_requests(self.rng, self.theme, self.tiers)
        self._by_number = {request.number: request for request in self.requests}
        self.runs: dict[int, Run] = {}
        self.doors: list[Guarded] = []
        self.outer_doors: list[Any] = []
        self.served_by: dict[int, tuple[object, float]] = {}
        self.writes: list[tuple[object, str, float]] = []
        self._meters = NoOpMeterProvider()  # the global one would remember every world
        self.redis: RedisDouble | None = None
        if self.rng.random() < (0.5 if self.theme == "kept" else 0.25):
            self.redis = RedisDouble(self.time, Random(f"redis {seed}"), self.noter("redis"))
        # No two worlds have heard of the same server.
        self.url = f"redis://double-{seed}:6379/0"
        self.loose = 0
        self.gave_up = 0
        self._clumsy = self.rng.random() < 0.1

    @abstractmethod
    def run(self) -> None:
        """Let everything happen."""

    @abstractmethod
    def door(self, name: str, app: Any, policy: Policy, *, is_inner: bool) -> Any:
        """Return a door."""

    @abstractmethod
    def application(self, *call: Any) -> Any:
        """Be the application behind the doors."""

    def open_doors(self) -> None:
        """Open one door or two, as two processes would, now and then with another door inside."""
        policy, nested = self.policies[0], self.rng.random()
        for number in range(self.rng.choice((1, 2, 2) if self.theme == "kept" else (1, 1, 2))):
            inner: Any = self.application
            if nested < 0.15:
                theirs = policy
                if nested > 0.05:
                    theirs = draw_policy(self.rng, self.theme, threads=self._threads)
                inner = self.door(f"inner door {number}", inner, theirs, is_inner=True)
                self.doors.append(inner)
            outer = self.door(f"door {number}", inner, policy, is_inner=False)
            self.doors.append(outer)
            self.outer_doors.append(outer)

    def spawn(self, work: Coroutine[Any, Any, None], context: Context | None) -> None:
        """Have *work* go on by itself."""
        raise NotImplementedError

    def carry(self, work: Coroutine[Any, Any, None]) -> None:
        """Have *work* done by a thread that carries the request's budget."""
        raise NotImplementedError

    def at_work(self, number: int) -> None:  # noqa: B027 - a world of threads has nobody who does
        """Let others meet request *number* at what it is doing just now."""

    def request(self, number: int) -> Request:
        """Return request *number*."""
        return self._by_number[number]

    @property
    def tiers(self) -> tuple[str, ...]:
        """The tiers of all policies."""
        return tuple(dict.fromkeys(name for policy in self.policies for name in policy.tiers))

    def note(self, who: str, what: str) -> None:
        """Take down that *what* has happened to *who*."""
        self.trace.append(Event(self.time.now - self.began_s, who, what))

    def noter(self, who: str) -> Callable[[str], None]:
        """Return what takes down what happens to *who*."""
        return lambda what: self.note(who, what)

    def fails(self, invariant: str, detail: str) -> None:
        """Take down that *invariant* does not hold."""
        self.note("INVARIANT", f"{invariant}: {detail}")
        self.broken.append(f"{invariant}: {detail}")

    def adopt(self) -> None:
        """Put the second policy in force, as a reload does."""
        self.note("world", "the policy is another")
        self.met["reloads"] += 1
        for door in self.doors:
            if door.engine.policy == self.policies[0]:
                door.engine.adopt(self.policies[1])

    def happenings(self) -> Iterator[tuple[float, Callable[[], object]]]:
        """Yield what happens besides requests: when, and what."""
        rng = self.rng
        if self.reloads_at_s is not None:
            yield self.reloads_at_s, self.adopt
        if rng.random() < 0.1:
            yield grid(rng, 0, 60), self.shut_down
        if self.theme == "kept":
            yield grid(rng, 2, 20), self._answer_now
        if rng.random() < FORKS and hasattr(os, "fork"):
            yield grid(rng, 0, 30), self.fork
        redis = self.redis
        if redis is not None:
            moods = rng.sample(MOODS, rng.choice((0, 1, 2, 4)))
            for mood in moods:
                yield grid(rng, 0, 60), partial(redis.turn, mood)
                self.met[f"a redis that is {mood}"] += 1
            if rng.random() < 0.4:
                yield grid(rng, 0, 60), redis.flush
                self.met["a redis that is flushed"] += 1

    def fork(self) -> None:
        """Have a child of this process serve a request at every door."""
        self.note("world", "forks")
        self.met["forks"] += 1
        for broken in forked(self._served_by_child):
            self.fails("fork", broken)

    def _served_by_child(self) -> list[str]:
        """Serve a request at every door, in a child; return what did not hold there."""
        self.broken.clear()
        self.gave_up += len(self.requests)  # whoever was waiting has stayed with the parent
        for door in self.doors:
            door.forget()
        check_clean(self)
        self.requests = [
            Request(
                number=10_000 + number,
                at_s=self.time.now - self.began_s,
                method="GET",
                path="/mine/1",
                query=f"child={number}",
                who="ann",
                tier=None,
                headers=[("host", "service")],
                upload=[],
                leaves_after_s=None,
                reads_s=0.0,
                seed=self.rng.getrandbits(48),
            )
            for number in range(len(self.outer_doors) * 2)
        ]
        self._by_number.update({request.number: request for request in self.requests})
        self.begin_anew()
        check_end(self)
        return self.broken

    @abstractmethod
    def begin_anew(self) -> None:
        """Serve this world's requests, and nothing else, in a child."""

    def _answer_now(self) -> None:
        """Have every decision be for something smaller."""
        self.note("world", "no request will fit from now on")
        Steering.forced = Action.ANSWER

    @abstractmethod
    def shut_down(self) -> None:
        """Have the servers end what they are at."""

    def options(self) -> dict[str, Any]:
        """Return the options that every middleware of this world has."""
        return {
            "clock": self.clock,
            "identity": self._identity,
            "fallbacks": dict.fromkeys(self.policies[0].routes, self.cheap),
            "observers": [self._recorded] if self.rng.random() < 0.6 else [],
            "server_timing": self.rng.choice((False, False, True)),
            "logger": _Silence(),
            "meter_provider": self._meters,
            "histograms": "off",
            "traces": "off",
        }

    @property
    @abstractmethod
    def cheap(self) -> Callable[[Mapping[str, Any]], Any]:
        """The application's own cheap answer to a request."""

    def cheap_for(self, request: Mapping[str, Any]) -> tuple[float, str]:
        """Return how long the cheap answer to *request* takes, and what it is.

        Raises:
            MishapError: It fails.

        """
        self.stumbles("fallback")
        asked = self.request(request_state(request)["number"])
        seconds = Random(asked.seed + 2).choice((0.0, 0.0, 0.0, GRID_S, 4 * GRID_S))
        return seconds, f"cheap for {asked.mark}"

    def fault(self, step: str, error: Exception, _: int) -> None:
        """Hear of a failure inside budgetware; the application's functions may fail."""
        if not isinstance(error, MishapError | FallbackLate):
            self.fails("fault", f"{step}: {error!r}")

    def arrives(self, request: Request, door: object) -> None:
        """Take down that *request* has arrived at *door*."""
        self.note(f"client {request.number}", f"asks for {request.method} {request.mark}")
        self.served_by[request.number] = door, self.time.now

    def responds(self, run: Run) -> None:
        """Take down that the application begins to respond: what it was to change is changed."""
        request = run.request
        if request.method not in SAFE_METHODS and run.response.status < CLIENT_ERROR:
            door, _ = self.served_by[request.number]
            self.writes.append((door, request.url, self.time.now))

    def finish(self) -> None:
        """Look at what must hold at the end, and count what was met on the way."""
        check_end(self)
        self.met["requests"] += len(self.requests)
        for door in self.doors:
            for (_, mode, passage), count in door.engine.tally.admission.items():
                self.met[f"{passage} in {mode}"] += count
        for run in self.runs.values():
            self.met["requests that ask for less"] += run.asks_for_less
        if self.redis is not None:
            self.met["responses found in a redis"] += self.redis.found

    def stumbles(self, step: str) -> None:
        """Fail now and then, in a clumsy world, in a function of the application that we call.

        Raises:
            MishapError: On purpose.

        """
        if self._clumsy and self.rng.random() < 0.3:
            raise MishapError(step)

    def _identity(self, request: Mapping[str, Any]) -> object:
        state = request_state(request)
        asked = self.request(state["number"])
        if self._clumsy and asked.seed % 3 == 0:
            # Who cannot be named is nobody, as is who has no name.
            asked.who_is_known = False
            raise MishapError("identity")
        return state["who"]

    def _recorded(self, record: RequestRecord) -> None:
        """Check that a finished request's ledger balances."""
        self.stumbles("observe")
        claimed = sum(total.exclusive_s for total in record.stages) + record.unattributed_s
        if abs(claimed - record.duration_s) > 1e-9 or record.unattributed_s < -1e-9:
            self.fails("ledger", f"{claimed} of {record.duration_s} s in {record!r}")
        passed_s = self.time.now - self.began_s
        if not 0 <= record.elapsed_s <= passed_s + 1e-9 or record.waited_s < 0:
            self.fails("ledger", f"{record.elapsed_s} s in a world of {passed_s} s")


class MishapError(Exception):
    """What a function of the application fails with that we call."""


class _Silence:
    """A logger nobody reads."""

    def __getattr__(self, _: str) -> Callable[..., None]:
        return _say_nothing


def _say_nothing(*_: object, **__: object) -> None:
    pass
