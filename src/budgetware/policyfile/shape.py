"""Does every entry have the shape its key asks for? The tree through the models, and back.

A model stops at what it cannot read. What was wrong is reported and taken out and the rest is
read again, so one run names everything and later questions are asked about what is left.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from budgetware.policyfile.examples import written
from budgetware.policyfile.fields import FIELD_ERROR, PlainText, Text
from budgetware.policyfile.findings import (
    NOWHERE,
    Findings,
    Path,
    Span,
    dotted,
    suggestion,
)
from budgetware.policyfile.parts import UnknownKeysError
from budgetware.policyfile.schema import PolicyFile
from budgetware.policyfile.tree import Items, Node, Scalar, Table
from budgetware.units import shown

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_MOST_PASSES: Final = 16

_EXPECTED: Final[dict[str, tuple[str, type]]] = {
    "model_type": ("a mapping", dict),
    "dict_type": ("a mapping", dict),
    "list_type": ("a list", list),
    "string_type": ("text", str),
}


@dataclass(frozen=True, slots=True)
class Shaped:
    """What could be read, and the entries that were left out because they could not.

    Attributes:
        model: The validated file, ``None`` when nothing is left of it.
        damaged: Paths of the entries that were left out.

    """

    model: PolicyFile | None
    damaged: set[Path] = field(default_factory=set)


def read_shape(tree: Table, found: Findings) -> Shaped:
    """Validate *tree*; everything that does not fit is reported to *found*."""
    damaged: set[Path] = set()
    data: Any = _plain(tree, (), tree.span, found, damaged)
    for _ in range(_MOST_PASSES):
        try:
            return Shaped(PolicyFile.model_validate(data), damaged)
        except ValidationError as errors:
            for error in errors.errors(include_url=False, include_input=False):
                if found.full:
                    return Shaped(None, damaged)
                for path in _report(error, tree, found):
                    damaged.add(path)
                    _take_out(data, path)
    return Shaped(None, damaged)


def span_at(tree: Table, path: Path, *, exact: bool = False) -> Span:
    """Return where *path* is: its value, or its key when the value is a structure.

    When there is no such entry, that of the nearest one around it, or nowhere if *exact*.
    """
    reached, key, value = _locate(tree, path)
    return NOWHERE if exact and reached != path else value or key


def _plain(node: Node, path: Path, at: Span, found: Findings, damaged: set[Path]) -> object:
    """Return *node* as plain data for the models, without entries that have no value."""
    if isinstance(node, Scalar):
        return (PlainText if node.plain else Text)(node.text)
    if isinstance(node, Items):
        items = enumerate(node.nodes)
        return [_plain(item, (*path, index), at, found, damaged) for index, item in items]
    data: dict[str, object] = {}
    for key, entry in node.entries.items():
        inner = (*path, key)
        if not (isinstance(entry.value, Scalar) and entry.value.is_null):
            data[key] = _plain(entry.value, inner, entry.key.span, found, damaged)
        elif inner[-4:-3] == ("routes",) and inner[-2] == "stages":
            data[key] = None
        else:
            damaged.add(inner)
            message = f"{shown(dotted(inner))} has no value"
            found.report(
                "no-value", message, "give it one, or remove it", at=entry.key.span, path=inner
            )
    return data


def _report(error: ErrorDetails, tree: Table, found: Findings) -> list[Path]:
    """Report one validation error; return the paths that have to go."""
    path, key, value = _locate(tree, error["loc"])
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, UnknownKeysError):
        where = f" in {shown(dotted(path))}" if path else ""
        paths: list[Path] = []
        for name in cause.unknown:
            inner = (*path, name)
            paths.append(inner)
            hint = cause.elsewhere.get(name) or partial(suggestion, name, cause.known, "keys")
            at = _locate(tree, inner)[1]
            found.report(
                "unknown-key", f"unknown key {shown(name)}{where}", hint, at=at, path=inner
            )
        return paths
    if error["type"] == "missing":
        name = str(error["loc"][-1])
        found.report(
            "missing-key",
            f"the key {shown(name)} is missing",
            f"add `{name}: 1`" if name == "version" else "",
            at=key if path else Span(1, 1),
            path=path,
        )
        return [(*path, name)] if not path else [path]
    at = key if error["loc"][-1:] == ("[key]",) or value is None else value
    if error["type"] == FIELD_ERROR:
        found.report(**error["ctx"], at=at, path=path)
    elif expected := _EXPECTED.get(error["type"]):
        wanted, kind = expected
        example = written(path, kind)
        message = f"{shown(dotted(path))} takes {wanted}"
        found.report(
            "wrong-type", message, f"such as `{example}`" if example else "", at=at, path=path
        )
    elif error["type"] == "too_short":
        found.report("no-value", f"{shown(dotted(path))} lists nothing", at=key, path=path)
    else:
        found.report("invalid", f"{shown(dotted(path))}: {error['msg']}", at=at, path=path)
    return [path]


def _locate(tree: Table, loc: tuple[str | int, ...]) -> tuple[Path, Span, Span | None]:
    """Return the path in the file that *loc* means, its key's span and its scalar's.

    Parts of *loc* that are no keys of the file name a form of the entry and are passed over.
    """
    node: Node = tree
    path: Path = ()
    key = NOWHERE
    for part in loc:
        if isinstance(node, Table) and isinstance(part, str):
            entry = node.entries.get(part)
            if entry is None:
                continue
            key, node = entry.key.span, entry.value
        elif isinstance(node, Items) and isinstance(part, int):
            node = node.nodes[part]
            key = node.span
        else:
            continue
        path = (*path, part)
    written = isinstance(node, Scalar) and not node.is_null
    return path, key, node.span if written else None


def _take_out(data: Any, path: Path) -> None:
    """Remove the entry at *path*; of a list, the whole list."""
    if path == ("version",):
        data["version"] = Text("1")
        return
    cut = next((index for index, part in enumerate(path) if isinstance(part, int)), len(path))
    for part in path[: cut - 1]:
        data = data.get(part) if isinstance(data, dict) else None
    if isinstance(data, dict) and cut:
        data.pop(path[cut - 1], None)
