"""Which keys does nothing act on yet? They are read and checked, and wait for a release.

A key leaves ``PENDING`` in the change that makes something act on it; the finding, the schema's
descriptions and the reference page follow from the table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from budgetware.policyfile.layers import ENVIRONMENTS
from budgetware.policyfile.parts import Part
from budgetware.policyfile.tree import Table
from budgetware.units import shown

if TYPE_CHECKING:
    from budgetware.policyfile.findings import Findings, Path
    from budgetware.policyfile.tree import Entry

CODE: Final = "not-in-this-release"

_ANY: Final = "*"


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a key waits for.

    Attributes:
        actor: What will act on it.
        acting: Path of the one entry below it that something acts on already; ``*`` is any name.
        aside: That entry in words.

    """

    actor: str
    acting: tuple[str, ...] = ()
    aside: str = ""


PENDING: Final[Mapping[str, Waiting]] = MappingProxyType(
    {
        "objectives": Waiting(
            "reports over many requests",
            acting=("routes", _ANY, "objectives", "degraded"),
            aside=", except a route's `degraded`",
        ),
        "checks": Waiting("`budgetware check`"),
    }
)
"""The keys nothing acts on, by name."""


def remark(key: str) -> str:
    """Return the sentence about *key* for its description, empty when something acts on it."""
    waiting = PENDING.get(key)
    return f"Not in this release{waiting.aside}: it waits for {waiting.actor}." if waiting else ""


def report_pending(part: Part, tree: Table, found: Findings) -> None:
    """Note each key of the file that has no effect: where it is first, and how often it is there.

    Environments are part of the file. What could not be read is not in *part* and not counted.
    """
    places: dict[str, list[tuple[Path, Entry]]] = {}
    for path, entry in _keys(part, tree, ()):
        waiting = PENDING.get(entry.key.text)
        if waiting is not None and not _all_acting(waiting, path, entry):
            places.setdefault(entry.key.text, []).append((path, entry))
    for key, ((path, entry), *others) in places.items():
        often = f" (here first, {len(others) + 1} times in all)" if others else ""
        found.report(
            CODE,
            f"{shown(key)} has no effect in this release{PENDING[key].aside}{often}",
            f"it is checked, and waits for {PENDING[key].actor}",
            at=entry.key.span,
            path=path,
            severity="note",
        )


def _all_acting(waiting: Waiting, path: Path, entry: Entry) -> bool:
    """Whether something acts on everything there is at *path*."""
    if not waiting.acting or not isinstance(entry.value, Table):
        return False
    below = path[2:] if path[0] == ENVIRONMENTS else path
    return bool(entry.value.entries) and all(
        len(below) + 1 == len(waiting.acting)
        and all(
            part in {_ANY, given} for part, given in zip(waiting.acting, (*below, key), strict=True)
        )
        for key in entry.value.entries
    )


def _keys(value: object, node: object, path: Path) -> Iterator[tuple[Path, Entry]]:
    """Go through the format's own keys in the file's order; names somebody chose are none."""
    if not isinstance(node, Table):
        return
    for key, entry in node.entries.items():
        inner = (*path, key)
        if isinstance(value, Part) and key in value.model_fields_set:
            yield inner, entry
            if key not in PENDING:
                yield from _keys(getattr(value, key), entry.value, inner)
        elif isinstance(value, dict):
            yield from _keys(value.get(key), entry.value, inner)
