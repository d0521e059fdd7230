"""How many steps does a regular expression take? Counted, by going the way Python's own does.

A pattern becomes a small program, which is run with a stack of the ways not yet tried. What it
matches is what ``re`` matches; the number of its steps grows as the time of ``re`` does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from itertools import takewhile
from typing import Any

_parse: Callable[[str, int], Any] = import_module("re._parser").parse

_CATEGORIES: dict[str, Callable[[str], bool]] = {
    "CATEGORY_DIGIT": str.isdigit,
    "CATEGORY_NOT_DIGIT": lambda one: not one.isdigit(),
    "CATEGORY_SPACE": str.isspace,
    "CATEGORY_NOT_SPACE": lambda one: not one.isspace(),
    "CATEGORY_WORD": lambda one: one.isalnum() or one == "_",
    "CATEGORY_NOT_WORD": lambda one: not (one.isalnum() or one == "_"),
}


@dataclass
class Steps:
    """A pattern and what was counted of it."""

    pattern: re.Pattern[str]
    count: int = 0
    _program: list[tuple[Any, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._add(_parse(self.pattern.pattern, self.pattern.flags))
        self._program.append(("end",))

    def match(self, text: str, start: int = 0, *, whole: bool = False) -> bool:
        """Tell whether the pattern matches *text* from *start* on, to its end if *whole*."""
        return self._run(0, text, start, whole=whole) is not None

    def match_everywhere(self, text: str) -> None:
        """Find all that matches in *text*, one after the other."""
        start = 0
        while start <= len(text):
            end = self._run(0, text, start)
            start = start + 1 if end is None else max(end, start + 1)

    def _run(self, at: int, text: str, place: int, *, whole: bool = False) -> int | None:
        """Return where a match from *place* on ends, by the program that begins at *at*."""
        untried = [(at, place)]
        while untried:
            at, place = untried.pop()
            while True:
                self.count += 1
                kind, *rest = self._program[at]
                if kind == "end":
                    if not whole or place == len(text):
                        return place
                    break
                if kind == "one":
                    reached = place + 1 if place < len(text) and rest[0](text[place]) else None
                elif kind == "either":
                    untried.append((rest[1], place))
                    reached = place
                else:
                    reached = self._aside(kind, rest, at, text, place)
                if reached is None:
                    break
                at, place = at + 1 if kind in {"one", "if"} else rest[0], reached
        return None

    def _aside(self, kind: str, rest: list[Any], at: int, text: str, place: int) -> int | None:
        """Return where to go on, after what takes no character or is tried by itself."""
        if kind == "to":
            return place
        if kind == "if":
            return place if rest[0](text, place) else None
        end = self._run(at + 1, text, place)
        if (end is None) is rest[1]:
            return None
        return end if kind == "keep" else place

    def _add(self, parts: Iterable[tuple[Any, Any]]) -> None:
        for code, value in parts:
            name = str(code)
            if name in {"MAX_REPEAT", "MIN_REPEAT"}:
                self._repeat(*value, lazy=name == "MIN_REPEAT")
            elif name == "POSSESSIVE_REPEAT":
                self._apart("keep", partial(self._repeat, *value, lazy=False))
            elif name == "ATOMIC_GROUP":
                self._apart("keep", partial(self._add, value))
            elif name in {"ASSERT", "ASSERT_NOT"}:
                assert value[0] == 1, "a look behind"
                self._apart("look", partial(self._add, value[1]), fails=name == "ASSERT_NOT")
            elif name == "SUBPATTERN":
                self._add(value[-1])
            elif name == "BRANCH":
                self._branch(value[1])
            elif name == "AT":
                self._program.append(("if", _at(str(value), self.pattern.flags)))
            else:
                self._program.append(("one", _one(name, value, self.pattern.flags)))

    def _repeat(self, least: int, most: int, parts: Any, *, lazy: bool) -> None:
        for _ in range(least):
            self._add(parts)
        loops = most > 1000
        starts: list[int] = []
        for _ in range(1 if loops else most - least):
            starts.append(len(self._program))
            self._program.append(())
            self._add(parts)
        if loops:
            self._program.append(("to", starts[0]))
        after = len(self._program)
        for start in starts:  # whoever has enough leaves all the rest
            self._program[start] = ("either", *((after, start + 1) if lazy else (start + 1, after)))

    def _branch(self, branches: list[Any]) -> None:
        leave: list[int] = []
        for branch in branches[:-1]:
            start = len(self._program)
            self._program.append(())
            self._add(branch)
            leave.append(len(self._program))
            self._program.append(())
            self._program[start] = ("either", start + 1, len(self._program))
        self._add(branches[-1])
        for place in leave:
            self._program[place] = ("to", len(self._program))

    def _apart(self, kind: str, add: Callable[[], None], *, fails: bool = False) -> None:
        start = len(self._program)
        self._program.append(())
        add()
        self._program.append(("end",))
        self._program[start] = (kind, len(self._program), not fails)


def beginning(pattern: re.Pattern[str]) -> str:
    """Return the characters that everything *pattern* matches begins with."""
    parts = takewhile(
        lambda part: str(part[0]) == "LITERAL", _parse(pattern.pattern, pattern.flags)
    )
    return "".join(chr(value) for _, value in parts)


def _at(name: str, flags: int) -> Callable[[str, int], bool]:
    if name in {"AT_BEGINNING", "AT_BEGINNING_STRING"}:
        lines = name == "AT_BEGINNING" and flags & re.MULTILINE
        return lambda text, place: not place or bool(lines and text[place - 1] == "\n")
    assert name in {"AT_END", "AT_END_STRING"}, name
    return lambda text, place: text[place:] in {"", "\n"}


def _one(name: str, value: Any, flags: int) -> Callable[[str], bool]:
    """Return what tells whether one character is one of those that are meant."""
    if flags & re.IGNORECASE:
        plain = _one(name, value, flags & ~re.IGNORECASE)
        return lambda one: plain(one.lower()) or plain(one.upper())
    if name == "ANY":
        return lambda one: bool(flags & re.DOTALL) or one != "\n"
    if name in {"LITERAL", "NOT_LITERAL"}:
        return lambda one: (ord(one) == value) is (name == "LITERAL")
    if name == "RANGE":
        return lambda one: value[0] <= ord(one) <= value[1]
    if name == "CATEGORY":
        return _CATEGORIES[str(value)]
    assert name == "IN", name
    negated = str(value[0][0]) == "NEGATE"
    members = [_one(str(code), inner, flags) for code, inner in value[negated:]]
    return lambda one: any(member(one) for member in members) is not negated
