"""What a soak is relied on for: each thing that does not hold is said."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from soak.clients import Ask, Client, Seen
from soak.findings import MEGABYTE, MET, findings
from soak.served import made_for

STATE: dict[str, Any] = {
    "requests": 0,
    "slots": 0,
    "waiting": 0,
    "steered": 0,
    "tasks": 2,
    "threads": {"MainThread": 1, "AnyIO worker thread": 2},
    "files": 9,
    "redis_connections": 5,
    "faults": {},
    "policy": "d1gest",
}
DONE = Counter(dict.fromkeys(("kill", "freeze", "flush", "reload", "break"), 1))
FLAT = [(at_s / 2, 70 * MEGABYTE) for at_s in range(120)]


def seen(**lists: list[str]) -> Seen:
    """Return what clients have seen that have met everything."""
    return Seen(Counter(dict.fromkeys(MET, 1)), **lists)


def bad(
    after: dict[str, Any] | None = None,
    by: Seen | None = None,
    samples: list[tuple[float, int]] | None = None,
    said: str = "",
) -> list[str]:
    """Return what does not hold."""
    found = findings(
        STATE, STATE | (after or {}), by or seen(), FLAT if samples is None else samples, said, DONE
    )
    return [finding.what for finding in found if not finding.holds]


def test_a_soak_that_leaves_nothing_behind_holds() -> None:
    """Fewer threads than at the start, and faults that a busy machine explains, are fine."""
    assert bad() == []
    assert bad({"threads": {"MainThread": 1}, "faults": {"fallback": 3}}) == []
    assert bad({"threads": {"MainThread": 1, "AnyIO worker thread": 9}}) == []


@pytest.mark.parametrize(
    ("after", "what"),
    [
        ({"slots": 1}, "slots in use"),
        ({"waiting": 1}, "requests in a queue"),
        ({"requests": 1}, "requests in flight"),
        ({"steered": -1}, "requests decided on"),
        ({"tasks": 3}, "tasks"),
        ({"files": 10}, "descriptors but for Redis"),
        ({"redis_connections": 98}, "connections to Redis"),
        ({"threads": {"MainThread": 1, "budgetware-redis": 1}}, "threads"),
        ({"faults": {"race": 1}}, "internal errors"),
        ({"policy": "other"}, "the policy in force"),
    ],
)
def test_whatever_is_left_behind_is_said(after: dict[str, Any], what: str) -> None:
    """One at a time."""
    assert bad(after) == [what]


def test_what_clients_and_the_server_have_seen_is_said() -> None:
    """Bodies of others, statuses and losses that nothing explains, and errors."""
    assert bad(by=seen(foreign=["x"])) == ["foreign bodies"]
    assert bad(by=seen(odd=["x"])) == ["responses nothing explains"]
    assert bad(by=seen(lost=["x"])) == ["responses lost"]
    said = "Traceback (most recent call last):\n  File ...\nstarlette.requests.ClientDisconnect\n"
    assert bad(said=said) == ["errors the server wrote"]
    assert bad(by=Seen()) == ["requests answered", *MET]


def test_memory_that_grows_is_said() -> None:
    """A little is the allocator's affair; growth in the first half is that of tables."""
    steps = [(at_s, size + int(at_s * MEGABYTE / 4)) for at_s, size in FLAT]
    assert bad(samples=steps) == []
    leak = [(at_s, size + int(at_s * MEGABYTE)) for at_s, size in FLAT]
    assert bad(samples=leak) == ["memory over the last half"]
    first_half = [(at_s, size + int(min(at_s, 30) * MEGABYTE)) for at_s, size in FLAT]
    assert bad(samples=first_half) == []
    assert bad(samples=[(0.0, 1)]) == ["memory over the last half"]


@pytest.mark.parametrize(
    ("path", "kind", "body", "is_foreign"),
    [
        ("/full/1", "full", made_for("ann", "/full/1"), False),
        ("/full/1", "cached", made_for("bob", "/full/1"), True),
        ("/full/1", "full", made_for("ann", "/full/2"), True),
        ("/full/1", "full", made_for("ann", "/full/1", 7), True),
        ("/full/1", "full", made_for("ann", "/full/1", 4) + made_for("bob", "/full/1", 4), True),
        ("/public/1", "cached", made_for("anybody", "/public/1"), False),
        ("/slow/1", "fallback", made_for("ann", "/slow/1", 1), False),
        ("/slow/1", "static", "smaller", False),
    ],
)
def test_a_client_knows_what_is_meant_for_it(
    path: str, kind: str, body: str, *, is_foreign: bool
) -> None:
    """Line by line, and whole."""
    told = Seen()
    ask = Ask("GET", path, "", "ann", "pro")

    Client(0, 1, told)._look(ask, 200, {"budgetware-answer": kind}, body.encode())

    assert bool(told.foreign) is is_foreign
    assert told.counts == {f"{kind} responses": 1}
