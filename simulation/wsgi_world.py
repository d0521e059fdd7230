"""A world of threads: clients, the workers of a server, doors and an application."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from budgetware import budget
from budgetware._core.current import current_budget
from budgetware._core.interrupt import AnswerNow
from budgetware.answers import errands, preparing, redis_store
from budgetware.answers.redis_store import RedisStore
from budgetware.limits import connections
from budgetware.limits.threads import SharedRates
from budgetware.wsgi import BudgetMiddleware, gate
from budgetware.wsgi.steered import TurnedTooLate
from simulation.applications import BackendError, ClientLeftError
from simulation.clients import GoneError
from simulation.doors import Guarded, request_state
from simulation.invariants import Reply, check_reply, check_step
from simulation.loop import StuckError
from simulation.policies import grid
from simulation.redis_double import connected_to
from simulation.threads import ExitedError, Threading, Threads
from simulation.world import MOST_IDENTITIES, World
from simulation.wsgi_application import BodyError, WsgiRun, driven
from simulation.wsgi_servers import Server

if TYPE_CHECKING:
    from budgetware._core.policy import Policy
    from budgetware.wsgi import Environ, StartResponse, WSGIApp
    from simulation.clients import Request

_THEIRS = (BackendError, ClientLeftError, BodyError, GoneError, ExitedError)
"""What an application, or a server, may fail with."""

_WORDS = {
    GoneError: "clients that leave a thread",
    BodyError: "bodies whose close fails",
    ExitedError: "workers that are told to exit",
}

_PLACES = (
    (errands, "threading"),
    (gate, "threading"),
    (connections, "threading"),
    (connections, "queue"),
    (connections, "time"),
    (redis_store, "time"),
)
"""Where budgetware makes threads, waits in one, or looks at a clock of its own."""


class Door(Guarded):
    """A middleware with somebody on either side of it who watches.

    Args:
        world: Where it stands.
        name: What it is called.
        app: The application behind it.
        policy: What is in force.
        is_inner: Whether there is a door around it.

    """

    def __init__(
        self, world: WsgiWorld, name: str, app: WSGIApp, policy: Policy, *, is_inner: bool
    ) -> None:
        self._world = world
        self._app = app
        self._door = BudgetMiddleware(self._behind, policy=policy, **world.options())
        super().__init__(name, self._door._engine, is_inner=is_inner)
        self.engine._on_fault = world.fault

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Send one request through."""
        outer: Any = current_budget.get()
        self.began += outer is None or outer.engine.policy != self.engine.policy
        self.under_way += 1  # until the world has seen the request's end
        self._world.in_doors(request_state(environ)["number"]).append(self)
        return self._door(environ, start_response)

    def _behind(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        number = request_state(environ)["number"]
        with self.called(number, current_budget.get(), self._world):
            return self._app(environ, start_response)


class WsgiWorld(World):
    """A world of threads.

    Args:
        seed: All that is drawn is drawn from it.

    Attributes:
        threads: Its threads.

    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed, threads=True)
        order = Random(f"order {seed}")
        self.threads = Threads(self.time, order, lambda: check_step(self))
        self.clock = self.threads.look
        self._in_doors: dict[int, list[Door]] = {}
        self._waiting: list[Request] = []
        self._exits = self.rng.choice((0.0, 0.0, 0.15))

    def run(self) -> None:
        """Let everything happen."""
        with self._in_our_time():
            self.open_doors()
            self._hire(self.rng.randint(1, 5))
            for at_s, happens in self.happenings():
                self.threads.start(partial(self._happens, at_s, happens), "world")
            try:
                self.threads.run()
            except StuckError as error:
                self.fails("end", str(error))
        self.finish()

    def _hire(self, workers: int) -> None:
        self._waiting = list(self.requests)
        for number in range(workers):
            self.threads.start(self._work, f"worker {number}")

    def fork(self) -> None:
        """Fork between two turns of the threads, whichever of them holds what."""
        self.threads.between.append(super().fork)

    def begin_anew(self) -> None:
        """Serve this world's requests, and nothing else, in a child."""
        self.threads.begin_anew()
        self._exits, self.loose = 0.0, 0
        self._hire(2)
        self.threads.run()

    @contextmanager
    def _in_our_time(self) -> Iterator[None]:
        """Have budgetware's own threads be ours meanwhile."""
        ours = Threading(self.threads)
        preparing._errands.cache_clear()
        with ExitStack() as stack:
            stack.callback(preparing._errands.cache_clear)
            for module, name in _PLACES:
                stack.enter_context(patch.object(module, name, ours))
            yield

    def door(self, name: str, app: Any, policy: Policy, *, is_inner: bool) -> Door:
        """Return a door."""
        return Door(self, name, app, policy, is_inner=is_inner)

    def options(self) -> dict[str, Any]:
        """Return the options that every middleware of this world has."""
        options = super().options()
        redis = self.redis
        if redis is not None:
            if self.rng.random() < 0.8:
                secret = b"secret" if self.rng.random() < 0.3 else b""
                store = options["store"] = RedisStore(self.url, secret=secret)
                store._client.connection_pool.connection_class = connected_to(redis, self.threads)
            if self.rng.random() < 0.6:
                rates = options["rates"] = SharedRates(
                    self.url, workers=2, most_identities=MOST_IDENTITIES
                )
                rates._connections._pool.connection_class = connected_to(redis, self.threads)
        return options

    @property
    def cheap(self) -> Callable[[Mapping[str, Any]], Any]:
        """The application's own cheap answer to a request."""

        def cheap(environ: Mapping[str, Any]) -> str:
            seconds, answer = self.cheap_for(environ)
            self.threads.sleep(seconds)
            return answer

        return cheap

    def _happens(self, at_s: float, happens: Callable[[], object]) -> None:
        self.threads.sleep(at_s)
        happens()

    def shut_down(self) -> None:
        """Have the workers exit from what they are at."""
        self.note("world", "the workers are told to exit")
        self.threads.exit_all("worker")

    def _work(self) -> None:
        """Serve requests one after another, as a worker does."""
        while self._waiting:
            request = self._waiting.pop(0)
            self.threads.wait(
                None, max(0.0, self.began_s + request.at_s - self.time.now), may_exit=False
            )
            self._serve(request)

    def _serve(self, request: Request) -> None:
        number, rng = request.number, Random(request.seed + 1)
        server = Server(request, self.threads, rng, self)
        door = rng.choice(self.outer_doors)
        self.arrives(request, door)
        fiber = self.threads.current
        assert fiber is not None
        if rng.random() < self._exits:
            fiber.exits_at = self.time.now + grid(rng, 0, 40)
        error: BaseException | None = None
        try:
            server.serve(door)
        except _THEIRS as caught:
            error = caught
            self.gave_up += isinstance(caught, ExitedError)
            self.met[_WORDS.get(type(caught), "applications that fail")] += 1
        except TurnedTooLate as caught:
            error = caught
        except AnswerNow as caught:
            self.fails("error", f"our way out has reached the server of {number}")
            error = caught
        finally:
            fiber.exits_at = float("inf")
        for one in self.in_doors(number):
            one.left(number)
        self.note(f"server {number}", "is done" if error is None else f"is done with {error!r}")
        self._check(request, server, error)

    def _check(self, request: Request, server: Server, error: BaseException | None) -> None:
        run = self.runs.get(request.number)
        if isinstance(run, WsgiRun) and run.closed != run.bodies:
            self.fails("close", f"{run.closed} of {run.bodies} bodies of {request.number}")
        if not server.starts:
            if error is None:
                self.fails("one response", f"{request.number} got none, and nobody is to blame")
            return
        if any(not replaces for _, _, replaces in server.starts[1:]):
            self.fails("one response", f"{request.number} got {server.starts!r}")
        status, headers, _ = server.starts[-1]
        reply = Reply(
            status=int(status[:3]),
            headers={name.lower(): value for name, value in headers},
            body=b"".join(server.parts),
            whole=server.is_whole and error is None,
            at_s=server.began_s,
        )
        check_reply(self, request, reply, is_blamed=error is not None)

    def in_doors(self, number: int) -> list[Door]:
        """Return the doors that request *number* has come to."""
        return self._in_doors.setdefault(number, [])

    def application(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Be the application."""
        request = self.request(request_state(environ)["number"])
        if request.number in self.runs:
            self.fails("one call", f"the application was called twice for {request.number}")
        run = self.runs[request.number] = WsgiRun(request, self, environ, start_response)
        return run.serve()

    def carry(self, work: Coroutine[Any, Any, None]) -> None:
        """Have *work* done by a thread that carries the request's budget."""
        carried = budget.carry(partial(driven, self.threads, work))
        self.loose += 1

        def carry() -> None:
            try:
                carried()
            finally:
                self.loose -= 1

        self.threads.start(carry, "carried")
