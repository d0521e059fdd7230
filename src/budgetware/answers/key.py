"""Under which key is a response kept? One that only the requests it is for can have.

It is a digest over parts that each carry their length, so no two lists of parts are alike.
Nothing is normalised that an application could tell apart: attacks on caches live on the
difference between what the cache and what the application takes for the same request.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from operator import itemgetter
from typing import Final

from budgetware._core.policy import CachePolicy
from budgetware.answers.anonymity import traits_of
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


def varied_on(response: ResponseFacts) -> frozenset[bytes] | None:
    """Return the request fields *response* says it depends on, ``None`` when it cannot be kept.

    An answer that allows one web origin depends on the origin even when it forgets to say so.
    """
    names = {name.lower() for name in members_of(response.headers, b"vary")}
    for origin in values_of(response.headers, b"access-control-allow-origin"):
        if origin.strip() != b"*":
            names.add(b"origin")
    return None if b"*" in names or len(names) > MOST_VARIED else frozenset(names)


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

    GET and HEAD have the same one. Ask ``why_unshared`` first.

    Args:
        request: The request.
        policy: Its ``vary`` names request fields; identity and tier are part of every key. What
            was shared because it was ``public`` is not met any more when it no longer is.
        varied: Fields, in lower case, that responses of this route are known to vary on.

    """
    digest = blake2b(digest_size=KEY_BYTES)
    for part in (
        *(request.namespace, request.route, request.tier, request.identity),
        *(request.scheme, request.listener),
    ):
        # Before the length stands whether there is one at all: no identity is nobody's name.
        text = b"" if part is None else part.encode("utf-8", "surrogatepass")
        digest.update(b"%c%d:%b" % (b"-+"[part is not None], len(text), text))
    for place in (request.target, request.sent, request.root):
        digest.update(b"%d:%b" % (len(place), place))
    for name, value in sorted(_keyed(request), key=itemgetter(0)):
        digest.update(b"%d:%b=%d:%b" % (len(name), name, len(value), value))
    digest.update(b"|%c" % b"-+"[policy.public])
    for name, value in selecting(request, named_in(policy) | set(varied)):
        digest.update(b"%d:%b=%d:%b" % (len(name), name, len(value), value))
    return digest.digest()


def named_in(policy: CachePolicy) -> set[bytes]:
    """Return the request fields, in lower case, that *policy* says responses depend on."""
    names = (name.lower() for name in policy.vary)
    return {name.encode("utf-8") for name in names if name not in _BUILT_IN}


def _keyed(request: RequestFacts) -> Iterator[Header]:
    named = request.identity is not None
    for name, value in request.headers:
        traits = traits_of(name)
        if traits.is_keyed_for_named if named else traits.is_keyed:
            yield name.lower(), value


_BUILT_IN: Final = frozenset({"identity", "tier"})
