"""A world of coroutines: clients, servers, doors and an application on one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextvars import Context
from random import Random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import anyio

from budgetware._core.current import current_budget
from budgetware.answers import redis_store
from budgetware.answers.redis_store import AsyncRedisStore
from budgetware.asgi import BudgetMiddleware
from budgetware.limits.tasks import AsyncSharedRates
from simulation.asgi_application import AsgiRun
from simulation.asgi_servers import Server
from simulation.doors import Guarded, request_state
from simulation.invariants import Reply, check_promise, check_reply, check_step
from simulation.loop import Loop, StuckError, numbered
from simulation.passages import Passage, Passages
from simulation.policies import grid
from simulation.redis_double import Lines
from simulation.world import MOST_IDENTITIES, World

if TYPE_CHECKING:
    from budgetware._core.policy import Policy
    from budgetware.asgi import ASGIApp, Receive, Scope, Send
    from simulation.clients import Request


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
        self, world: AsgiWorld, name: str, app: ASGIApp, policy: Policy, *, is_inner: bool
    ) -> None:
        self._world = world
        self._app = app
        self._door = BudgetMiddleware(self._behind, policy=policy, **world.options())
        self._passages = Passages()
        super().__init__(name, self._door._engine, is_inner=is_inner)
        self.engine._on_fault = world.fault

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Send one request through."""
        world, number = self._world, request_state(scope)["number"]
        passage = Passage(
            f"request {number} at {self.name}",
            world.fails,
            lambda: world.runs[number],
            is_inner=self.is_inner,
        )
        with self._passages.entered(number, passage), world.passages.entered(number, passage):
            raised = world.servers[number].raised
            # A door inside another with an equal policy lets its requests through.
            outer: Any = current_budget.get()
            self.began += outer is None or outer.engine.policy != self.engine.policy
            self.under_way += 1
            try:
                return await passage.through(self._door, scope, receive, send, raised)
            finally:
                self.left(number)

    async def _behind(self, scope: Scope, receive: Receive, send: Send) -> Any:
        number = request_state(scope)["number"]
        (passage,) = self._passages.of(number)
        with self.called(number, current_budget.get(), self._world):
            return await passage.within(self._app, scope, receive, send)


class AsgiWorld(World):
    """A world of coroutines.

    Args:
        seed: All that is drawn is drawn from it.

    Attributes:
        loop: Its event loop.
        servers: By the number of the request they serve.
        passages: Where requests are.

    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed, threads=False)
        self.servers: dict[int, Server] = {}
        self.passages = Passages()
        self._order = Random(f"order {seed}") if self.rng.random() < 0.6 else None
        self.loop = self._new_loop()
        self._serving: dict[int, asyncio.Task[Any]] = {}
        self._lying_in_wait: dict[int, tuple[int, int]] = {}
        self._closing: list[Callable[[], Awaitable[None]]] = []
        self._cancels = self.rng.choice((0.3, 0.6) if self.theme == "cancelled" else (0.0, 0.1))

    def _new_loop(self) -> Loop:
        network = None if self.redis is None else Lines(self.redis)
        # What it does not have is abstract for type checkers only.
        return Loop(self.time, self._order, lambda: check_step(self), network)  # type: ignore[abstract]

    def begin_anew(self) -> None:
        """Serve this world's requests, and nothing else, in a child."""
        self.loop, self.loose = self._new_loop(), 0
        self._cancels, self._closing = 0.0, []
        self.loop.run(self._requests())

    def run(self) -> None:
        """Let everything happen."""
        with patch.object(redis_store, "time", SimpleNamespace(monotonic=self.time)):
            # Not in the loop, where each would read and import in a thread of its own.
            self.open_doors()
            try:
                self.loop.run(self._everything())
            except StuckError as error:
                self.fails("end", str(error))
        for handle in self.loop.pending():
            self.fails("timer", f"it is left: {handle!r}")
        for trouble in self.loop.troubles:
            self.fails("trouble", repr(trouble))
        for task in self.loop.tasks:
            if task._log_traceback:
                self.fails("trouble", f"nobody has heard of what {task!r} has ended with")
        self.finish()

    async def _everything(self) -> None:
        with numbered(type(anyio.CancelScope())):
            await self._requests(*self.happenings())

    async def _requests(self, *happenings: tuple[float, Callable[[], object]]) -> None:
        clients = [self.loop.create_task(self._client(request)) for request in self.requests]
        others = [self.loop.create_task(self._happens(*one)) for one in happenings]
        await asyncio.gather(*clients, *others)
        while left := [task for task in self.loop.tasks[1:] if not task.done()]:
            await asyncio.wait(left)
        for close in self._closing:
            await close()

    def door(self, name: str, app: Any, policy: Policy, *, is_inner: bool) -> Door:
        """Return a door."""
        return Door(self, name, app, policy, is_inner=is_inner)

    @property
    def cheap(self) -> Callable[[Mapping[str, Any]], Any]:
        """The application's own cheap answer to a request."""

        async def cheap(scope: Mapping[str, Any]) -> str:
            seconds, answer = self.cheap_for(scope)
            await asyncio.sleep(seconds)
            return answer

        return cheap

    async def _happens(self, at_s: float, happens: Callable[[], object]) -> None:
        await asyncio.sleep(at_s)
        happens()

    def shut_down(self) -> None:
        """Have the servers cancel what they are at."""
        self.note("world", "the servers shut down")
        for number in list(self._serving):
            self._cancel(number)

    def options(self) -> dict[str, Any]:
        """Return the options that every middleware of this world has."""
        options = super().options()
        if self.redis is not None:
            if self.rng.random() < 0.8:
                secret = b"secret" if self.rng.random() < 0.3 else b""
                store = options["store"] = AsyncRedisStore(self.url, secret=secret)
                self._closing.append(store.close)
            if self.rng.random() < 0.6:
                rates = options["rates"] = AsyncSharedRates(
                    self.url, workers=2, most_identities=MOST_IDENTITIES
                )
                self._closing.append(rates.aclose)
        return options

    def _cancel(self, number: int) -> None:
        task = self._serving.get(number)
        if task is not None and task.cancel():
            self.note(f"server {number}", "cancels it")
            self.met["requests the server cancels"] += 1
            for passage in self.passages.of(number):
                passage.cancelled()
            self.gave_up += 1

    async def _client(self, request: Request) -> None:
        await asyncio.sleep(self.began_s + request.at_s - self.time.now)
        number, rng = request.number, Random(request.seed + 1)
        server = self.servers[number] = Server(request, rng, self)
        door = rng.choice(self.outer_doors)
        self.arrives(request, door)
        task = self.loop.create_task(door(server.scope(), server.receive, server.send))
        self._serving[number] = task
        leaving = cancelling = None
        if request.leaves_after_s is not None:
            leaving = self.loop.call_later(request.leaves_after_s, server.leave)
        if rng.random() < self._cancels:
            if rng.random() < 0.5:
                turns = rng.choice((1, 1, 2, 2, 3, 4))
                self._lying_in_wait[number] = rng.choice((1, 1, 2, 3)), turns
            else:
                cancelling = self.loop.call_later(grid(rng, 0, 30), self._cancel, number)
        await asyncio.wait({task})
        del self._serving[number]
        if leaving is not None:
            leaving.cancel()
        if cancelling is not None:
            cancelling.cancel()
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        self.note(f"server {number}", "is done" if error is None else f"is done with {error!r}")
        self._check(request, server, error)

    def at_work(self, number: int) -> None:
        """Have the server cancel request *number* in this turn, or soon, if it waits for that."""
        count, turns = self._lying_in_wait.get(number, (0, 0))
        if count == 1:
            self._cancel_in(number, turns)
        if count:
            self._lying_in_wait[number] = count - 1, turns

    def _cancel_in(self, number: int, turns: int) -> None:
        if turns:
            self.loop.call_soon(self._cancel_in, number, turns - 1)
        else:
            self._cancel(number)

    def _check(self, request: Request, server: Server, error: BaseException | None) -> None:
        self.met["sends that raise"] += bool(server.raised)
        self.met["sends that raise when called"] += server.has_raised_at_once
        self.met["clients that leave"] += server.has_left
        run = self.runs.get(request.number)
        is_blamed = error is not None or bool(server.raised) or (run is not None and run.gives_up)
        if not server.taken:
            if not is_blamed:
                self.fails("one response", f"{request.number} got none, and nobody is to blame")
            return
        start, *parts = server.taken
        kinds = [message["type"] for message in server.taken]
        lasts = [message for message in parts if not message.get("more_body", False)]
        if (
            kinds != ["http.response.start"] + ["http.response.body"] * len(parts)
            or len(lasts) > 1
            or (lasts and lasts[0] is not parts[-1])
        ):
            self.fails("one response", f"{request.number} got {server.taken!r}")
            return
        reply = Reply(
            status=start["status"],
            headers={name.decode(): value.decode() for name, value in start["headers"]},
            body=b"".join(part.get("body", b"") for part in parts),
            whole=bool(lasts),
            at_s=server.began_s,
        )
        check_reply(self, request, reply, is_blamed=is_blamed)
        check_promise(self, request, server.began_s - self.began_s - request.at_s)

    async def application(self, scope: Scope, receive: Receive, send: Send) -> object:
        """Be the application."""
        request = self.request(request_state(scope)["number"])
        run = self.runs[request.number] = AsgiRun(request, self, receive, send)
        return await run.serve()

    def spawn(self, work: Coroutine[Any, Any, None], context: Context | None) -> None:
        """Have *work* go on by itself."""
        task = self.loop.create_task(work, context=context)
        self.loose += 1
        task.add_done_callback(self._landed)

    def _landed(self, task: asyncio.Task[Any]) -> None:
        self.loose -= 1
        if not task.cancelled():
            task.exception()  # seen
