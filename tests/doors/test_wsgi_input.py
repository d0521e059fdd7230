"""The body of a request, as a WSGI application reads it."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from tests.doors.wsgi_play import Door, Wire, answer, environ

from budgetware.wsgi import Environ, StartResponse


class Slow(io.BytesIO):
    """An input whose every read takes ten seconds."""

    door: Door

    def _wait(self) -> None:
        self.door.clock.now += 10

    def read(self, *size: Any) -> bytes:
        """Read slowly."""
        self._wait()
        return super().read(*size)

    def read1(self, *size: Any) -> bytes:
        """Read slowly."""
        self._wait()
        return super().read1(*size)

    def readinto(self, buffer: Any) -> int:
        """Read slowly."""
        self._wait()
        return super().readinto(buffer)

    def readline(self, *size: Any) -> bytes:
        """Read slowly."""
        self._wait()
        return super().readline(*size)

    def readlines(self, *hint: Any) -> list[bytes]:
        """Read slowly."""
        self._wait()
        return super().readlines(*hint)

    def __next__(self) -> bytes:
        self._wait()
        return super().__next__()


def _all_of(stream: Any, way: str) -> bytes:
    if way == "into":
        buffer = bytearray(100)
        return bytes(buffer[: stream.readinto(buffer)])
    ways: dict[str, Any] = {
        "read": stream.read,
        "sized": lambda: stream.read(6) + stream.read(100) + stream.read(1),
        "lines": lambda: stream.readline() + stream.readline(2) + stream.read(),
        "readlines": lambda: b"".join(stream.readlines()),
        "hint": lambda: b"".join(stream.readlines(1)) + stream.read(),
        "for": lambda: b"".join(line for line in stream),
        "next": lambda: next(stream) + next(iter(stream)) + stream.read(),
        "read1": lambda: stream.read1(100),
        "buffered": lambda: io.BufferedReader(stream).read(),
        "text": lambda: io.TextIOWrapper(stream, "ascii").read().encode(),
    }
    return bytes(ways[way]())


WAYS = ["read", "sized", "lines", "readlines", "hint", "for", "next", "read1", "into"]


@pytest.mark.parametrize("way", [*WAYS, "buffered", "text"])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_the_input_gives_what_the_servers_own_gives(way: str, method: str) -> None:
    """However the application reads, the bytes are the same and waiting is not billed."""
    content = b"first\nsecond\nrest"
    expected = _all_of(io.BytesIO(content), way)
    found: list[bytes] = []

    def app(env: Environ, start_response: StartResponse) -> Iterable[bytes]:
        found.append(_all_of(env["wsgi.input"], way))
        return answer(env, start_response)

    door = Door(app)
    stream = Slow(content)
    stream.door = door
    env = environ(method)
    env["wsgi.input"] = stream
    Wire().run(door, env)

    assert found == [expected]
    assert door.record.elapsed_s == 0
    assert door.record.waited_s >= 10
    assert door.faults == {}


def test_the_input_has_what_the_servers_own_has() -> None:
    """Other attributes are the stream's, missing ones are missing; an error passes through."""

    class Odd:
        fileno_of = 7

        def read(self, size: int = -1) -> bytes:
            raise OSError(f"gone {size}")

        def __iter__(self) -> Iterator[bytes]:
            return iter([b"x", b"y"])

    def app(env: Environ, start_response: StartResponse) -> Iterable[bytes]:
        stream = env["wsgi.input"]
        assert stream.fileno_of == 7
        assert not hasattr(stream, "readinto")
        assert list(stream) == [b"x", b"y"]
        with pytest.raises(TypeError):
            next(stream)
        with pytest.raises(OSError, match="gone 3"):
            stream.read(size=3)
        return answer(env, start_response)

    env = environ("POST")
    env["wsgi.input"] = Odd()
    door = Door(app)
    Wire().run(door, env)

    assert door.record.status == 200
