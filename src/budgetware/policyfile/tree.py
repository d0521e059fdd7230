"""What was written where: YAML text as nodes that keep their text and their place.

Scalars stay text, so nothing is ever read as something else than what was written. The tree is
built from parser events, without recursion and without aliases: its size is bounded by the text's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import yaml

from budgetware.policyfile.findings import Span
from budgetware.policyfile.source import lines_of
from budgetware.policyfile.syntax import explain_syntax
from budgetware.units import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from budgetware.policyfile.findings import Findings, Path

DEEPEST: Final = 20
MOST_NODES: Final = 15_000

_Parser = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# What YAML 1.1 readers take for something else than text when it is written without quotes.
_NOT_TEXT: Final = re.compile(
    r"""(?xi)
    (?P<truth> yes | no | on | off | true | false )
    | (?P<nothing> ~ | null | )
    | (?P<number>
        [-+]? (?: [0-9][0-9_]*(?:\.[0-9_]*)?(?:e[-+]?[0-9]+)? | \.[0-9_]+ | 0x[0-9a-f_]+ | 0b[01_]+
                | 0o[0-7_]+ | [0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)? | \.inf )
        | \.nan )
    | (?P<date> [0-9]{4}-[0-9]{1,2}-[0-9]{1,2} (?: [tT ].* )? )
    """,
)
_TRAPS: Final = {
    "truth": "true or false",
    "nothing": "nothing",
    "number": "a number",
    "date": "a date",
}


_LONGEST_TRAP: Final = 80


@dataclass(frozen=True, slots=True)
class Scalar:
    """One piece of text; *plain* when it was written without quotes.

    A file has thousands, and the garbage collector looks at all their objects: one each is enough.
    """

    text: str
    plain: bool
    line: int
    column: int
    length: int

    @property
    def span(self) -> Span:
        """Where it is written."""
        return Span(self.line, self.column, self.length)

    @property
    def is_null(self) -> bool:
        """Whether nothing was written, or a word for nothing."""
        return self.plain and self.text in {"", "~", "null", "Null", "NULL"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One ``key: value`` of a table."""

    key: Scalar
    value: Node


@dataclass(frozen=True, slots=True)
class Table:
    """A YAML mapping, in the order it was written."""

    span: Span
    entries: dict[str, Entry] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Items:
    """A YAML sequence."""

    span: Span
    nodes: list[Node] = field(default_factory=list)


Node = Scalar | Table | Items


def taken_for(text: str) -> str:
    """Return what YAML readers take unquoted *text* for, empty when it stays text."""
    found = _NOT_TEXT.fullmatch(text[:_LONGEST_TRAP])
    return _TRAPS[found.lastgroup or ""] if found else ""


def read_tree(text: str, found: Findings) -> tuple[Table | None, set[Path]]:
    """Return the file's tree and the paths of what had to be left out of it.

    The tree is ``None`` when nothing in the text can be judged; why was reported to *found*.
    """
    builder = _Builder(found)
    if _has_directive(text, found):
        return None, builder.damaged
    try:
        for event in _events(text):
            if not builder.take(event):
                break
    except yaml.MarkedYAMLError as error:
        explain_syntax(error, text, found)
        return None, builder.damaged
    if builder.root is None:
        if not builder.stopped:
            found.report("empty", "the file is empty", "the least is `version: 1`", at=Span(1, 1))
        return None, builder.damaged
    if not isinstance(builder.root, Table):
        found.report(
            "not-a-mapping",
            "the file is not a mapping of keys to values",
            "start it with `version: 1`",
            at=builder.root.span,
        )
        return None, builder.damaged
    return (None if builder.stopped else builder.root), builder.damaged


def _has_directive(text: str, found: Findings) -> bool:
    """Report a ``%`` line before the document; parsers disagree about unknown ones."""
    for number, line in enumerate(lines_of(text), start=1):
        if line.strip() and not line.startswith("#"):
            if line.startswith("%"):
                found.report(
                    "directive",
                    "YAML directives are not used here",
                    "remove the line",
                    at=Span(number, 1, len(line)),
                )
            return line.startswith("%")
    return False


def _events(text: str) -> Iterator[yaml.Event]:
    parser = _Parser(text)
    try:
        while parser.check_event():
            yield parser.get_event()
    finally:
        parser.dispose()


class _Builder:
    """Puts parser events together; each call to :meth:`take` says whether to go on."""

    def __init__(self, found: Findings) -> None:
        self._found = found
        self._open: list[Table | Items] = []
        self._keys: list[Scalar | None] = []
        self._unusable_key = Scalar("", False, 0, 0, 0)  # noqa: FBT003 - nowhere
        self._nodes = 0
        self._documents = 0
        self._skipped = 0
        self.root: Node | None = None
        self.damaged: set[Path] = set()
        self.stopped = False

    def take(self, event: yaml.Event) -> bool:
        if isinstance(event, yaml.DocumentStartEvent):
            return self._start_document(event)
        if isinstance(event, yaml.CollectionEndEvent):
            self._end()
        elif isinstance(event, yaml.NodeEvent):
            self._nodes += 1
            if self._nodes > MOST_NODES:
                return self._stop(
                    "too-large",
                    f"there are more than {MOST_NODES} keys and values",
                    event,
                    "routes of one promise can be one route: `match` takes a list",
                )
            self._check_properties(event)
            if isinstance(event, yaml.ScalarEvent):
                self._add_scalar(event)
            elif isinstance(event, yaml.CollectionStartEvent):
                return self._start(event)
            else:
                self._drop_value()
        return True

    def _start_document(self, event: yaml.DocumentStartEvent) -> bool:
        self._documents += 1
        if self._documents > 1:
            return self._stop(
                "several-documents", "a second YAML document starts here", event, "keep one"
            )
        return True

    def _start(self, event: yaml.CollectionStartEvent) -> bool:
        if len(self._open) + self._skipped >= DEEPEST:
            return self._stop("too-deep", f"this is nested more than {DEEPEST} deep", event)
        if self._skipped or self._expects_key():
            if not self._skipped:
                self._report("bad-key", "a key is one word, not a structure", event)
                self.damaged.add(self._path())
            self._skipped += 1
            return True
        node: Table | Items
        node = (
            Table(_span(event))
            if isinstance(event, yaml.MappingStartEvent)
            else Items(_span(event))
        )
        self._open.append(node)
        self._keys.append(None)
        return True

    def _end(self) -> None:
        if self._skipped:
            self._skipped -= 1
            if not self._skipped:
                self._keys[-1] = self._unusable_key
            return
        node = self._open.pop()
        self._keys.pop()
        self._add(node)

    def _add_scalar(self, event: yaml.ScalarEvent) -> None:
        if self._skipped:
            return
        scalar = Scalar(event.value, not event.style, *_place(event))
        if self._expects_key():
            self._keys[-1] = self._checked_key(scalar)
        else:
            self._add(scalar)

    def _expects_key(self) -> bool:
        return bool(self._open) and isinstance(self._open[-1], Table) and self._keys[-1] is None

    def _checked_key(self, key: Scalar) -> Scalar:
        if key.plain and key.text == "<<":
            self._found.report(
                "merge-key",
                "merge keys are not used here",
                "write the entries out; routes inherit `stages`, environments lie over the file",
                at=key.span,
            )
        elif key.plain and (kind := taken_for(key.text)):
            self._found.report(
                "yaml-trap",
                f"the key {shown(key.text)} is read as {kind} by YAML",
                "choose another name" if key.is_null else f'write "{key.text}" or another name',
                at=key.span,
            )
        else:
            return key
        self.damaged.add((*self._path(), key.text))
        return self._unusable_key

    def _add(self, node: Node) -> None:
        if not self._open:
            self.root = node
            return
        parent = self._open[-1]
        if isinstance(parent, Items):
            parent.nodes.append(node)
            return
        key = self._keys[-1]
        self._keys[-1] = None
        if key is None or key is self._unusable_key:
            return
        if first := parent.entries.get(key.text):
            self.damaged.add((*self._path(), key.text))
            self._found.report(
                "duplicate-key",
                f"the key {shown(key.text)} is here twice",
                f"the first is on line {first.key.span.line}; keep one",
                at=key.span,
            )
            return
        parent.entries[key.text] = Entry(key, node)

    def _drop_value(self) -> None:
        """Leave out an alias, and the entry it is part of."""
        if not self._open:
            self.stopped = True
        elif self._skipped:
            return
        elif self._expects_key():
            self.damaged.add(self._path())
            self._keys[-1] = self._unusable_key
        else:
            self.damaged.add(self._path())
            self._keys[-1] = None

    def _path(self) -> Path:
        """Return the path of what is being read."""
        parts: list[str | int] = []
        for node, key in zip(self._open, self._keys, strict=True):
            if isinstance(node, Items):
                parts.append(len(node.nodes))
            elif key is not None:
                parts.append(key.text)
        return tuple(parts)

    def _check_properties(self, event: yaml.NodeEvent) -> None:
        anchor = event.anchor or ""
        if isinstance(event, yaml.AliasEvent):
            hint = 'write the value out; text that starts with * needs quotes, as in "* /path"'
            message = f"aliases such as {shown('*' + anchor)} are not used here"
            self._report("alias", message, event, hint)
        elif anchor:
            message = f"anchors such as {shown('&' + anchor)} are not used here"
            self._report("alias", message, event, "remove it, and write the value where it is used")
        if getattr(event, "tag", None) is not None:
            self._report("tag", "YAML tags are not used here", event, "remove the tag")

    def _report(self, code: str, message: str, event: yaml.Event, hint: str = "") -> None:
        self._found.report(code, message, hint, at=_span(event))

    def _stop(self, code: str, message: str, event: yaml.Event, hint: str = "") -> bool:
        self._report(code, message, event, hint)
        self.stopped = True
        return False


def _span(event: yaml.Event) -> Span:
    return Span(*_place(event))


def _place(event: yaml.Event) -> tuple[int, int, int]:
    """Return the line, the column and the length of what *event* is about."""
    start, end = event.start_mark, event.end_mark
    if start is None or end is None:
        return 0, 0, 0
    length = end.column - start.column if end.line == start.line else 1
    return start.line + 1, start.column + 1, max(length, 1)
