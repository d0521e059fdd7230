"""Which route does a request belong to? Answered from the policy's templates, before routing.

A template is made of literal segments, ``{name}`` for exactly one segment, and ``{name:path}``
or a closing ``/**`` for the rest. The most specific template wins whatever the order in the
file: segment by segment, a literal before a parameter before the rest. One trailing slash is
ignored on both sides. Only what the policy lists can come out, so labels are bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, Generic, TypeVar

from budgetware._core.policy import Match

T = TypeVar("T")

ANY_METHOD = "*"

LONGEST_PATH: Final = 8192
"""Characters of a path; servers take lines of up to 64 kB, and no service has such addresses."""

_PARAMETER = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*\}")
_REST = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*:path\}|\*\*")

# A segment's rank is also its place in the order of specificity.
_LITERAL, _ONE, _MANY = 0, 1, 2

Shape = tuple[tuple[int, str], ...]


def shape(template: str) -> Shape:
    """Return what *template* matches, with parameter names left out.

    Two templates of equal shape match the same paths; shapes sort most specific first.

    Raises:
        ValueError: A segment is neither a literal, ``{name}``, ``{name:path}`` nor ``**``, or
            something follows the rest.

    """
    if not template.startswith("/"):
        raise ValueError(f"the template {template!r} does not start with '/'")
    segments: list[tuple[int, str]] = []
    for text in _segments(template):
        if segments and segments[-1][0] == _MANY:
            raise ValueError(f"in {template!r} nothing may follow the rest of the path")
        if _PARAMETER.fullmatch(text):
            segments.append((_ONE, ""))
        elif _REST.fullmatch(text):
            segments.append((_MANY, ""))
        elif any(character in text for character in "{}*<>?#"):
            raise ValueError(f"the segment {text!r} of {template!r} is neither text nor {{name}}")
        else:
            segments.append((_LITERAL, text))
    return tuple(segments)


class RouteTable(Generic[T]):
    """Finds the value of the most specific template that matches a method and a path.

    The templates are a tree of segments. A look-up comes to no node of it twice, and to few of
    them: what it takes depends on the path and not on how many templates there are.

    Attributes:
        literal: Values by path and method, of the templates that are nothing but literals.

    """

    def __init__(self, entries: Iterable[tuple[Match, T]]) -> None:
        # Of equal shapes, a method's own come first, and GET's before anybody's for HEAD.
        # Sorting thousands by their shapes as well would hold every other thread up.
        ranked = sorted(_ranked(entries), key=lambda entry: entry[1])
        self.literal: dict[str, dict[str, T]] = {}
        self._root: _Node[T] = _Node()
        for segments, _, method, value in ranked:
            if all(rank == _LITERAL for rank, _ in segments):
                path = "/" + "/".join(text for _, text in segments)
                self.literal.setdefault(path, {}).setdefault(method, value)
            self._root.add(segments, method, value)

    def find(self, method: str, path: str) -> T | None:
        """Return the value for *method* and *path*, ``None`` when no template matches.

        HEAD is answered by GET's templates as by its own, which come first where both are equally
        specific. No template matches a path that is longer than ``LONGEST_PATH``.
        """
        if not path:  # is not the root, but whatever follows nothing
            return _of(self._root.rests, method)
        if path[0] != "/" or len(path) > LONGEST_PATH:
            return None
        return self._root.find(_segments(path), method)


def _ranked(entries: Iterable[tuple[Match, T]]) -> Iterable[tuple[Shape, int, str, T]]:
    for match, value in entries:
        segments = shape(match.template)
        yield segments, 2 if match.method == ANY_METHOD else 0, match.method, value
        if match.method == "GET":
            yield segments, 1, "HEAD", value


class _Node(Generic[T]):
    """What may follow so many segments.

    Attributes:
        literals: By the next segment.
        one: If that may be anything.
        ends: Values by method of the templates that end here.
        rests: Likewise of those that take whatever follows.

    """

    __slots__ = ("ends", "literals", "one", "rests")

    def __init__(self) -> None:
        self.literals: dict[str, _Node[T]] = {}
        self.one: _Node[T] | None = None
        self.ends: dict[str, T] = {}
        self.rests: dict[str, T] = {}

    def add(self, segments: Shape, method: str, value: T) -> None:
        """Add a template; the first of equal ones stays."""
        node = self
        for rank, text in segments:
            if rank == _MANY:
                node.rests.setdefault(method, value)
                return
            if rank == _LITERAL:
                node = node.literals.setdefault(text, _Node())
            else:
                node.one = node.one or _Node()
                node = node.one
        node.ends.setdefault(method, value)

    def find(self, segments: list[str], method: str) -> T | None:
        """Return the value of the most specific template for all of *segments*."""
        # Depth first: a literal before a parameter before the rest.
        pending: list[tuple[_Node[T], int, bool]] = [(self, 0, False)]
        while pending:
            node, at, is_rest = pending.pop()
            if is_rest or at == len(segments):
                found = _of(node.rests if is_rest else node.ends, method)
                if found is not None:
                    return found
                if is_rest:
                    continue
            if node.rests:
                pending.append((node, at, True))
            if at < len(segments):
                segment = segments[at]
                if node.one is not None and segment:
                    pending.append((node.one, at + 1, False))
                literal = node.literals.get(segment)
                if literal is not None:
                    pending.append((literal, at + 1, False))
        return None


def _of(values: dict[str, T], method: str) -> T | None:
    found = values.get(method)
    return values.get(ANY_METHOD) if found is None else found


def _segments(path: str) -> list[str]:
    if path == "/":
        return []
    segments = path[1:].split("/")
    if not segments[-1] and any(segments):
        segments.pop()
    return segments
