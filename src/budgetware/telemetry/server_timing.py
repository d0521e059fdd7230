"""Where the time went so far, as the value of a ``Server-Timing`` header.

``total;dur=12.3, auth;dur=0.8, db;dur=9.7``: milliseconds to one decimal, enough to see a
stage of a few milliseconds and too coarse to time a comparison by. The header is set when the
response starts, so stages that end later are absent.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from budgetware._core.budget import Budget

LONGEST_NAME: Final = 64
"""Characters of a stage's name in the header."""

LONGEST_VALUE: Final = 1024
"""Bytes after which further stages are left out."""

MOST_TEMPLATES: Final = 256
"""Combinations of stages whose template is remembered."""

_ENTRY: Final = len(", ;dur=1234567.8")
_NO_TOKEN: Final = re.compile(r"[^!#$%&'*+\-.^_`|~0-9A-Za-z]")

# By the names of stages that were opened once each, which is what most requests have.
_templates: dict[tuple[str, ...], bytes] = {}

# Milliseconds by their tenths: to look one up is a third of the price of writing it.
_WRITTEN: Final = {tenths: b"%.1f" % (tenths / 10) for tenths in range(1000)}


def render(budget: Budget) -> bytes:
    """Return the header's value: the time since the start, then each stage that has been left.

    A stage's figure is the sum of its openings in milliseconds. Characters that are no part of
    an RFC 9110 token become ``_``; the value is at most ``LONGEST_VALUE`` bytes.
    """
    if not budget.odd:
        try:
            clock = budget.clock
            written = _WRITTEN
            names, took_ms = [], [written[int(10_000 * (clock() - budget.start) + 0.5)]]
            for stage in budget:
                names.append(stage.name)
                took_ms.append(written[int(10_000 * (stage.end - stage.start) + 0.5)])  # type: ignore[operator]
            return _templates[tuple(names)] % tuple(took_ms)
        # A new combination, 100 ms and more, a stage that is still open, an odd one, no name.
        except (KeyError, AttributeError, TypeError, ValueError, OverflowError):
            pass
    return _summed(budget)


def _summed(budget: Budget) -> bytes:
    spent: dict[str, float] = {}
    since = budget.start
    settled = getattr(budget, "settled", None)
    if settled is not None:
        since = settled.since
        for (name, operation), share in settled.shares.items():
            if operation is None:
                spent[name] = share.spent
    for stage in budget:
        try:
            took = stage.end - max(stage.start, since)  # type: ignore[operator,type-var]
            spent[stage.name] = spent.get(stage.name, 0.0) + took
        except (AttributeError, TypeError):  # still open, or its name is not even hashable
            continue
    names = tuple(spent)
    template, count = _template(names)
    if count == len(names):
        if len(_templates) >= MOST_TEMPLATES:
            _templates.clear()
        _templates[names] = template
    values = [
        b"%.1f" % max(0.0, 1000 * took) for took in (budget.clock() - budget.start, *spent.values())
    ]
    return template % tuple(values[: count + 1])


def _template(names: tuple[str, ...]) -> tuple[bytes, int]:
    """Return the format of a header with *names*, and how many of them it has room for."""
    entries = ["total;dur=%b"]
    length = _ENTRY + len("total")
    for name in names:
        token = _NO_TOKEN.sub("_", str(name)[:LONGEST_NAME]) or "_"
        length += _ENTRY + len(token)
        if length > LONGEST_VALUE:
            break
        entries.append(token.replace("%", "%%") + ";dur=%b")
    return ", ".join(entries).encode("ascii"), len(entries) - 1
