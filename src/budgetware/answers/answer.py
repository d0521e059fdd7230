"""What stands in for the full response, and how is it told apart from one? By its marks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from budgetware._core.account import PARTIAL
from budgetware.answers.facts import Header, Headers, end_to_end, is_sound, values_of
from budgetware.answers.storable import directives
from budgetware.names import ANSWER_HEADER

CACHE_NAME: Final = b"budgetware"
"""How the cache calls itself in ``Cache-Status``."""

Kind = Literal["cached", "fallback", "static", "reject"]

_MARK: Final = ANSWER_HEADER.lower().encode("ascii")
# nginx obeys X-Accel-Expires before Cache-Control, Akamai Edge-Control.
_ABOUT_STORING: Final = frozenset(
    {_MARK, b"expires", b"pragma", b"surrogate-control", b"x-accel-expires", b"edge-control"}
)
_REPLACED: Final = _ABOUT_STORING | {b"age", b"cache-status", b"content-length", b"server-timing"}
_VALIDATORS: Final = frozenset({b"etag", b"last-modified"})
_STRICT: Final = (
    b"private",
    b"no-cache",
    b"must-revalidate",
    b"proxy-revalidate",
    b"no-transform",
)
"""What an application may ask of caches beyond ``no-store``; nothing here makes them keep more."""

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
    kept = _without(_REPLACED, lines)
    for line in kept:
        if not is_sound(line):
            raise ValueError(f"the header {line[0][:80]!r} cannot be sent: {line[1][:80]!r}")
    kept.append((b"cache-control", _no_store(lines)))
    kept.append((_MARK, kind.encode("ascii")))
    kept.extend(marks)
    if status in _NO_CONTENT:
        body = b""
    else:
        kept.append((b"content-length", b"%d" % len(body)))
    return Answer(kind, status, tuple(kept), body)


def marked_partial(headers: Iterable[Header]) -> list[Header]:
    """Return the lines of an application's response that was made with a stage left out, marked.

    It is the response to this request and no other: nobody keeps it, and no validator of it can
    be taken for the full one's. All other lines stay as they are.

    Args:
        headers: The lines the application has begun its response with.

    """
    lines = list(headers)
    kept = _without(_ABOUT_STORING | _VALIDATORS, lines)
    return [*kept, (b"cache-control", _no_store(lines)), (_MARK, PARTIAL.encode("ascii"))]


def marked_as_they_are(headers: Iterable[Any]) -> tuple[list[Any], list[Header]]:
    """Return lines that are not as the specification has them without those that allow keeping.

    It is for an application's response that was made with a stage left out, whose server may take
    such lines. What cannot be read stays as it is.

    Args:
        headers: Names and values may be text, bytes in any form, or anything else.

    Returns:
        The application's lines that stay, and ours.

    """
    kept, lines = [], []
    for header in headers:
        try:
            name, value = map(_bytes_of, header)
        except Exception:  # noqa: BLE001 - it is no line
            kept.append(header)
            continue
        lines.append((name, value))
        if _without(_ABOUT_STORING | _VALIDATORS, [(name.strip(), value)]):
            kept.append(header)
    return kept, [(b"cache-control", _no_store(lines)), (_MARK, PARTIAL.encode("ascii"))]


def _bytes_of(part: object) -> bytes:
    if isinstance(part, str):
        return part.encode("utf-8", "surrogatepass")
    return bytes(part) if isinstance(part, bytes | bytearray | memoryview) else b""


def _without(names: frozenset[bytes], lines: Iterable[Header]) -> list[Header]:
    # RFC 9213: a field such as CDN-Cache-Control would overrule our no-store.
    return [
        line
        for line in lines
        if (name := line[0].lower()) not in names and not name.endswith(b"cache-control")
    ]


def _no_store(lines: Iterable[Header]) -> bytes:
    """Return a ``Cache-Control`` as strict as ours and as what the application says in *lines*."""
    said = directives(values_of(lines, b"cache-control"))
    return b", ".join([b"no-store", *(name for name in _STRICT if name in said)])
