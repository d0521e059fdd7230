"""Made-up requests, responses and stored entries for the tests of answers."""

from __future__ import annotations

from collections.abc import Sequence

from budgetware._core.policy import CachePolicy
from budgetware.answers.facts import Header, RequestFacts, ResponseFacts
from budgetware.answers.stored import Stored

POLICY = CachePolicy(fresh=1.0, stale=60.0)
KEY = bytes(range(32))


def get(
    target: bytes = b"/signals/eur?depth=1",
    *headers: Header,
    method: str = "GET",
    route: str = "signals",
    tier: str | None = "free",
    identity: str | None = None,
) -> RequestFacts:
    """Return a request for *target*."""
    return RequestFacts(
        route=route,
        method=method,
        target=target,
        headers=((b"host", b"api.example"), *headers),
        tier=tier,
        identity=identity,
    )


def full(*headers: Header, status: int = 200) -> ResponseFacts:
    """Return how a plain full response begins."""
    return ResponseFacts(status, ((b"content-type", b"text/plain"), *headers))


def stored(  # noqa: PLR0913 - an entry has so many parts
    body: bytes = b"full",
    headers: Sequence[Header] = ((b"content-type", b"text/plain"),),
    *,
    fresh_s: float = 1.0,
    kept_s: float = 61.0,
    age_s: float = 0.0,
    selecting: Sequence[Header] = (),
) -> Stored:
    """Return an entry."""
    return Stored(
        status=200,
        headers=tuple(headers),
        body=body,
        fresh_s=fresh_s,
        kept_s=kept_s,
        age_s=age_s,
        selecting=tuple(selecting),
    )
