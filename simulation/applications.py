"""What does an application make of a request? Something drawn, behind either door.

Its moves are coroutines. Under ASGI their pauses are the event loop's; under WSGI whoever runs them
takes each pause as the time a thread spends. Everything an application sends has the request's mark
on it, so that wherever it turns up it is known whose it is.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import Context
from random import Random
from typing import TYPE_CHECKING, Any, Final

import anyio

from budgetware import budget
from budgetware._core.interrupt import AnswerNow
from simulation.policies import STAGES, grid

if TYPE_CHECKING:
    from simulation.clients import Request
    from simulation.world import World

Move = Callable[["Run"], Coroutine[Any, Any, None]]

MARK: Final = "made-for"
"""The field that says which request a response was made for."""


class BackendError(Exception):
    """What an application fails with."""


class ClientLeftError(Exception):
    """What an application ends with that was told that its client has left."""


class Response:
    """What an application means to send.

    Args:
        rng: Draws it.
        mark: Whose it is.
        odd: How likely it is to be no ordinary one.

    Attributes:
        status: Its status.
        headers: Its fields.
        parts: Its body.
        is_explicit: Whether it says of its last part that it is the last.
        gap_s: How long the application takes between two parts.

    """

    def __init__(self, rng: Random, mark: str, *, odd: float) -> None:
        self.status = rng.choice((404, 500)) if rng.random() < odd else 200
        fields = rng.choice(_FIELDS) if rng.random() < odd * 4 else ()
        self.headers = [(MARK, mark), *fields]
        text = mark.encode()
        self.parts = [b"<%d of %s>" % (number, text) for number in range(rng.choice((1, 1, 2, 3)))]
        self.is_explicit = rng.random() < 0.5
        self.gap_s = rng.choice((0.0, 0.0, grid(rng, 1, 10)))

    @property
    def may_be_kept(self) -> bool:
        """Whether anybody but its own client may ever be sent it."""
        return self.status == 200 and not any(
            name == "set-cookie" or value in {"private", "no-store", "*"}
            for name, value in self.headers
        )


_FIELDS: Final = (
    (("cache-control", "private"),),
    (("cache-control", "no-store"),),
    (("cache-control", "max-age=1"),),
    (("set-cookie", "session=somebodys"),),
    (("vary", "accept-language"),),
    (("vary", "*"),),
    (("vary", "x-api-key"),),
    (("etag", '"1"'),),
)


class Run:
    """One request at an application.

    Args:
        request: The request.
        world: Where it happens.

    Attributes:
        request: The request.
        world: Where it happens.
        rng: Draws what the application makes of it.
        response: What it means to send.
        fallbacks: How many stages it was told to leave out.
        is_partial: Whether that was so when it began to respond.
        gives_up: Whether it does not mean to send a whole response.
        has_failed: Whether a move of its has.
        asks_for_less: Whether it has asked for something smaller.
        is_odd: Whether it has held the clock off, or found out what its tier is.
        began_s: When it began.

    """

    def __init__(self, request: Request, world: World) -> None:
        self._working = self._receiving = 0
        self._responds = False
        self.request = request
        self.world = world
        self.rng = Random(request.seed)
        odd = 0.05 if world.theme == "kept" else 0.2
        self.response = Response(self.rng, request.mark, odd=odd)
        self.fallbacks = 0
        self.is_partial = False
        self.gives_up = self.is_odd = self.has_failed = self.asks_for_less = False
        self.began_s = world.time.now

    @property
    def is_at_work(self) -> bool:
        """Whether it does anything but wait for its client.

        Who receives beside a response that has begun only listens for the client's leaving.
        """
        return self._working > (0 if self._responds else self._receiving)

    @contextmanager
    def receiving(self) -> Iterator[None]:
        """Wait for the request's body meanwhile."""
        self._receiving += 1
        try:
            yield
        finally:
            self._receiving -= 1

    @contextmanager
    def working(self, change: int = 1) -> Iterator[None]:
        """Be at work meanwhile; with -1, wait for the client."""
        self._working += change
        try:
            yield
        finally:
            self._working -= change

    def begin(self) -> None:
        """Take note that the response begins."""
        self._responds = True
        self.is_partial = self.fallbacks > 0
        self.world.responds(self)

    def note(self, what: str) -> None:
        """Take down what happens."""
        self.world.note(f"app {self.request.number}", what)
        self.world.at_work(self.request.number)

    async def pause(self, seconds: float) -> None:
        """Let time pass."""
        await asyncio.sleep(seconds)

    def spawn(self, work: Coroutine[Any, Any, None], context: Context | None = None) -> None:
        """Have *work* go on, however long the request does."""
        self.world.spawn(work, context)


def drawn_moves(run: Run, *, threads: bool) -> list[Move]:
    """Return what an application does before it responds."""
    rng, theme = run.rng, run.world.theme
    if theme == "kept" and rng.random() < 0.8:
        return [_stage(rng, _nothing)]
    if theme == "cancelled" and not threads:
        # Children two levels down that ask for something smaller at any moment.
        below = _made(rng.choice(_PARENTS)(rng, lambda: _made(_degrade(rng, _nothing))))
        return [_made(rng.choice(_PARENTS)(rng, lambda: below))]
    count = rng.choice((0, 1, 1, 2, 3))
    return [_draw(rng, 2, threads=threads) for _ in range(count)]


def _draw(rng: Random, depth: int, *, threads: bool) -> Move:
    """Return a move; those that have others inside are at most *depth* deep."""
    makers: list[Maker] = [
        _pause,
        _pause,
        _pause,
        _turns,
        _stage,
        _stage,
        _degrade,
        _fail,
        _tier,
        _look,
    ]
    if depth:
        makers += [_within_stage, _shielded, _careful, _optional, _optional]
        makers += [_carrying] if threads else [*_PARENTS, _group, _limited, _spawning]
    elif rng.random() < 0.5:
        makers = [_pause, _turns, _stage]
    return _made(rng.choice(makers)(rng, lambda: _draw(rng, depth - 1, threads=threads)))


def _made(move: Move) -> Move:
    """Return *move*, which takes note of that it asks for something smaller, or fails."""

    async def noting(run: Run) -> None:
        try:
            await move(run)
        except AnswerNow:
            run.asks_for_less = True
            raise
        except BackendError:
            run.has_failed = True
            raise

    return noting


Inner = Callable[[], Move]
Maker = Callable[[Random, Inner], Move]


def _nothing() -> Move:
    raise NotImplementedError


def _pause(rng: Random, _: Inner) -> Move:
    seconds = rng.choice((0.0, grid(rng, 0, 10), grid(rng, 0, 40)))

    async def pause(run: Run) -> None:
        await run.pause(seconds)

    return pause


def _turns(rng: Random, _: Inner) -> Move:
    count = rng.randint(1, 5)

    async def turns(run: Run) -> None:
        for _ in range(count):
            await run.pause(0)

    return turns


def _stage(rng: Random, _: Inner) -> Move:
    name, seconds = rng.choice(STAGES), grid(rng, 0, 12)
    operation = rng.choice((None, "select"))

    async def stage(run: Run) -> None:
        run.note(f"opens {name}")
        with budget.stage(name, operation):
            await run.pause(seconds)

    return stage


def _within_stage(rng: Random, inner: Inner) -> Move:
    name, moves = rng.choice(STAGES), [inner(), inner()]

    async def within(run: Run) -> None:
        with budget.stage(name):
            for move in moves:
                await move(run)

    return within


def _optional(rng: Random, _: Inner) -> Move:
    name, seconds = rng.choice(STAGES), grid(rng, 0, 20)

    async def optional(run: Run) -> None:
        async def instead() -> None:
            run.note(f"leaves {name} out")
            run.fallbacks += 1

        @budget.stage(name, fallback=instead)
        async def score() -> None:
            await run.pause(seconds)

        await score()

    return optional


def _degrade(rng: Random, _: Inner) -> Move:
    reason, turns = rng.choice(("no_model", "no_data")), rng.choice((0, 1, 1, 2))

    async def degrade(run: Run) -> None:
        if turns:
            run.note("is about to ask to degrade")
        for _ in range(turns):
            await run.pause(0)
        run.note("asks to degrade")
        budget.degrade(reason)

    return degrade


def _fail(rng: Random, _: Inner) -> Move:
    fails = rng.random() < 0.5

    async def fail(run: Run) -> None:
        if fails:
            run.note("fails")
            raise BackendError(run.request.mark)

    return fail


def _tier(rng: Random, _: Inner) -> Move:
    drawn = rng.random()

    async def tier(run: Run) -> None:
        names = (*run.world.tiers, "nobody")
        name = names[int(drawn * len(names))]
        run.is_odd = True
        run.note(f"finds out that its tier is {name}")
        budget.tier = name

    return tier


def _look(rng: Random, _: Inner) -> Move:
    name = rng.choice(STAGES)

    async def look(run: Run) -> None:
        budget.remaining()
        budget.pool()
        if not budget.affords(name):
            run.fallbacks += 1

    return look


def _shielded(rng: Random, inner: Inner) -> Move:
    moves = [inner() for _ in range(rng.randint(1, 2))]

    async def shielded(run: Run) -> None:
        run.is_odd = True
        with budget.shield():
            for move in moves:
                await move(run)

    return shielded


def _careful(_: Random, inner: Inner) -> Move:
    tried = inner()

    async def careful(run: Run) -> None:
        # What it cannot handle, a cancellation or a way out of ours among it, passes on.
        with contextlib.suppress(BackendError, ExceptionGroup):
            await tried(run)

    return careful


def _group(rng: Random, inner: Inner) -> Move:
    children = [inner() for _ in range(rng.randint(1, 3))]

    async def group(run: Run) -> None:
        async with asyncio.TaskGroup() as tasks:
            for child in children:
                tasks.create_task(child(run))

    return group


def _anyio_group(rng: Random, inner: Inner) -> Move:
    children = [inner() for _ in range(rng.randint(1, 3))]

    async def group(run: Run) -> None:
        async with anyio.create_task_group() as tasks:
            for child in children:
                tasks.start_soon(child, run)

    return group


def _gathered(rng: Random, inner: Inner) -> Move:
    children = [inner() for _ in range(2)]
    collects = rng.random() < 0.5

    async def gathered(run: Run) -> None:
        # The first child that fails leaves the other at work.
        await asyncio.gather(*(child(run) for child in children), return_exceptions=collects)

    return gathered


def _awaited(_: Random, inner: Inner) -> Move:
    child = inner()

    async def awaited(run: Run) -> None:
        await asyncio.ensure_future(child(run))

    return awaited


def _limited(rng: Random, inner: Inner) -> Move:
    seconds, tried = grid(rng, 0, 10), inner()

    async def limited(run: Run) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await tried(run)

    return limited


def _spawning(rng: Random, inner: Inner) -> Move:
    child, alone = inner(), rng.random() < 0.3

    async def spawning(run: Run) -> None:
        async def spawned() -> None:
            # Nobody waits for it, so what it ends with is nobody's.
            with contextlib.suppress(BackendError, BaseExceptionGroup, AnswerNow):
                await child(run)

        # One that does not inherit the request's context stands for a thread.
        if alone:
            run.spawn(budget.carry(spawned)(), Context())
        else:
            run.spawn(spawned())

    return spawning


def _carrying(_: Random, inner: Inner) -> Move:
    child = inner()

    async def carrying(run: Run) -> None:
        async def carried() -> None:
            with contextlib.suppress(BackendError, AnswerNow):
                await child(run)

        run.world.carry(carried())

    return carrying


_PARENTS: Final[tuple[Maker, ...]] = (_group, _anyio_group, _gathered, _awaited)
"""Moves that wait for tasks of their own."""
