"""What is looked at when a soak is over, and what must hold of it."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from soak.clients import Seen

MEGABYTE: Final = 1024 * 1024
MOST_GROWTH_BYTES: Final = 8 * MEGABYTE
"""By so much the median of the last quarter may be over that of the quarter before it.

An allocator gives memory back or does not, and a table of callers fills; whatever is left behind by
each of some thousand requests is more.
"""

EXPLAINED: Final = frozenset({"fallback"})
"""Faults that a busy machine brings about: a cheap answer of the application that came late."""

_ERROR: Final = re.compile(r"^[ |+]*[\w.]+(?:Error|Exception|Disconnect|Group)\b.*", re.MULTILINE)
"""The line of a traceback that names what was raised."""

MET: Final = (
    "full responses",
    "partial responses",
    "cached responses",
    "fallback responses",
    "static responses",
    "reject responses",
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: What it is.
        found: What there is.
        wanted: What there should be.
        holds: Whether it is so.

    """

    what: str
    found: object
    wanted: str
    holds: bool

    def __str__(self) -> str:
        return f"{'ok ' if self.holds else 'NO '} {self.what:<34} {self.found!s:<40} {self.wanted}"


def findings(  # noqa: PLR0913, PLR0917 - all that there is to look at
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    seen: Seen,
    samples: Sequence[tuple[float, int]],
    said: str,
    done: Counter[str],
) -> list[Finding]:
    """Return what was found.

    Args:
        before: The state before the load.
        after: The state after it.
        seen: What clients have seen.
        samples: Resident memory beside the cache in bytes, and when in seconds.
        said: What the server has written to its standard error.
        done: What was done to Redis and to the policy.

    """
    answered = sum(seen.counts[what] for what in MET)
    found = [
        Finding("requests answered", answered, "some", answered > 0),
        *(Finding(what, seen.counts[what], "some", seen.counts[what] > 0) for what in MET),
        Finding("disturbances", dict(done), "of each kind", len(done) >= 5),
        _none("foreign bodies", seen.foreign),
        _none("responses nothing explains", seen.odd),
        _none("responses lost", seen.lost),
        _none("errors the server wrote", _ERROR.findall(said)),
    ]
    for what, name in (
        ("slots", "slots in use"),
        ("waiting", "requests in a queue"),
        ("requests", "requests in flight"),
        ("steered", "requests decided on"),
    ):
        found.append(Finding(name, after[what], "0", after[what] == 0))
    for what, name in (("tasks", "tasks"), ("files", "descriptors but for Redis")):
        at_most = before[what]
        found.append(Finding(name, after[what], f"at most {at_most}", after[what] <= at_most))
    redis = after["redis_connections"]
    found.append(Finding("connections to Redis", redis, "at most 97", redis <= 97))
    found.append(_threads(before["threads"], after["threads"]))
    faults = {step: count for step, count in after["faults"].items() if step not in EXPLAINED}
    found.append(Finding("internal errors", faults, "none that nothing explains", not faults))
    same = after["policy"] == before["policy"]
    found.append(Finding("the policy in force", after["policy"], "that of the start", same))
    found.append(_memory(samples))
    return found


def _none(what: str, found: Sequence[str]) -> Finding:
    told = f"{len(found)}: {found[0]}" if found else "0"
    return Finding(what, told, "0", not found)


def _threads(before: Mapping[str, int], after: Mapping[str, int]) -> Finding:
    """Look at threads; those of the event loop's pool come and go as they are needed."""
    more = {
        name: count
        for name, count in after.items()
        if count > before.get(name, 0) and not name.startswith("AnyIO")
    }
    return Finding("threads", dict(after), f"at most {dict(before)}", not more)


def _memory(samples: Sequence[tuple[float, int]]) -> Finding:
    """Look at the memory beside the cache, in the last half of the load."""
    last_s = samples[-1][0]
    third = [size for at_s, size in samples if last_s / 2 <= at_s < last_s * 3 / 4]
    fourth = [size for at_s, size in samples if last_s * 3 / 4 <= at_s]
    if not third or not fourth:
        return Finding("memory over the last half", "too few samples", "some", holds=False)
    growth = statistics.median(fourth) - statistics.median(third)
    told = f"{statistics.median(fourth) / MEGABYTE:.1f} MB, {growth / MEGABYTE:+.2f} MB"
    most = f"at most {MOST_GROWTH_BYTES / MEGABYTE:+.0f} MB"
    return Finding("memory over the last half", told, most, growth <= MOST_GROWTH_BYTES)
