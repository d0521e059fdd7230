"""What a YAML parser's complaint means for the person who wrote the line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from budgetware.policyfile.findings import Span
from budgetware.policyfile.source import lines_of
from budgetware.units import shown

if TYPE_CHECKING:
    import yaml

    from budgetware.policyfile.findings import Findings

_NO_SPACE: Final = re.compile(r"\s*(?:- )?([A-Za-z_][\w.-]*):([^\s:/][^:]*)$")

# Inside brackets: the key that text may follow on its line, and `{name}` with the text behind it.
_KEY: Final = re.compile(r"""\s*(["']?[\w.-]+["']?):[ \t]+""")
_BRACES: Final = re.compile(r"(?:\{[^\s{},]*\}[^,\[\]{}]*)+")


def explain_syntax(error: yaml.MarkedYAMLError, text: str, found: Findings) -> None:
    """Report the parser's *error* about *text* in words about the text."""
    lines = lines_of(text)
    message, hint, at = _Complaint(error, lines).explain()
    found.report("syntax", message, hint, at=_within(at, lines))


def _within(at: Span, lines: list[str]) -> Span:
    """Return *at*, or the end of the text where parsers mean what is behind it."""
    line = min(at.line, len(lines))
    end = len(lines[line - 1]) + 1
    return at if line == at.line and at.column <= end else Span(line, end)


class _Complaint:
    """One parser error, with the lines it is about."""

    def __init__(self, error: yaml.MarkedYAMLError, lines: list[str]) -> None:
        self._problem = error.problem or "this cannot be read"
        self._lines = lines
        self._start = _span(error.context_mark)
        self._at = _span(error.problem_mark or error.context_mark)
        self._rules = {
            "mapping values are not allowed": self._second_colon,
            "could not find expected ':'": self._no_colon,
            "cannot start any token": self._bad_start,
            "violates indentation": self._bad_start,
            "unexpected end of stream": self._open_quote,
            "',' or '": self._open_bracket,
            "expected key": self._out_of_line,
            "expected <block end>": self._out_of_line,
            "node content": self._no_value,
            "escape character": self._bad_escape,
            "alphabetic or numeric": self._alias,
            "tag handle": self._tag,
            "document start": self._second_document,
            "sequence entries are not allowed": self._list_in_line,
            "comment or line break": self._bad_block,
            "chomping or indentation": self._bad_block,
        }

    def explain(self) -> tuple[str, str, Span]:
        for phrase, rule in self._rules.items():
            if phrase in self._problem:
                return rule()
        return f"this is not YAML: {self._problem}", "", self._at

    def _line(self, at: Span) -> str:
        return self._lines[at.line - 1] if 0 < at.line <= len(self._lines) else ""

    def _rest(self, at: Span) -> str:
        return self._line(at)[at.column - 1 :].strip()

    def _second_colon(self) -> tuple[str, str, Span]:
        before = self._line(self._at)[: self._at.column - 1]
        if re.search(":[ \t]", before):
            hint = "put the value in quotes, or write nested entries as {key: value}"
            return "a second `: ` on one line", hint, self._at
        above = self._at.line - 1
        while above > 0 and not self._lines[above - 1].partition("#")[0].strip():
            above -= 1
        previous = self._lines[above - 1] if above else ""
        if glued := self._glued(previous, above):
            return glued
        indent = len(before) - len(before.lstrip())
        expected = len(previous) - len(previous.lstrip())
        at = Span(self._at.line, indent + 1, max(len(before.strip()), 1))
        if indent > expected:
            return (
                f"this line is indented deeper than line {above}, which has a value already",
                f"indent it by {expected} spaces",
                at,
            )
        return "this line does not continue what is above it", "check the indentation", at

    def _glued(self, line: str, number: int) -> tuple[str, str, Span] | None:
        """Recognise a key whose value follows the colon without a space."""
        found = _NO_SPACE.match(line)
        if found is None:
            return None
        hint = f"write `{found[1]}: {found[2].strip()}`"
        at = Span(number, found.start(1) + 1, len(found[1]) + 1 + len(found[2].rstrip()))
        return f"there is no space after {shown(found[1] + ':')}", hint, at

    def _no_colon(self) -> tuple[str, str, Span]:
        if glued := self._glued(self._line(self._start), self._start.line):
            return glued
        word = self._rest(self._start)
        at = Span(self._start.line, self._start.column, max(len(word), 1))
        return f"{shown(word)} is neither a key nor a value", "a key ends with a colon", at

    def _bad_start(self) -> tuple[str, str, Span]:
        character = self._line(self._at)[self._at.column - 1 : self._at.column]
        if character == "\t":
            return "a tab indents this line", "indent with spaces", self._at
        return f"{shown(character)} cannot start a value", "put the value in quotes", self._at

    def _open_quote(self) -> tuple[str, str, Span]:
        return "this quote is never closed", "", self._start

    def _open_bracket(self) -> tuple[str, str, Span]:
        if unquoted := self._unquoted():
            return unquoted
        bracket = self._line(self._start)[self._start.column - 1 : self._start.column]
        if self._at.line == self._start.line:
            return "a comma or the closing bracket is missing here", "", self._at
        closing = "}" if bracket == "{" else "]"
        return f"this {shown(bracket)} is never closed", f"a {shown(closing)} ends it", self._start

    def _unquoted(self) -> tuple[str, str, Span] | None:
        """Recognise text that ends, inside brackets, at a brace of its own."""
        line, column = self._line(self._at), self._at.column - 1
        braces = _BRACES.match(line, column)
        start = 1 + max(line.rfind(sign, 0, column) for sign in ",[]{}")
        key = _KEY.match(line, start, column)
        text = line[key.end() if key else start : column].lstrip()
        if braces is None or not text or text[0] in "\"'#":
            return None
        start = column - len(text)
        value = line[start : braces.end()].rstrip()
        written = f"{key[1]}: " if key else ""
        return (
            "inside brackets, text with `{` in it needs quotes",
            f'quote it: {written}"{value}"',
            Span(self._at.line, start + 1, len(value)),
        )

    def _out_of_line(self) -> tuple[str, str, Span]:
        line = self._line(self._at)
        if line[: self._at.column - 1].strip():
            return "there is text after the end of the value", "", self._at
        if self._rest(self._at).startswith("-"):
            return "a list entry where a key is expected", "write `key: value`", self._at
        return (
            "this line's indentation fits no line above it",
            "entries of one mapping start in the same column",
            self._at,
        )

    def _no_value(self) -> tuple[str, str, Span]:
        character = self._line(self._at)[self._at.column - 1 : self._at.column]
        if not character:
            return "a value is missing here", "", self._at
        return f"{shown(character)} stands where a value is expected", "", self._at

    def _bad_escape(self) -> tuple[str, str, Span]:
        line = self._line(self._at)
        column = self._at.column
        if line[column - 1 : column] != "\\":
            column -= 1
        hint = "in single quotes a backslash is just a backslash"
        return (
            f"{shown(line[column - 1 : column + 1])} is no escape sequence",
            hint,
            Span(self._at.line, column, 2),
        )

    def _alias(self) -> tuple[str, str, Span]:
        value = self._rest(self._start)
        hint = (
            f'put the value in quotes: "{value}"'
            if len(value) < len(self._line(self._start))
            else ""
        )
        return f"an unquoted {shown(value[:1])} is special in YAML", hint, self._start

    def _tag(self) -> tuple[str, str, Span]:
        return "YAML tags are not used here", "remove the tag", self._at

    def _second_document(self) -> tuple[str, str, Span]:
        if self._at.line > 1 and self._lines[self._at.line - 2].startswith("..."):
            return "the YAML document ended above", "remove the `...`", self._at
        return "there is text after the end of the value", "", self._at

    def _list_in_line(self) -> tuple[str, str, Span]:
        return "a list cannot start on the line of its key", "write [a, b]", self._at

    def _bad_block(self) -> tuple[str, str, Span]:
        value = self._rest(self._start)
        return f"{shown(value)} does not start a block of text", "write `|` alone", self._start


def _span(mark: yaml.Mark | None) -> Span:
    return Span(1, 1) if mark is None else Span(mark.line + 1, mark.column + 1)
