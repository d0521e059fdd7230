"""A tier that is no name, and a yes that is to be awaited, are counted and change nothing."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import pytest
from tests.doors import asgi_play, wsgi_play


class Later(Awaitable[str]):
    """What a plain function may return by mistake."""

    def __await__(self) -> Any:
        """Have nobody wait."""
        raise AssertionError


def asked(door: str, **options: Any) -> tuple[dict[str, int], str | None, list[str]]:
    """Return the faults, the tier and the headers of a request to either door."""
    if door == "asgi":
        unit = asgi_play.Door(asgi_play.answer, **options)
        wire = asgi_play.Wire()
        asgi_play.run(unit(asgi_play.http(), wire.receive, wire.send))
        names = [name.decode() for name, _ in wire.sent[0]["headers"]]
        return unit.faults, unit.records[0].tier, names
    stand = wsgi_play.Door(wsgi_play.answer, **options)
    line = wsgi_play.Wire()
    line.run(stand, wsgi_play.environ())
    return stand.faults, stand.records[0].tier, [name for name, _ in line.starts[0][1]]


@pytest.mark.parametrize("door", ["asgi", "wsgi"])
@pytest.mark.parametrize("given", [7, b"pro", True, Later()])
def test_a_tier_that_is_no_name_is_a_fault(door: str, given: object) -> None:
    """The caller is unknown, and somebody hears of it."""
    faults, tier, _ = asked(door, tier=lambda _: given)

    assert (faults, tier) == ({"tier": 1}, "free")


@pytest.mark.parametrize("door", ["asgi", "wsgi"])
@pytest.mark.parametrize("given", ["pro", None, "no such tier"])
def test_a_tier_that_is_a_name_is_none(door: str, given: str | None) -> None:
    """Nobody and whoever is not listed are callers of the first tier."""
    faults, tier, _ = asked(door, tier=lambda _: given)

    assert (faults, tier) == ({}, "pro" if given == "pro" else "free")


@pytest.mark.parametrize("door", ["asgi", "wsgi"])
@pytest.mark.parametrize(
    ("given", "timed", "faults"),
    [(Later(), False, {"server_timing": 1}), (1, True, {}), (True, True, {}), (None, False, {})],
)
def test_what_would_have_to_be_awaited_tells_nobody(
    door: str, given: object, *, timed: bool, faults: dict[str, int]
) -> None:
    """Whatever it would say, callers are told nothing of the inside."""
    counted, _, names = asked(door, server_timing=lambda _: given)

    assert counted == faults
    assert any(name.lower() == "server-timing" for name in names) is timed
