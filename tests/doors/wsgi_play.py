"""Plays a WSGI server for one request at a time."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sized
from dataclasses import dataclass, field
from typing import Any, cast
from wsgiref.util import FileWrapper

from tests.doors.asgi_play import POLICY, Clock

from budgetware._core.policy import Policy
from budgetware._core.record import RequestRecord
from budgetware.wsgi import BudgetMiddleware, Environ, StartResponse, WSGIApp


class Door(BudgetMiddleware):
    """The middleware on a fake clock, with every record it made.

    Attributes:
        clock: Moves only when told to.
        records: What the observers were told, oldest first.

    """

    def __init__(self, app: WSGIApp, policy: Policy = POLICY, **options: Any) -> None:
        self.clock = Clock()
        self.records: list[RequestRecord] = []
        options.setdefault("clock", self.clock)
        options.setdefault("observers", [self.records.append])
        super().__init__(app, policy=policy, **options)

    @property
    def faults(self) -> dict[str, int]:
        """How often budgetware itself failed, by step."""
        return self._engine.tally.faults

    @property
    def outcomes(self) -> dict[str, int]:
        """How many requests ended how, over all routes and tiers."""
        self._engine.tally.absorb()
        counts: dict[str, int] = {}
        for series in self._engine.tally.requests.values():
            for outcome, count in series.outcomes.items():
                counts[outcome] = counts.get(outcome, 0) + count
        return {outcome: count for outcome, count in counts.items() if count}

    @property
    def errors(self) -> int:
        """How many requests failed."""
        return sum(series.errors for series in self._engine.tally.requests.values())

    @property
    def record(self) -> RequestRecord:
        """The one record there is."""
        assert len(self.records) == 1
        return self.records[0]


def environ(
    method: str = "GET",
    path: str = "/signals/x",
    file_wrapper: Any = FileWrapper,
    **more: Any,
) -> Environ:
    """Return an environ with all that PEP 3333 asks for."""
    return {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "testserver",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(b"first\nsecond\nrest"),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": file_wrapper,
        **more,
    }


@dataclass
class Wire:
    """The server's side of one request, which does what PEP 3333 asks of a server.

    Attributes:
        starts: Every call of ``start_response``, as it was made.
        parts: Every piece of the body, of ``write`` and of the iteration.
        length: What ``len()`` of the body was, ``None`` when it had none.
        leave_after: Parts after which the client leaves, ``None`` for never.
        on_part: Runs for every piece, as a slow client would.

    """

    leave_after: int | None = None
    on_part: Callable[[bytes], object] = lambda part: None
    starts: list[tuple[Any, ...]] = field(default_factory=list)
    parts: list[bytes] = field(default_factory=list)
    length: int | None = None
    is_file: bool = False

    def start_response(self, status: str, headers: Any, exc_info: Any = None) -> Any:
        """Begin the response, or begin it anew."""
        if exc_info is not None and self.parts:
            raise exc_info[1].with_traceback(exc_info[2])
        self.starts.append((status, list(headers), exc_info))
        return self._take

    def run(self, app: WSGIApp, env: Environ) -> None:
        """Serve one request."""
        body = app(env, self.start_response)
        try:
            wrapper = env.get("wsgi.file_wrapper")
            self.is_file = isinstance(wrapper, type) and isinstance(body, wrapper)
            if hasattr(body, "__len__"):
                self.length = len(cast("Sized", body))
            for part in body:
                self._take(part)
                if len(self.parts) == self.leave_after:
                    return
        finally:
            close = getattr(body, "close", None)
            if close is not None:
                close()

    def _take(self, part: bytes) -> None:
        self.on_part(part)
        self.parts.append(part)


class Body:
    """A body with ``close()``, made of ready parts.

    Attributes:
        closed: How often it was closed.

    """

    def __init__(self, parts: Iterable[bytes] = (b"a", b"b"), each: Any = None) -> None:
        self._parts = iter(parts)
        self._each = each or (lambda: None)
        self.closed = 0

    def __iter__(self) -> Body:
        return self

    def __next__(self) -> bytes:
        self._each()
        return next(self._parts)

    def close(self) -> None:
        """Count it."""
        self.closed += 1


class SizedBody(Body):
    """The same with a length."""

    def __len__(self) -> int:
        return 2


def answer(env: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with a short text."""
    start_response("200 OK", [("X-A", "1")])
    return [b"ok"]
