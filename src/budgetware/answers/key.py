"""Under which key is a response kept? One that only the requests it is for can have.

It is a digest over parts that each carry their length, so no two lists of parts are alike.
Nothing is normalised that an application could tell apart: attacks on caches live on the
difference between what the cache and what the application takes for the same request.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b
from typing import Final

from budgetware._core.policy import CachePolicy
from budgetware.answers.facts import (
    Header,
    Headers,
    RequestFacts,
    ResponseFacts,
    members_of,
    values_of,
)

KEY_BYTES: Final = 32
"""The length of every key."""

MOST_VARIED: Final = 16
"""A response that varies on more fields than this is not kept."""

# Names such as ``X-API-Key`` are nobody's standard, and on many services all there is.
_CREDENTIAL: Final = re.compile(
    rb"auth|cookie|token|secret|session|credential|passw|signature|principal|assertion|jwt|ticket"
    rb"|(^|[-_])(api|access|app|client|private|subscription|license)[-_]?(key|id)([-_]|$)"
    rb"|(^|[-_])(user|login|account|tenant|customer|identity|email|key)([-_]|$)"
)
_HARMLESS: Final = re.compile(rb"user-agent|idempotency-key|sec-.*")
# What applications and frameworks take for parts of the address when a proxy sends it.
_ADDRESS: Final = (
    b"host",
    b"x-forwarded-host",
    b"x-forwarded-port",
    b"x-forwarded-prefix",
    b"x-forwarded-proto",
    b"x-forwarded-scheme",
    b"x-original-host",
    b"x-original-url",
    b"x-rewrite-url",
)


def may_be_shared(request: RequestFacts, policy: CachePolicy) -> bool:
    """Tell whether it is known whom an answer to *request* is for.

    It is not when the request carries credentials, or the route says that its answers differ by
    identity, and nobody has said who the caller is.
    """
    if request.identity is not None:
        return True
    if "identity" in map(str.lower, policy.vary):
        return False
    return not any(is_credential(name) for name, _ in request.headers)


@lru_cache(maxsize=1024)
def is_credential(name: bytes) -> bool:
    """Tell whether a field called *name* may say who sends it."""
    name = name.lower()
    return _CREDENTIAL.search(name) is not None and _HARMLESS.fullmatch(name) is None


def varied_on(response: ResponseFacts) -> frozenset[bytes] | None:
    """Return the request fields *response* says it depends on, ``None`` when it cannot be kept.

    An answer that allows one web origin depends on the origin even when it forgets to say so.
    """
    names = {name.lower() for name in members_of(response.headers, b"vary")}
    for origin in values_of(response.headers, b"access-control-allow-origin"):
        if origin.strip() != b"*":
            names.add(b"origin")
    return None if b"*" in names or len(names) > MOST_VARIED else frozenset(names)


def depends_on_credentials(names: Iterable[bytes]) -> bool:
    """Tell whether fields that say who the caller is are among *names*."""
    return any(map(is_credential, names))


def selecting(request: RequestFacts, names: Iterable[bytes]) -> Headers:
    """Return the values *request* has for *names*, blanks around commas aside, in order of names.

    An absent field has no line here, and an empty one has (RFC 9111 section 4.1).
    """
    found: list[Header] = []
    for name in sorted(set(names)):
        values = values_of(request.headers, name)
        if values:
            members = [member.strip() for value in values for member in value.split(b",")]
            found.append((name, b",".join(members)))
    return tuple(found)


def key_of(request: RequestFacts, policy: CachePolicy, varied: Iterable[bytes]) -> bytes:
    """Return the key of *request*: 32 bytes that say nothing about it.

    GET and HEAD have the same one. Ask ``may_be_shared`` first.

    Args:
        request: The request.
        policy: Its ``vary`` names request fields; identity and tier are part of every key.
        varied: Fields, in lower case, that responses of this route are known to vary on.

    """
    fields = {name.lower().encode("utf-8") for name in policy.vary if name not in _BUILT_IN}
    digest = blake2b(digest_size=KEY_BYTES)
    for part in (request.route, request.tier, request.identity, request.scheme):
        # Before the length stands whether there is one at all: no identity is nobody's name.
        text = b"" if part is None else part.encode("utf-8", "surrogatepass")
        digest.update(b"%c%d:%b" % (b"-+"[part is not None], len(text), text))
    digest.update(b"%d:%b" % (len(request.target), request.target))
    for name in _ADDRESS:
        for value in values_of(request.headers, name):
            digest.update(b"%d:%b=%d:%b" % (len(name), name, len(value), value))
    digest.update(b"|")
    for name, value in selecting(request, fields | set(varied)):
        digest.update(b"%d:%b=%d:%b" % (len(name), name, len(value), value))
    return digest.digest()


_BUILT_IN: Final = frozenset({"identity", "tier"})
