"""What the file says in one environment: its layer laid over the rest, key by key."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

from budgetware.policyfile.findings import MOST_PROBLEMS, Findings, Path, closest
from budgetware.policyfile.tree import Entry, Items, Node, Scalar, Table
from budgetware.units import shown

ENVIRONMENTS: Final = "environments"

_CLOSE: Final = 0.75


def environments_of(tree: Table) -> list[str]:
    """Return the names of the environments the file knows."""
    return list(_table(tree, ENVIRONMENTS).entries)


def effective(tree: Table, environment: str | None) -> Table:
    """Return *tree* without its environments, with the layer of *environment* laid over it."""
    rest = {key: entry for key, entry in tree.entries.items() if key != ENVIRONMENTS}
    flat = Table(tree.span, rest)
    return _over(flat, _table(tree, ENVIRONMENTS, environment), ()) if environment else flat


def report_near_misses(tree: Table, found: Findings) -> None:
    """Warn of names only a layer has that look like the name of something in the file."""
    for environment, section, name, entry in islice(_new_names(tree), MOST_PROBLEMS):
        known = _table(tree, section).entries
        if meant := closest(name, known, _CLOSE):
            found.report(
                "new-in-environment",
                f"{shown(name)} is new in environment {shown(environment)}",
                f"did you mean `{meant}`?",
                at=entry.key.span,
                path=(ENVIRONMENTS, environment, section, name),
                severity="warning",
            )


def _new_names(tree: Table) -> Iterator[tuple[str, str, str, Entry]]:
    """Yield what only an environment has: the environment, the section, the name, the entry."""
    for environment in environments_of(tree):
        layer = _table(tree, ENVIRONMENTS, environment)
        for section in ("tiers", "stages", "routes"):
            known = _table(tree, section).entries
            for name, entry in _table(layer, section).entries.items():
                if name not in known:
                    yield environment, section, name, entry


def _table(tree: Table, *path: str) -> Table:
    node: Node = tree
    for key in path:
        entry = node.entries.get(key) if isinstance(node, Table) else None
        if entry is None:
            return Table(tree.span)
        node = entry.value
    return node if isinstance(node, Table) else Table(tree.span)


def plain_text(node: Node) -> object:
    """Return what is written, without places: the same for the same content."""
    if isinstance(node, Scalar):
        return node.text
    if isinstance(node, Items):
        return [plain_text(item) for item in node.nodes]
    return [[key, plain_text(entry.value)] for key, entry in node.entries.items()]


def _over(base: Table, layer: Table, path: Path) -> Table:
    entries = dict(base.entries)
    for key, upper in layer.entries.items():
        inner = (*path, key)
        lower = entries.get(key)
        if lower is not None and isinstance(upper.value, Table):
            below = _long_form(lower.value, inner)
            if isinstance(below, Table):
                entries[key] = Entry(lower.key, _over(below, upper.value, inner))
                continue
        entries[key] = upper
    return Table(base.span, entries)


def _long_form(node: Node, path: Path) -> Node:
    """Return a stage's ``5ms`` as ``{budget: 5ms}``, so that a layer can add to it."""
    if path[-2:-1] == ("stages",) and isinstance(node, Scalar) and not node.is_null:
        return Table(node.span, {"budget": Entry(node, node)})
    return node
