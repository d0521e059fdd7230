"""WSGI exchanges that between them take every way through budgetware."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tests.doors.asgi_play import Clock
from tests.doors.wsgi_play import Body, SizedBody, Wire, environ

from budgetware import budget
from budgetware.wsgi import Environ, StartResponse, WSGIApp


class Play:
    """One exchange: what the application does, and what the server sees of it.

    Args:
        shape: What kind of body the application gives.
        error: What it raises, in the call or in the body's second step.
        method: The request's method.
        status: The response's status.
        leave_after: Parts after which the client leaves.
        openings: How many stages are opened before the response starts.
        late: Seconds the application takes.
        stages: Whether any stage is opened at all.

    """

    def __init__(  # noqa: PLR0913 - a table of scenarios needs its columns
        self,
        shape: str,
        error: BaseException | None = None,
        *,
        method: str = "GET",
        status: str = "200 OK",
        leave_after: int | None = None,
        openings: int = 1,
        late: float = 0.0,
        stages: bool = True,
        path: str = "/signals/x",
    ) -> None:
        self._shape = shape
        self._error = error
        self._method = method
        self._status = status
        self._leave_after = leave_after
        self._openings = openings if stages else 0
        self._late = late
        self._path = path
        self._bodies: list[Body] = []
        self._closed = 0
        self.tier: object = "free"
        self.clock = Clock()

    def app(self, env: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Be the application."""
        stream = env["wsgi.input"]
        assert stream.read(2) + stream.readline() + b"".join(stream) == b"first\nsecond\nrest"
        for _ in range(self._openings):
            with budget.stage("db", "select"):
                pass
        if self._openings:
            budget.tier = "free"
            with budget.stage("ml"):
                self.clock.now += self._late
        if self._error is not None and self._shape == "none":
            raise self._error
        if self._shape == "lazy":
            return self._generate(start_response)
        write = start_response(self._status, [("X-A", "1")])
        if self._shape == "write":
            write(b"w")
        made: dict[str, Callable[[], Iterable[bytes]]] = {
            "generator": lambda: self._generate(lambda *args: None),
            "body": lambda: self._kept(Body(each=self._step)),
            "sized": lambda: self._kept(SizedBody(each=self._step)),
            "file": lambda: env["wsgi.file_wrapper"](io.BytesIO(b"f")),
        }
        return made.get(self._shape, lambda: [b"a", b"b"])()

    def _generate(self, start: Callable[..., object]) -> Iterator[bytes]:
        try:
            start(self._status, [("X-A", "1")])
            yield b"a"
            if self._error is not None:
                raise self._error
            yield b"b"
        finally:
            self._closed += 1

    def _kept(self, body: Body) -> Body:
        self._bodies.append(body)
        return body

    def _step(self) -> None:
        if self._error is not None:
            raise self._error

    def bare(self) -> object:
        """Play it without a door."""
        return self.run(self.app)

    def run(self, app: WSGIApp) -> object:
        """Play it; return all that the server sees."""
        wire = Wire(self._leave_after)
        env = environ(self._method, self._path, **{"budgetware.tier": self.tier})
        outcome: object = None
        try:
            wire.run(app, env)
        except BaseException as error:  # noqa: BLE001 - every error is part of it
            outcome = error is self._error, error.__cause__, error.__context__
        starts = [
            (status, [one for one in headers if one[0] != "Server-Timing"], info)
            for status, headers, info in wire.starts
        ]
        closed = self._closed + sum(body.closed for body in self._bodies)
        return outcome, starts, wire.parts, wire.length, wire.is_file, closed


def _scenario(*args: Any, **more: Any) -> Callable[..., Play]:
    return lambda **options: Play(*args, **{**more, **options})


SCENARIOS: dict[str, Callable[..., Play]] = {
    "plain": _scenario("list"),
    "unmatched": _scenario("list", path="/no/where"),
    "late": _scenario("list", late=10.0),
    "upload": _scenario("list", method="POST"),
    "stream": _scenario("generator"),
    "lazy": _scenario("lazy", late=10.0),
    "body": _scenario("body", method="PUT"),
    "sized": _scenario("sized"),
    "file": _scenario("file"),
    "write": _scenario("write"),
    "failed": _scenario("list", status="500 Oh", late=10.0),
    "raises": _scenario("none", ValueError("v")),
    "raises in the middle": _scenario("generator", ValueError("v"), late=10.0),
    "raises in a body": _scenario("body", ValueError("v")),
    "exits": _scenario("none", SystemExit(1)),
    "left early": _scenario("body", leave_after=1),
    "left before a lazy start": _scenario("lazy", leave_after=0),
    "many stages": _scenario("list", openings=300, late=10.0),
}
