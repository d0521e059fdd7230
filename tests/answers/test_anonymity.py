"""Which requests are nobody's in particular, so that what answers one may answer another."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.answers.requests_made_up import POLICY, get
from tests.doors.ways_to_be_known import HEADERS

from budgetware.answers.anonymity import (
    may_be_credential,
    traits_of,
    why_unshared,
)
from budgetware.answers.facts import MOST_FIELDS
from budgetware.answers.storable import NotKept

PUBLIC = replace(POLICY, public=True)
CREDENTIALS = (b"Authorization", b"cookie", b"COOKIE", b"Proxy-Authorization")

# What a browser, a load balancer and a tracer have sent with real requests.
ORDINARY = (
    b"Host User-Agent Accept Accept-Language Accept-Encoding Referer Origin DNT Connection "
    b"Upgrade-Insecure-Requests Sec-Fetch-Dest Sec-Fetch-Mode Sec-Fetch-Site Sec-Fetch-User "
    b"Sec-Ch-Ua Sec-Ch-Ua-Mobile Sec-Ch-Ua-Platform Sec-GPC Priority Pragma Cache-Control TE "
    b"If-None-Match If-Modified-Since X-Forwarded-For X-Forwarded-Proto X-Forwarded-Host "
    b"X-Forwarded-Port X-Real-IP X-Request-Id X-Amzn-Trace-Id Traceparent Tracestate Via "
    b"CF-Ray CF-Connecting-IP CF-Visitor CF-IPCountry CDN-Loop X-Cloud-Trace-Context "
    b"X-Envoy-External-Address X-Request-Start X-Requested-With Content-Length Idempotency-Key"
).split()


def test_an_ordinary_request_is_anybodys() -> None:
    """A service behind the usual proxies keeps what it answers to strangers."""
    request = get(b"/", *((name, b"x") for name in ORDINARY))

    assert why_unshared(request, POLICY, ()) is None


@pytest.mark.parametrize("name", HEADERS)
def test_any_other_field_makes_it_somebodys(name: str) -> None:
    """Whatever it is called: what is not on the list is not shared for."""
    found = why_unshared(get(b"/", (name.encode(), b"x")), POLICY, ())

    assert found is not None
    assert found[1] == name
    assert why_unshared(get(b"/", (name.encode(), b"x"), identity="ann"), POLICY, ()) is None


@pytest.mark.parametrize("name", CREDENTIALS)
def test_credentials_are_shared_for_nowhere(name: bytes) -> None:
    """Not on a public route, nor where a response says that it varies by them."""
    request = get(b"/", (name, b"secret"))

    for policy in (POLICY, PUBLIC):
        found = why_unshared(request, policy, (name.lower(),))
        assert found == (NotKept.CREDENTIALS, name.decode())
        assert why_unshared(replace(request, identity="ann"), policy, ()) is None


def test_a_public_route_looks_at_nothing_else() -> None:
    """Its answers are the same for everybody; who is known by other means is still somebody."""
    request = get(b"/", (b"X-Tenant", b"acme"))

    assert why_unshared(request, PUBLIC, ()) is None
    known = replace(request, known_by="REMOTE_USER")
    assert why_unshared(known, PUBLIC, ()) == (NotKept.CREDENTIALS, "REMOTE_USER")


def test_a_route_may_ask_for_the_identity() -> None:
    """Where answers differ by identity, callers that have none share nothing."""
    for vary in ("identity", "Identity"):
        policy = replace(POLICY, vary=(vary,))
        assert why_unshared(get(), policy, ()) == (NotKept.NO_IDENTITY, "")
        assert why_unshared(get(identity="u1"), policy, ()) is None


def test_a_field_whose_value_is_in_the_key_separates() -> None:
    """Those who send the same may share; of what sounds like a credential nobody may."""
    assert why_unshared(get(b"/", (b"X-Lang", b"de")), POLICY, (b"x-lang",)) is None
    for name in (b"X-Tenant", b"X-Api-Key"):
        found = why_unshared(get(b"/", (name, b"x")), POLICY, (name.lower(),))
        assert found == (NotKept.UNLISTED_FIELD, name.decode())


def test_a_request_with_very_many_fields_is_not_looked_at() -> None:
    """With an identity or without."""
    many = [(b"accept", b"x")] * MOST_FIELDS

    assert why_unshared(get(b"/", *many[1:]), POLICY, ()) is None
    for identity in (None, "ann"):
        found = why_unshared(get(b"/", *many, identity=identity), POLICY, ())
        assert found == (NotKept.TOO_MANY_FIELDS, "over 128")


def test_names_nobody_has_heard_of_leave_nothing_behind() -> None:
    """However long they are: only names short enough to be listed are remembered."""
    name = b"x" * 60_000

    assert not traits_of(name).is_anybodys
    assert traits_of(name) is traits_of(b"y" * 65)
    assert traits_of(b"ACCEPT").is_anybodys


@pytest.mark.parametrize(
    ("name", "says_who"),
    [
        (b"x-api-key", True),
        (b"apikey", True),
        (b"x-auth-token", True),
        (b"x-amz-security-token", True),
        (b"x-forwarded-user", True),
        (b"x-session-id", True),
        (b"cf-access-jwt-assertion", True),
        (b"x-tenant", True),
        (b"cookie", True),
        (b"user-agent", False),
        (b"accept-language", False),
        (b"x-request-id", False),
        (b"idempotency-key", False),
        (b"x-forwarded-for", False),
        (b"traceparent", False),
        (b"if-none-match", False),
    ],
)
def test_a_field_that_sounds_like_a_credential(name: bytes, says_who: bool) -> None:  # noqa: FBT001 - a case
    """There is no standard for keys, and the quick starts use one."""
    assert may_be_credential(name) is says_who
