"""Whose response is served to whom."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.answers.requests_made_up import POLICY, full, get

from budgetware._core.policy import CachePolicy
from budgetware.answers import cache as cache_module
from budgetware.answers.cache import (
    MOST_REFRESHED,
    REFRESH_LEASE_S,
    AsyncResponseCache,
    Refresh,
    ResponseCache,
)
from budgetware.answers.cached import cached_answer
from budgetware.answers.facts import Header, RequestFacts, ResponseFacts
from budgetware.answers.memory import MemoryStore
from budgetware.answers.stored import Found, Stored


class _Shared:
    """A store that others use as well, with its own idea of how old things are."""

    def __init__(self) -> None:
        self.entries: dict[bytes, tuple[Stored, float]] = {}
        self.asked: list[float] = []

    def get(self, key: bytes, now: float, wait_s: float) -> Found | None:
        self.asked.append(wait_s)
        entry = self.entries.get(key)
        return None if entry is None else Found(entry[0], now - entry[1])

    def put(self, key: bytes, stored: Stored, resident_s: float, now: float) -> None:
        self.entries[key] = (stored, now - resident_s)


class _AsyncShared:
    def __init__(self, store: _Shared) -> None:
        self._store = store
        self.put = store.put

    async def get(self, key: bytes, now: float, wait_s: float) -> Found | None:
        await asyncio.sleep(0)
        return self._store.get(key, now, wait_s)


def _keep(  # noqa: PLR0913, PLR0917 - so much is known of a response
    cache: ResponseCache | AsyncResponseCache,
    request: RequestFacts,
    response: ResponseFacts,
    body: bytes,
    now: float,
    policy: CachePolicy = POLICY,
) -> bool:
    draft = cache.draft(request, policy, response)
    if draft is None:
        return False
    draft.tee.add(body)
    return cache.keep(draft, 0.0, now)


def test_no_identity_ever_gets_anothers_body() -> None:
    """10k identities, 100 addresses, degraded at random: 0 of 200k bodies are foreign."""
    draw = random.Random(20261121)
    cache = ResponseCache(MemoryStore(most_bytes=20_000_000))
    identities = [f"user-{number}" for number in range(10_000)]
    targets = [b"/signals/%d?depth=%d" % (number % 10, number) for number in range(100)]
    tiers = ("free", "pro", "enterprise")
    foreign = hits = 0
    for step in range(200_000):
        now = step / 1000
        # Some come often, so that there is something to hit.
        number = min(9_999, int(draw.expovariate(1 / 200)))
        identity, target = identities[number], draw.choice(targets)
        tier, language = tiers[number % 3], draw.choice((b"de", b"en"))
        request = get(
            target,
            (b"authorization", b"Bearer " + identity.encode()),
            (b"accept-language", language),
            identity=identity,
            tier=tier,
        )
        mine = b"|".join((identity.encode(), target, tier.encode(), language))
        if draw.random() < 0.5:
            found = cache.look_up(request, POLICY, now, 0.0)
            hits += found is not None
            foreign += found is not None and found.stored.body != mine
        else:
            _keep(cache, request, full((b"vary", b"Accept-Language")), mine, now)

    assert foreign == 0
    assert hits > 5_000


_REQUESTS = st.builds(
    get,
    st.sampled_from([b"/a", b"/a?b", b"/b"]),
    st.sampled_from([(b"accept", b"x"), (b"accept", b"y"), (b"cookie", b"s=1"), (b"x", b"")]),
    method=st.sampled_from(["GET", "HEAD", "POST"]),
    tier=st.sampled_from([None, "free", "pro"]),
    identity=st.sampled_from([None, "ann", "bob"]),
    route=st.sampled_from(["r", "s"]),
)
_RESPONSES = st.lists(
    st.sampled_from(
        [
            (b"vary", b"accept"),
            (b"vary", b"cookie"),
            (b"Vary", b"X"),
            (b"cache-control", b"max-age=5"),
            (b"Cache-Control", b"PRIVATE"),
            (b"Set-Cookie", b"s=2"),
        ]
    ),
    max_size=3,
)


@given(st.lists(st.tuples(_REQUESTS, _RESPONSES, st.booleans()), max_size=40))
def test_what_is_served_was_made_for_such_a_request(
    steps: list[tuple[RequestFacts, Sequence[Header], bool]],
) -> None:
    """Route, target, tier, identity and the fields varied on are those of the first request."""
    cache = ResponseCache(shared=_Shared())
    made: list[tuple[RequestFacts, ResponseFacts]] = []
    for now, (request, headers, degraded) in enumerate(steps):
        if not degraded:
            made.append((request, full(*headers)))
            _keep(cache, *made[-1], b"%d" % (len(made) - 1), now / 10)
            continue
        found = cache.look_up(request, POLICY, now / 10, 0.01)
        if found is None:
            continue
        origin, response = made[int(found.stored.body)]
        same = ("route", "target", "tier", "identity", "scheme")
        assert [getattr(origin, name) for name in same] == [getattr(request, name) for name in same]
        fields = [value.lower() for name, value in response.headers if name.lower() == b"vary"]
        for field in fields:
            values = [dict(one.headers).get(field) for one in (origin, request)]
            assert values[0] == values[1]
        names = {name.lower() for name, _ in response.headers}
        assert b"set-cookie" not in names
        assert (b"Cache-Control", b"PRIVATE") not in response.headers
        assert origin.method == "GET"
        assert request.method in {"GET", "HEAD"}
        carries_cookie = any(name == b"cookie" for name, _ in (*request.headers, *origin.headers))
        assert request.identity is not None or not (carries_cookie or b"cookie" in fields)


def test_an_answer_is_fresh_then_stale_then_gone() -> None:
    """Served within the policy's windows only, with the age it has."""
    cache = ResponseCache()
    draft = cache.draft(get(), POLICY, full((b"content-length", b"4")))
    assert draft is not None
    draft.tee.add(b"full")
    assert cache.keep(draft, took_s=0.4, now=100.0)

    seen = [cache.look_up(get(), POLICY, now, 0.0) for now in (100.5, 100.7, 160.5, 160.7)]

    assert [found and found.is_fresh for found in seen] == [True, False, False, None]
    assert seen[2] is not None
    assert dict(cached_answer(seen[2]).headers)[b"age"] == b"61"


def test_a_body_that_is_not_whole_is_not_kept() -> None:
    """At whichever part the application dies, nothing is kept."""
    cache = ResponseCache()
    for cut in range(4):
        draft = cache.draft(get(), POLICY, full((b"content-length", b"4")))
        assert draft is not None
        draft.tee.add(b"full"[:cut])
        assert not cache.keep(draft, 0.0, 0.0)

    assert len(cache.memory) == 0


def test_a_long_body_is_not_even_begun() -> None:
    """A declared length over the cap collects nothing."""
    cache = ResponseCache(most_body_bytes=10)

    assert cache.draft(get(), POLICY, full((b"content-length", b"11"))) is None
    assert not _keep(cache, get(), full(), bytes(11), 0.0)
    assert _keep(cache, get(), full(), bytes(10), 0.0)


def test_what_varies_by_credentials_needs_an_identity() -> None:
    """A response that depends on cookies or authorization is not kept for callers without one."""
    cache = ResponseCache()
    for field in (b"Cookie", b"accept, AUTHORIZATION"):
        assert cache.draft(get(), POLICY, full((b"vary", field))) is None
        assert cache.draft(get(identity="ann"), POLICY, full((b"vary", field))) is not None


def test_what_a_response_varies_on_is_learned_per_route() -> None:
    """The second language is another entry, and a field too many is not kept."""
    cache = ResponseCache()
    german, english = (get(b"/", (b"accept-language", value)) for value in (b"de", b"en"))
    for request, body in ((german, b"ja"), (english, b"yes")):
        assert _keep(cache, request, full((b"vary", b"accept-language")), body, 0.0)

    bodies = [cache.look_up(one, POLICY, 0.5, 0.0) for one in (german, english, get(b"/"))]

    assert [found and found.stored.body for found in bodies] == [b"ja", b"yes", None]
    for number in range(40):
        _keep(cache, get(b"/"), full((b"vary", b"x-%d" % number)), b"", 0.0)
    assert len(cache._varied["signals"]) == 16


def test_an_entry_of_a_process_that_knew_less_is_checked() -> None:
    """An entry that varies on what this process has not learned yet is compared all the same."""
    shared = _Shared()
    request = get(b"/", (b"accept-language", b"de"))
    other = ResponseCache(shared=shared)
    _keep(other, request, full((b"vary", b"accept-language")), b"ja", 0.0)
    (entry,) = shared.entries.values()
    stranger = ResponseCache(shared=shared)
    english = get(b"/", (b"accept-language", b"en"))
    key = stranger._key(english, POLICY)
    assert key is not None
    shared.entries[key] = entry

    assert stranger.look_up(english, POLICY, 0.5, 1.0) is None


def test_the_younger_of_two_is_served() -> None:
    """A fresh one of our own asks nobody; a stale one is only used when there is none younger."""
    shared = _Shared()
    mine, theirs = ResponseCache(shared=shared), ResponseCache(shared=shared)
    _keep(mine, get(), full(), b"old", 0.0)
    fresh = mine.look_up(get(), POLICY, 0.5, 0.25)
    assert (fresh and fresh.stored.body, shared.asked) == (b"old", [])
    _keep(theirs, get(), full(), b"new", 5.0)

    found = mine.look_up(get(), POLICY, 8.0, 0.25)
    shared.entries.clear()
    left = mine.look_up(get(), POLICY, 8.0, 0.25)

    assert [one and one.stored.body for one in (found, left)] == [b"new", b"old"]
    assert shared.asked == [0.25, 0.25]


def test_tasks_are_served_alike() -> None:
    """The same rules, awaited."""

    async def run() -> None:
        store = _Shared()
        mine, theirs = (AsyncResponseCache(shared=_AsyncShared(store)) for _ in range(2))
        _keep(mine, get(), full(), b"one", 0.0)
        for cache in (mine, theirs):
            found = await cache.look_up(get(), POLICY, 0.5, 0.25)
            assert found is not None
            assert found.stored.body == b"one"
        assert await mine.look_up(get(b"/", (b"cookie", b"x")), POLICY, 0.5, 0.25) is None
        assert mine.is_shared
        assert not AsyncResponseCache().is_shared

    asyncio.run(run())


def test_writes_elsewhere_drop_nothing() -> None:
    """Of 1,000 kept responses every one is there after 10,000 writes to other addresses."""
    cache = ResponseCache()
    kept = [get(b"/kept/%d" % number) for number in range(1_000)]
    for request in kept:
        _keep(cache, request, full(), request.target, 0.0)
    for number in range(10_000):
        cache.wrote(get(b"/written/%d" % number, method="POST"), 201, 0.1)

    found = [cache.look_up(request, POLICY, 0.2, 0.0) for request in kept]

    assert [one.stored.body for one in found if one is not None] == [one.target for one in kept]


def test_more_writes_than_are_remembered_drop_too_much_and_never_too_little(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An address that was written to is never served from before, however long ago that was."""
    monkeypatch.setattr(cache_module, "MOST_WRITTEN", 10)
    cache = ResponseCache()
    addresses = [b"/%d" % number for number in range(50)]
    for target in addresses:
        _keep(cache, get(target), full(), b"before", 0.0)
    for number, target in enumerate(addresses):
        cache.wrote(get(target, method="PUT"), 200, 1.0 + number)
    for target in addresses:
        assert cache.look_up(get(target), POLICY, 51.5, 0.0) is None
    _keep(cache, get(b"/0"), full(), b"after", 52.0)

    assert cache.look_up(get(b"/0"), POLICY, 52.5, 0.0) is not None
    assert len(cache._written._at) == 10


def test_one_write_more_than_are_remembered_costs_next_to_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A few kept responses, and not all that are older than what was forgotten."""
    monkeypatch.setattr(cache_module, "MOST_WRITTEN", 10)
    cache = ResponseCache()
    kept = [get(b"/kept/%d" % number) for number in range(1_000)]
    for request in kept:
        _keep(cache, request, full(), request.target, 0.0)
    for number in range(11):
        cache.wrote(get(b"/written/%d" % number, method="POST"), 201, 0.1)

    found = [cache.look_up(request, POLICY, 0.2, 0.0) for request in kept]

    assert sum(one is not None for one in found) >= 995


def test_a_refresh_that_hangs_is_taken_over() -> None:
    """Its lease ends; and when it ends after all, the other's lease is left alone."""
    cache = ResponseCache()

    def begin(now: float, target: bytes = b"/") -> Refresh | None:
        return cache.begin_refresh(get(target), POLICY, lambda: True, now)

    hanging = begin(0.0)
    assert hanging is not None
    assert begin(REFRESH_LEASE_S - 0.1) is None
    other = begin(REFRESH_LEASE_S)
    assert other is not None
    cache.end_refresh(hanging)
    assert begin(REFRESH_LEASE_S + 1.0) is None
    cache.end_refresh(other)
    assert begin(REFRESH_LEASE_S + 2.0) is not None


def test_refreshes_that_hang_one_after_another_are_begun_ever_more_rarely() -> None:
    """Each holds a slot for as long as it hangs; one that ends makes it as before."""
    cache = ResponseCache()

    def begun(until_s: int) -> list[int]:
        found = {}
        for now in range(until_s):
            refresh = cache.begin_refresh(get(b"/"), POLICY, lambda: True, now)
            if refresh is not None:
                found[now] = refresh
        cache.end_refresh(refresh or found[max(found)])
        return list(found)

    assert begun(200) == [0, 10, 30, 70, 150]
    assert begun(20) == [0, 10]


def test_refreshes_that_hang_do_not_use_up_the_room() -> None:
    """As many as there may be are lost, and later ones begin all the same."""
    cache = ResponseCache()
    for now in (0.0, REFRESH_LEASE_S):
        rights = [
            cache.begin_refresh(get(b"/%d" % number), POLICY, lambda: True, now)
            for number in range(MOST_REFRESHED + 1)
        ]
        assert [right is None for right in rights] == [False] * MOST_REFRESHED + [True]


Told = tuple[str, str | None, str, str, str]


def test_what_becomes_of_a_response_is_told() -> None:
    """Hits and misses, and every reason for which a full one is not kept."""
    told: list[Told] = []
    cache = ResponseCache(most_body_bytes=10, told=lambda *one: told.append(one))
    mine = replace(POLICY, vary=("identity",))
    cases: list[tuple[RequestFacts, CachePolicy, ResponseFacts, str, str]] = [
        (get(b"/", (b"range", b"bytes=0-1")), POLICY, full(), "request", ""),
        (get(), POLICY, full(status=404), "response", ""),
        (get(), POLICY, full((b"set-cookie", b"a=b")), "response", ""),
        (get(), POLICY, full((b"vary", b"*")), "varies", ""),
        (get(), mine, full(), "no_identity", ""),
        (get(b"/", (b"Cookie", b"a=b")), POLICY, full(), "credentials", "Cookie"),
        (get(b"/", (b"X-Tenant", b"a")), POLICY, full(), "unlisted_field", "X-Tenant"),
        (get(), POLICY, full((b"Vary", b"Cookie, Accept")), "varies_by_caller", "cookie"),
        (get(), POLICY, full((b"content-length", b"11")), "too_long", ""),
    ]
    for request, policy, response, _, _ in cases:
        assert cache.draft(request, policy, response) is None
    expected = [("signals", "free", "not_kept", *case[3:]) for case in cases]
    assert told == expected

    del told[:]
    cache.draft(get(method="POST"), POLICY, full())  # nobody thought it would be
    cache.look_up(get(), POLICY, 0.0, 0.0)
    _keep(cache, get(), full(), b"x", 0.0)
    cache.look_up(get(), POLICY, 0.0, 0.0)
    assert [one[2] for one in told] == ["miss", "hit"]


@pytest.mark.parametrize(
    ("method", "status", "served"),
    [("POST", 201, False), ("DELETE", 302, False), ("PUT", 400, True), ("GET", 200, True)],
)
def test_what_was_written_to_is_not_served_from_before(
    method: str,
    status: int,
    served: bool,  # noqa: FBT001 - a table
) -> None:
    """After an unsafe request that worked, older entries of its address are not used."""
    cache = ResponseCache()
    _keep(cache, get(identity="ann"), full(), b"before", 0.0)
    cache.wrote(get(method=method, identity="bob"), status, 0.5)

    assert (cache.look_up(get(identity="ann"), POLICY, 0.6, 0.0) is not None) is served
    _keep(cache, get(identity="ann"), full(), b"after", 0.7)
    found = cache.look_up(get(identity="ann"), POLICY, 0.8, 0.0)
    assert found is not None
    assert found.stored.body == b"after"
