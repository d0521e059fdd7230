"""What is known of a request and of its response, whichever door they came through? These facts.

Field names compare in lower case, values as the bytes they came as.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

Header = tuple[bytes, bytes]
Headers = tuple[Header, ...]

MOST_FIELDS: Final = 128
"""Nothing is kept of a message with more header lines, and they are not looked at any further."""

_MOST_DIGITS: Final = 15
_AS_SENT: Final = "/:@!$&'()*+,;=~"

_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}")
_FORBIDDEN_IN_VALUE: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    },
)
"""Fields about one connection, RFC 9110 section 7.6.1 and RFC 9111 section 3.1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFacts:
    """What a request is about and who sent it.

    Attributes:
        route: The name of the route the policy matched.
        method: The method, exactly as it came.
        target: The path as the application is given it, encoded, and after ``?`` the raw query.
        sent: The path as the client has sent it, where the server tells and it differs.
        root: The part of the path the application is mounted at.
        headers: Name and value of every line, in order; of more than ``MOST_FIELDS``, some.
        scheme: ``http`` or ``https``.
        listener: What tells the server's listeners apart, on one host and in one process: the port,
            the name a TLS client has asked for, and without a ``Host`` the server's own name.
        namespace: The service and its environment; others that use the same store have another.
        tier: The tier's name, ``None`` outside any tier.
        identity: Who the server has found the caller to be; ``None`` when it does not know.
        known_by: What besides the headers says who the caller is; ``None`` for nothing.
        has_body: Whether it has brought a body that no header has announced.

    """

    route: str
    method: str
    target: bytes
    sent: bytes = b""
    root: bytes = b""
    headers: Sequence[Header] = ()
    scheme: str = "http"
    listener: str = ""
    namespace: str = ""
    tier: str | None = None
    identity: str | None = None
    known_by: str | None = None
    has_body: bool = False


@dataclass(frozen=True, slots=True)
class ResponseFacts:
    """How a response begins.

    Attributes:
        status: The HTTP status.
        headers: Name and value of every line, in order.

    """

    status: int
    headers: Sequence[Header] = ()


def some_of(headers: Sequence[Header]) -> Headers:
    """Return all *headers*; of more than ``MOST_FIELDS`` one more than those, and the host's.

    What is changed at an address must not be kept for it, so the host has to be known.
    """
    if len(headers) <= MOST_FIELDS:
        return tuple(headers)
    host = next((line for line in headers if line[0].lower() == b"host"), None)
    return (*headers[: MOST_FIELDS + 1], *([] if host is None else [host]))


def values_of(headers: Iterable[Header], name: bytes) -> list[bytes]:
    """Return the values of all lines of *name*, which is given in lower case."""
    return [value for found, value in headers if found.lower() == name]


def encoded_path(path: bytes) -> bytes:
    """Return a decoded *path* as clients send it, RFC 3986 section 3.3: one spelling of each."""
    return quote(path, safe=_AS_SENT).encode("ascii")


def size_of(request: RequestFacts) -> float | None:
    """Return the bytes of *request*'s body, as it states them; ``None`` if it does not say."""
    for value in values_of(request.headers, b"content-length"):
        if value.isdigit() and len(value) <= _MOST_DIGITS:
            return float(value)
    return None


def members_of(headers: Iterable[Header], name: bytes) -> Iterator[bytes]:
    """Yield the members of the comma-separated field *name*, across its lines."""
    for value in values_of(headers, name):
        for member in value.split(b","):
            if stripped := member.strip():
                yield stripped


def end_to_end(headers: Iterable[Header]) -> Headers:
    """Return *headers* without those that belong to one connection."""
    lines = tuple(headers)
    named = {member.lower() for member in members_of(lines, b"connection")}
    return tuple(line for line in lines if line[0].lower() not in _HOP_BY_HOP | named)


def is_sound(header: Header) -> bool:
    """Tell whether a server may put *header* on the wire as it is."""
    name, value = header
    return bool(_TOKEN.fullmatch(name)) and not _FORBIDDEN_IN_VALUE.search(value)
