"""A WSGI application that does with each request what is drawn for it."""

from __future__ import annotations

import io
from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator
from types import coroutine
from typing import TYPE_CHECKING, Any, Final

from simulation.applications import BackendError, ClientLeftError, Run, drawn_moves

if TYPE_CHECKING:
    from budgetware.wsgi import Environ, StartResponse
    from simulation.clients import Request
    from simulation.threads import Threads
    from simulation.wsgi_world import WsgiWorld

_SHAPES: Final = ("list", "list", "tuple", "steps", "steps", "lazy", "sized", "file", "write")
"""How a body is handed over; one that is lazy begins the response in its first step."""

_ENDINGS: Final = ("fails", "fails after", "close fails", "begins again")


class BodyError(Exception):
    """What the ``close`` of a body fails with."""


@coroutine
def passing(seconds: float) -> Generator[float, None, None]:
    """Have whoever drives the coroutine let *seconds* pass."""
    yield seconds


def driven(threads: Threads, work: Coroutine[Any, Any, Any]) -> Any:
    """Run *work* to its end in this thread, which sleeps through its pauses."""
    error: BaseException | None = None
    while True:
        try:
            seconds = work.send(None) if error is None else work.throw(error)
        except StopIteration as end:
            return end.value
        try:
            threads.sleep(seconds)
        except BaseException as caught:  # noqa: BLE001 - it is the work's to handle
            error = caught
        else:
            error = None


class WsgiRun(Run):
    """One request at the application.

    Args:
        request: The request.
        world: Where it happens.
        environ: Its environ.
        start_response: The door's.

    Attributes:
        bodies: How many bodies with a ``close`` it has made.
        closed: How often they were closed.

    """

    def __init__(
        self, request: Request, world: WsgiWorld, environ: Environ, start_response: StartResponse
    ) -> None:
        super().__init__(request, world)
        self._threads = world.threads
        self._environ = environ
        self._start_response = start_response
        rng = self.rng
        self._shape = rng.choice(_SHAPES)
        self._ending = rng.choice(_ENDINGS) if rng.random() < world.disorder else "whole"
        self._moves = drawn_moves(self, threads=True)
        self._reads = rng.choice((b"".join, _in_pieces)) if request.upload else None
        self.bodies = self.closed = 0

    async def pause(self, seconds: float) -> None:
        """Let time pass."""
        await passing(seconds)

    def serve(self) -> Iterable[bytes]:
        """Be at work, and return the body."""
        with self.working():
            return self._serve()

    def _serve(self) -> Iterable[bytes]:
        """Do what is drawn."""
        if self._shape == "lazy":
            return Body(self, self._lazily())
        self._work()
        write = self._start(_begun_before(self) if self._ending == "begins again" else None)
        parts = self.response.parts
        shapes: dict[str, Callable[[], Iterable[bytes]]] = {
            "list": lambda: parts,
            "tuple": lambda: tuple(parts),
            "file": lambda: self._environ["wsgi.file_wrapper"](io.BytesIO(b"".join(parts))),
            "write": lambda: self._written(write),
            "sized": lambda: SizedBody(self, self._steps()),
            "steps": lambda: Body(self, self._steps()),
        }
        return shapes[self._shape]()

    def close(self) -> None:
        """Close a body.

        Raises:
            BodyError: It cannot be closed.

        """
        self.closed += 1
        if self._ending == "close fails":
            raise BodyError(self.request.mark)

    def begin_other(self) -> None:
        """Begin a response that another is going to replace."""
        self._start_response("200 First", [("content-type", "text/html")])

    def _work(self) -> None:
        if self._reads is not None:
            with self.receiving():
                self._reads(self._environ["wsgi.input"])
        for move in self._moves:
            driven(self._threads, move(self))
        if self._ending == "fails":
            raise ClientLeftError(self.request.mark)

    def _start(self, exc_info: Any = None) -> Callable[[bytes], object]:
        self.begin()
        status, headers = f"{self.response.status} Drawn", [*self.response.headers]
        if exc_info is None:
            return self._start_response(status, headers)
        return self._start_response(status, headers, exc_info)

    def _lazily(self) -> Iterator[bytes]:
        self._work()
        self._start()
        yield from self._steps()

    def _written(self, write: Callable[[bytes], object]) -> list[bytes]:
        """Hand all parts to ``write``, as old applications do, and return what is left: nothing."""
        for part in self.response.parts:
            with self.working(-1):
                write(part)
        return []

    def _steps(self) -> Iterator[bytes]:
        for number, part in enumerate(self.response.parts):
            if number and self.response.gap_s:
                self._threads.sleep(self.response.gap_s)
            if number and self._ending == "fails after":
                raise ClientLeftError(self.request.mark)
            yield part


class Body:
    """A body that is made step by step.

    Args:
        run: Whose.
        steps: Makes its parts.

    """

    def __init__(self, run: WsgiRun, steps: Iterator[bytes]) -> None:
        self.run = run
        self._steps = steps
        run.bodies += 1

    def __iter__(self) -> Iterator[bytes]:
        while True:
            with self.run.working():
                try:
                    part = next(self._steps)
                except StopIteration:
                    return
            yield part

    def close(self) -> None:
        """Close it."""
        with self.run.working():
            self.run.close()


class SizedBody(Body):
    """One whose length is known."""

    def __len__(self) -> int:
        return len(self.run.response.parts)


def _in_pieces(stream: Any) -> None:
    while stream.read(8):
        pass


def _begun_before(run: WsgiRun) -> Any:
    """Begin a response and fail, as error handlers know it; return what the next begins with."""
    run.begin_other()
    error = BackendError(run.request.mark)
    return type(error), error, None
