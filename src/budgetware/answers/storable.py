"""May this response be kept, and for how long? By the rules for shared caches of RFC 9111.

A cache that keeps too little is slow, one that keeps too much is a leak, so whatever is spelled
oddly counts against keeping: members are split at commas, semicolons and blanks alike, quotes
protect nothing, ``private="x"`` is ``private``, and a number that is none is zero.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum
from math import inf
from typing import Final

from budgetware._core.policy import CachePolicy
from budgetware.answers.facts import (
    MOST_FIELDS,
    Header,
    RequestFacts,
    ResponseFacts,
    is_sound,
    values_of,
)
from budgetware.names import ANSWER_HEADER

_MEMBER_END: Final = re.compile(rb"[,;\s]+")
_SECONDS: Final = re.compile(rb'"?([0-9]{1,10})"?')
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")

_NEVER: Final = frozenset({b"no-store", b"private", b"no-cache"})
# RFC 9111 sections 5.2.2.2, 5.2.2.8 and 5.2.2.10: these forbid stale use, s-maxage by implication.
_NEVER_STALE: Final = frozenset({b"must-revalidate", b"proxy-revalidate", b"s-maxage"})

_FIELDS_NEVER_KEPT: Final = frozenset(
    {
        b"set-cookie",
        b"set-cookie2",
        b"content-range",
        b"clear-site-data",
        b"www-authenticate",
        b"trailer",
        b"upgrade",
        ANSWER_HEADER.lower().encode("ascii"),
    },
)
_STREAMS: Final = (b"text/event-stream", b"multipart/")
# A body that is not part of the key, a part of a body, another method in disguise, and
# conditions only the application can judge.
_REQUEST_FIELDS_NEVER_SERVED: Final = frozenset(
    {
        b"range",
        b"if-match",
        b"if-unmodified-since",
        b"transfer-encoding",
        b"upgrade",
        b"x-http-method",
        b"x-http-method-override",
        b"x-method-override",
    },
)
_FULL: Final = 200

MOST_KEPT_S: Final = 31_536_000.0
"""Nothing is kept longer than a year."""


class NotKept(StrEnum):
    """Why a full response is not kept."""

    REQUEST = "request"
    RESPONSE = "response"
    VARIES = "varies"
    VARIES_BY_CALLER = "varies_by_caller"
    TOO_LONG = "too_long"
    NO_IDENTITY = "no_identity"
    CREDENTIALS = "credentials"
    UNLISTED_FIELD = "unlisted_field"
    TOO_MANY_FIELDS = "too_many_fields"


@dataclass(frozen=True, slots=True)
class Lifetime:
    """How long a response may be used, in seconds since its request began.

    Attributes:
        fresh_s: As good as a new one.
        kept_s: At all.
        age_s: How old it was already.

    """

    fresh_s: float
    kept_s: float
    age_s: float


def directives(values: Iterable[bytes]) -> dict[bytes, bytes]:
    """Return the members of ``Cache-Control`` lines by lower-case name.

    Of a directive given twice, the smaller number holds; a missing or odd one is the smallest.
    """
    found: dict[bytes, bytes] = {}
    for value in values:
        for member in _MEMBER_END.split(value.lower()):
            name, _, argument = member.partition(b"=")
            name = name.strip(b'"')
            if name and (name not in found or _seconds(argument) < _seconds(found[name])):
                found[name] = argument
    return found


def may_be_answered(request: RequestFacts) -> bool:
    """Tell whether a stored response could be the answer to *request* at all."""
    if request.method not in {"GET", "HEAD"} or request.has_body:
        return False
    for name, value in request.headers:
        field = name.lower()
        if field in _REQUEST_FIELDS_NEVER_SERVED:
            return False
        if field == b"content-length" and value.strip() != b"0":
            return False
    return True


def may_be_kept(request: RequestFacts) -> bool:
    """Tell whether the response to *request* could be kept at all."""
    if request.method != "GET" or not may_be_answered(request):
        return False
    return b"no-store" not in directives(values_of(request.headers, b"cache-control"))


def lifetime(response: ResponseFacts, policy: CachePolicy) -> Lifetime | None:
    """Return how long *response* may be kept, ``None`` for not at all.

    The policy gives the windows and the response can only shorten them: its ``s-maxage``,
    ``max-age`` or ``Expires`` the fresh one, ``must-revalidate`` and the like the stale one.
    """
    if response.status != _FULL or not _are_keepable(response.headers):
        return None
    if declared_length(response.headers) == -1:
        return None
    control = directives(values_of(response.headers, b"cache-control"))
    if _NEVER & control.keys():
        return None
    if b"no-cache" in directives(values_of(response.headers, b"pragma")):
        return None
    age_s = max(map(_seconds, values_of(response.headers, b"age")), default=0.0)
    explicit_s = _explicit_s(response.headers, control)
    fresh_s = min(policy.fresh, explicit_s - age_s, MOST_KEPT_S)
    if explicit_s <= age_s:
        return None
    stale_s = 0.0 if _NEVER_STALE & control.keys() else policy.stale
    granted = [
        _seconds(control[name])
        for name in (b"stale-while-revalidate", b"stale-if-error")
        if name in control
    ]
    if granted:  # RFC 5861: the application says itself for how long
        stale_s = min(stale_s, max(granted))
    kept_s = min(fresh_s + stale_s, MOST_KEPT_S)
    return Lifetime(fresh_s, kept_s, age_s) if kept_s > 0 else None


def declared_length(headers: Iterable[Header]) -> int | None:
    """Return ``Content-Length`` in bytes, ``None`` without one, -1 when it cannot be believed."""
    values = {value.strip() for value in values_of(headers, b"content-length")}
    if not values:
        return None
    value = values.pop()
    return -1 if values or not _LENGTH.fullmatch(value) else int(value)


def _are_keepable(headers: Sequence[Header]) -> bool:
    return len(headers) <= MOST_FIELDS and all(map(_is_keepable, headers))


def _is_keepable(header: Header) -> bool:
    name = header[0].lower()
    if name in _FIELDS_NEVER_KEPT or not is_sound(header):
        return False
    return name != b"content-type" or not header[1].strip().lower().startswith(_STREAMS)


def _seconds(text: bytes) -> float:
    found = _SECONDS.fullmatch(text.strip())
    return float(found[1]) if found else 0.0


def _explicit_s(headers: Iterable[Header], control: dict[bytes, bytes]) -> float:
    for name in (b"s-maxage", b"max-age"):
        if name in control:
            return _seconds(control[name])
    expires = values_of(headers, b"expires")
    if not expires:
        return inf
    dates = values_of(headers, b"date")
    if len(expires) > 1 or len(dates) != 1:
        return 0.0  # without one date there is nothing to count from
    try:
        end, begin = (
            parsedate_to_datetime(value.decode("ascii")) for value in (expires[0], dates[0])
        )
        return (end - begin).total_seconds()
    except (ValueError, TypeError, OverflowError):  # RFC 9111 section 5.3: then it has expired
        return 0.0
