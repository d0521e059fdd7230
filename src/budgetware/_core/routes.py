"""Which route does a request belong to? Answered from the policy's templates, before routing.

A template is made of literal segments, ``{name}`` for exactly one segment, and ``{name:path}``
or a closing ``/**`` for the rest. The most specific template wins whatever the order in the
file: segment by segment, a literal before a parameter before the rest. One trailing slash is
ignored on both sides. Only what the policy lists can come out, so labels are bounded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from budgetware._core.policy import Match

T = TypeVar("T")

ANY_METHOD = "*"

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

    Attributes:
        literal: Values by path and method, of the templates that are nothing but literals.

    """

    def __init__(self, entries: Iterable[tuple[Match, T]]) -> None:
        # Of equal shapes, a method's own come first, and GET's before anybody's for HEAD.
        ranked = sorted(_ranked(entries), key=lambda entry: entry[:2])
        self.literal: dict[str, dict[str, T]] = {}
        patterned: dict[str, list[tuple[Shape, T]]] = {}
        for segments, _, method, value in ranked:
            if all(rank == _LITERAL for rank, _ in segments):
                path = "/" + "/".join(text for _, text in segments)
                self.literal.setdefault(path, {}).setdefault(method, value)
            else:
                patterned.setdefault(method, []).append((segments, value))
        every = patterned.get(ANY_METHOD, [])
        # Compiling is what takes time: HEAD mostly has the very alternatives of GET.
        shared = patterned.get("HEAD") == patterned.get("GET")
        self._patterned: dict[str, _Alternatives[T]] = {
            method: _Alternatives(sorted([*mine, *every], key=lambda entry: entry[0]))
            for method, mine in patterned.items()
            if method != ANY_METHOD and not (shared and method == "HEAD")
        }
        self._any_patterned: _Alternatives[T] = _Alternatives(every)
        if shared and "GET" in self._patterned:
            self._patterned["HEAD"] = self._patterned["GET"]

    def find(self, method: str, path: str) -> T | None:
        """Return the value for *method* and *path*, ``None`` when no template matches.

        HEAD is answered by GET's templates as by its own, which come first where both are equally
        specific.
        """
        methods = self.literal.get(path)
        if methods is None and path[-1:] == "/" and path.strip("/"):
            path = path[:-1]
            methods = self.literal.get(path)
        if methods is not None:
            value = methods.get(method)
            if value is None:
                value = methods.get(ANY_METHOD)
            if value is not None:
                return value
        return self._patterned.get(method, self._any_patterned).find(path)


def _ranked(entries: Iterable[tuple[Match, T]]) -> Iterable[tuple[Shape, int, str, T]]:
    for match, value in entries:
        segments = shape(match.template)
        yield segments, 2 if match.method == ANY_METHOD else 0, match.method, value
        if match.method == "GET":
            yield segments, 1, "HEAD", value


class _Alternatives(Generic[T]):
    """One regular expression over several templates, most specific first."""

    def __init__(self, entries: list[tuple[Shape, T]]) -> None:
        self._values = {f"r{index}": value for index, (_, value) in enumerate(entries)}
        source = "|".join(
            f"(?P<r{index}>{_pattern(segments)})" for index, (segments, _) in enumerate(entries)
        )
        self._match: Callable[[str], re.Match[str] | None] | None = (
            re.compile(source, re.DOTALL).fullmatch if entries else None
        )

    def find(self, path: str) -> T | None:
        if self._match is None:
            return None
        found = self._match(path)
        return None if found is None else self._values[found.lastgroup or ""]


def _segments(template: str) -> list[str]:
    trimmed = template[1:].removesuffix("/")
    return trimmed.split("/") if trimmed else []


def _pattern(segments: Shape) -> str:
    parts = {_ONE: "/[^/]+", _MANY: "(?:/.*)?"}
    return "".join(parts.get(rank) or "/" + re.escape(text) for rank, text in segments) or "/"
