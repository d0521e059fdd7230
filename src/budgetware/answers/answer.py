"""What stands in for the full response, and how is it told apart from one? By its marks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, Literal

from budgetware.answers.facts import Header, Headers, end_to_end, is_sound
from budgetware.names import ANSWER_HEADER

CACHE_NAME: Final = b"budgetware"
"""How the cache calls itself in ``Cache-Status``."""

Kind = Literal["cached", "fallback", "static", "reject"]

_REPLACED: Final = frozenset(
    {
        ANSWER_HEADER.lower().encode("ascii"),
        b"age",
        b"cache-status",
        b"content-length",
        b"expires",
        b"pragma",
        b"server-timing",
        b"surrogate-control",
    },
)
_NO_CONTENT: Final = frozenset({204, 205, 304})
_LEAST_STATUS, _MOST_STATUS = 200, 599


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response, ready to be sent.

    Attributes:
        kind: Which of the route's answers this is.
        status: The HTTP status.
        headers: Every line, names in lower case, with the right ``content-length``.
        body: The body's bytes; empty in the answer to HEAD.
        stale: Whether it is a stored response that is no longer fresh.

    """

    kind: Kind
    status: int
    headers: Headers
    body: bytes
    stale: bool = False

    def to(self, method: str) -> Answer:
        """Return what to send to *method*: HEAD gets the same lines and no body."""
        return replace(self, body=b"") if method == "HEAD" and self.body else self


def marked(
    kind: Kind,
    status: int,
    headers: Iterable[Header],
    body: bytes,
    marks: Iterable[Header] = (),
) -> Answer:
    """Return the answer of *kind*, marked so that nobody keeps it or takes it for the full one.

    Lines about one connection, about storing it (``Cache-Control`` and its relatives of content
    networks) and about how long it took are replaced: the answer is ``no-store`` everywhere.

    Args:
        kind: Which answer it is.
        status: From 200 to 599.
        headers: Lines of the response it stands for.
        body: The whole body.
        marks: Further lines of ours.

    Raises:
        ValueError: The status is no final one, or a line could not be sent as it is.

    """
    if not _LEAST_STATUS <= status <= _MOST_STATUS:
        raise ValueError(f"{status} is not the status of a final response")
    lines = [(name.lower(), value) for name, value in end_to_end(headers)]
    kept = [line for line in lines if not _is_replaced(line[0])]
    for line in kept:
        if not is_sound(line):
            raise ValueError(f"the header {line[0][:80]!r} cannot be sent: {line[1][:80]!r}")
    kept.append((b"cache-control", b"no-store"))
    kept.append((ANSWER_HEADER.lower().encode("ascii"), kind.encode("ascii")))
    kept.extend(marks)
    if status in _NO_CONTENT:
        body = b""
    else:
        kept.append((b"content-length", b"%d" % len(body)))
    return Answer(kind, status, tuple(kept), body)


def _is_replaced(name: bytes) -> bool:
    # RFC 9213: a field such as CDN-Cache-Control would overrule our no-store.
    return name in _REPLACED or name.endswith(b"cache-control")
