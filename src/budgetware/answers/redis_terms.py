"""How does an entry stand in Redis? Under a name, as bytes, and for so many milliseconds.

An entry is read with one round trip: its bytes, never more than an entry may have, and how long
it still lives. The server's own countdown tells its age, so no clocks of hosts are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, TypeVar

from budgetware.answers.circuit import FAILURES_TO_OPEN, Circuit
from budgetware.answers.redis_room import Room
from budgetware.answers.redis_silence import server_at
from budgetware.answers.stored import Found, Stored
from budgetware.answers.wire import SECRET_BYTES, decoded, encoded
from budgetware.misuse import check_seconds, check_text, check_whole

T = TypeVar("T")

OPERATION_S: Final = 0.02
"""The longest any request waits for one operation."""
LONGEST_OPERATION_S: Final = 1.0
HEADER_BYTES: Final = 64 * 1024
"""What an entry may have besides its body."""
MOST_AT_ONCE: Final = 32
"""Operations under way in one process; what is over it is a miss."""


def made_from(url: str, make: Callable[[str], T]) -> T:
    """Return what *make* makes of *url*.

    Raises:
        ValueError: It cannot be read. Its text, parts of which may be a password, is neither in
            the error nor in one behind it.

    """
    made = []
    with suppress(Exception):  # whatever it says repeats parts of the address
        made.append(make(url))
    if not made:
        raise ValueError(
            "the URL of the Redis server cannot be read: its scheme is redis://, rediss:// or "
            "unix://, and /, # and ? in a password are written as %2F, %23 and %3F"
        )
    return made[0]


def unannounced() -> dict[str, Any]:
    """Return the options with which a new connection does not begin by naming its library."""
    try:
        from redis import DriverInfo  # noqa: PLC0415 - an extra, and imported by now
    except ImportError:
        # Before redis-py 7.2 there were two options, and the one of today is an error.
        return {"lib_name": None, "lib_version": None}
    # Up to 8.0 (redis-py pull request 4081) none at all meant the library's own names.
    return {"driver_info": DriverInfo(name="", lib_version="")}


class RedisTerms:
    """What both stores agree on: names, sizes, bounds, what bytes mean, and whether to ask.

    Attributes:
        operation_s: The longest wait for one operation.
        most_bytes: The longest entry.
        circuit: Whether the server is being asked.
        room: How many operations may be under way.

    """

    def __init__(
        self,
        address: Mapping[str, Any],
        prefix: str,
        secret: bytes,
        operation_s: float,
        most_body_bytes: int,
    ) -> None:
        check_text("prefix", prefix)
        check_seconds("operation_s", operation_s, LONGEST_OPERATION_S)
        check_whole("most_body_bytes", most_body_bytes, 0)
        if not isinstance(secret, bytes):  # whose text is in no message
            raise TypeError(f"secret must be bytes, as b'...', not a {type(secret).__name__}")
        if len(secret) > SECRET_BYTES:
            raise ValueError(f"the secret is longer than {SECRET_BYTES} bytes")
        self.operation_s = operation_s
        self.most_bytes = most_body_bytes + HEADER_BYTES
        self.circuit = Circuit()
        self.room = Room(MOST_AT_ONCE)
        self._address = address
        self._server = server_at(address)
        self._secret = secret
        self._prefix = prefix.encode("utf-8") + b":"

    def name(self, key: bytes) -> bytes:
        """Return the name of *key* in the server."""
        return self._prefix + key.hex().encode("ascii")

    def may_ask(self, now: float) -> bool:
        """Tell whether operations are worth starting.

        They are not after failures in a row, be they ours or of others who ask the same server.
        """
        circuit = self.circuit
        if self._server.silent and not circuit.is_open:
            for _ in range(FAILURES_TO_OPEN):
                circuit.failed(now)
            self.room.lost()
        return not circuit.is_open

    def succeeded(self, under_way: int = 1) -> None:
        """Take note of an operation that worked, one of so many under way."""
        self.circuit.succeeded()
        self.room.answered(under_way)
        self._server.answered()

    def failed(self, now: float) -> None:
        """Take note of an operation that did not work; the one too many is news for others."""
        was_open = self.circuit.is_open
        self.circuit.failed(now)
        self.room.missed()
        if self.circuit.is_open and not was_open:
            self.room.lost()
            self._server.silent = True

    def options(self) -> dict[str, Any]:
        """Return what a pool is made with: nothing in the address loosens a bound."""
        return dict(self._address) | {
            "max_connections": MOST_AT_ONCE + 1,
            "socket_timeout": self.operation_s,
            "socket_connect_timeout": self.operation_s,
            "protocol": 2,
            "health_check_interval": 0,
            "decode_responses": False,
            **unannounced(),
        }

    def ask(self, pipeline: Any, name: bytes) -> Any:
        """Put the question for an entry on *pipeline*: bounded bytes, and its countdown."""
        return pipeline.getrange(name, 0, self.most_bytes).pttl(name)

    def found(self, key: bytes, reply: Any) -> Found | None:
        """Return the entry in *reply*, ``None`` when it is none or cannot be believed."""
        data, left_ms = reply
        if not isinstance(data, bytes) or not 0 < len(data) <= self.most_bytes:
            return None
        stored = decoded(key, data, self._secret)
        if stored is None or not isinstance(left_ms, int):
            return None
        # Entries are set to live as long as they may be used: one that never ends is not ours.
        found = Found(stored, stored.kept_s - left_ms / 1000)
        return found if left_ms > 0 and found.is_usable else None

    def entry(self, key: bytes, stored: Stored, resident_s: float) -> tuple[bytes, int] | None:
        """Return the bytes to keep and for how many milliseconds, ``None`` for not at all."""
        left_ms = int((stored.kept_s - resident_s) * 1000)
        if left_ms <= 0:
            return None
        try:
            data = encoded(key, stored, self._secret)
        except ValueError:
            return None
        return (data, left_ms) if len(data) <= self.most_bytes else None
