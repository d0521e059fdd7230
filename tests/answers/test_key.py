"""Whom a stored response is for."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.answers.requests_made_up import POLICY, full, get

from budgetware._core.policy import CachePolicy
from budgetware.answers.facts import RequestFacts
from budgetware.answers.key import (
    KEY_BYTES,
    MOST_VARIED,
    key_of,
    selecting,
    varied_on,
)

ADDRESSES = (
    b"Forwarded",
    b"X-Forwarded-Port",
    b"X-Forwarded-Tlsversion",
    b"X-Original-Url",
    b"X-Original-Anything",
    b"X-Rewrite-Url",
    b"X-Any-Host-Name",
    b"X-Upstream-Scheme",
    b"X-Script-Prefix",
    b"X-Client-Proto",
    b"Front-End-Https",
    b"X-Envoy-Internal",
    b"X-" + b"a" * 100 + b"-Host",
)
"""Fields that applications build addresses from, and what else a proxy says of the way."""


def test_every_difference_makes_another_key() -> None:
    """Route, target byte by byte, scheme, host, tier and identity are all told apart."""
    plain = get(b"/a/b?c=d")
    targets = [b"/a/b", b"/a/b?", b"/a/b?c=D", b"/a/b/?c=d", b"/a//b?c=d", b"/a%2fb?c=d"]
    targets += [b"/a%2Fb?c=d", b"/a/b;x?c=d", b"/a/b.css?c=d", b"/a/b\x00?c=d", b"/a/b?c=d#f"]
    different = [replace(plain, target=target) for target in targets]
    different += [
        replace(plain, route="other"),
        replace(plain, scheme="https"),
        replace(plain, listener="8081"),
        replace(plain, tier=None),
        replace(plain, tier=""),
        replace(plain, identity=""),
        replace(plain, identity="None"),
        replace(plain, identity="\ud800"),
        replace(plain, sent=b"/A/b"),
        replace(plain, root=b"/a"),
        replace(plain, namespace="shop\0staging"),
        replace(plain, headers=((b"host", b"evil.example"),)),
        replace(plain, headers=()),
        get(b"/a/b?c=d", (b"X-Forwarded-Host", b"evil.example")),
        *(get(b"/a/b?c=d", (name, b"/admin")) for name in ADDRESSES),
        replace(plain, target=b"/a/b?c=d4:host=11:api.example", headers=()),
    ]

    keys = {key_of(request, POLICY, ()) for request in (plain, *different)}

    assert len(keys) == 1 + len(different)
    assert {len(key) for key in keys} == {KEY_BYTES}


@pytest.mark.parametrize("name", [b"X-Forwarded-For", b"X-Original-Forwarded-For", b"X-Real-Ip"])
def test_where_a_request_comes_from_makes_no_difference(name: bytes) -> None:
    """Or every client would have an entry of its own."""
    assert key_of(get(b"/", (name, b"10.0.0.1")), POLICY, ()) == key_of(get(b"/"), POLICY, ())


@pytest.mark.parametrize(
    "name",
    [b"X-Tenant", b"X-Act-As", b"HX-Request", b"Prefer", b"X-Api-Version", b"X-Forwarded-User"],
)
def test_a_caller_may_act_for_others_and_ask_for_more(name: bytes) -> None:
    """With an identity every field that nobody has heard of separates; without, none is shared."""
    keys = {
        key_of(get(b"/", *fields, identity="admin"), POLICY, ())
        for fields in ([], [(name, b"acme")], [(name, b"globex")])
    }

    assert len(keys) == 3


@pytest.mark.parametrize(
    "name",
    [
        *(b"Authorization", b"Cookie", b"Proxy-Authorization", b"DPoP", b"X-Auth-Token"),
        *(b"X-Forwarded-Access-Token", b"Cf-Access-Jwt-Assertion", b"X-Hub-Signature-256"),
        *(b"X-Nonce", b"X-CSRFToken", b"X-XSRF-Token", b"X-Amzn-Oidc-Data", b"X-AccessKey"),
        *(b"X-Access-Key-Id", b"X-Client-Secret", b"X-Forwarded-Client-Cert", b"X-Request-Id"),
    ],
)
def test_what_proves_who_it_is_separates_nobody_from_himself(name: bytes) -> None:
    """A token is another one every hour, and the identity says already whose it is."""
    keys = {key_of(get(b"/", (name, value), identity="ann"), POLICY, ()) for value in (b"1", b"2")}

    assert len(keys) == 1


def test_head_finds_what_get_left() -> None:
    """The method is no part of the key."""
    assert key_of(get(), POLICY, ()) == key_of(get(method="HEAD"), POLICY, ())


_WORDS = st.text("ab:=|-+0123456789", max_size=6)


@given(st.tuples(_WORDS, _WORDS, _WORDS), st.tuples(_WORDS, _WORDS, _WORDS))
def test_parts_cannot_run_into_each_other(
    one: tuple[str, str, str], other: tuple[str, str, str]
) -> None:
    """Equal keys mean equal parts, whatever characters the parts are made of."""
    keys = [
        key_of(get(target.encode(), tier=tier, identity=identity), POLICY, ())
        for tier, identity, target in (one, other)
    ]

    assert (keys[0] == keys[1]) == (one == other)


def test_the_fields_of_policy_and_response_are_in_the_key() -> None:
    """Values of listed fields separate answers; blanks around commas do not, absence does."""
    policy = CachePolicy(vary=("identity", "Accept-Language"))

    def key(*values: bytes, name: bytes = b"accept-language") -> bytes:
        return key_of(get(b"/", *((name, value) for value in values)), policy, (b"accept",))

    assert key(b"de") != key(b"en") != key() != key(b"")
    assert key(b"de, en") == key(b"de ,en") == key(b"de", b"en")
    assert key(b"a", name=b"accept") != key(b"b", name=b"accept")
    assert key(b"a", name=b"user-agent") == key(b"b", name=b"user-agent")


def test_what_was_public_is_forgotten_when_it_no_longer_is() -> None:
    """A shared store still has what was kept for everybody by mistake."""
    keys = {key_of(get(), replace(POLICY, public=public), ()) for public in (False, True)}

    assert len(keys) == 2


def test_a_response_says_what_it_depends_on() -> None:
    """Vary lines add up, one allowed origin counts as one, a star or too many is too much."""
    many = [(b"vary", b"x-%d" % index) for index in range(MOST_VARIED + 1)]

    assert varied_on(full()) == frozenset()
    assert varied_on(full((b"Vary", b"Accept, ORIGIN"), (b"vary", b"x"))) == frozenset(
        (b"accept", b"origin", b"x")
    )
    assert varied_on(full((b"access-control-allow-origin", b"https://a.example"))) == frozenset(
        (b"origin",)
    )
    assert varied_on(full((b"access-control-allow-origin", b"*"))) == frozenset()
    assert varied_on(full((b"vary", b"accept, *"))) is None
    assert varied_on(full(*many)) is None
    assert varied_on(full(*many[1:])) is not None


def test_order_of_names_makes_no_difference() -> None:
    """Names are compared sorted, each once."""
    request: RequestFacts = get(b"/", (b"b", b"2"), (b"a", b"1"), (b"b", b"3"))

    found = {selecting(request, names) for names in itertools.permutations([b"a", b"b", b"c"])}

    assert found == {((b"a", b"1"), (b"b", b"2,3"))}
