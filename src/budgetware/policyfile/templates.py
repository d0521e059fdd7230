"""Is this a request a route can match? Reads ``GET /signals/{symbol}``.

Says in the reader's own notation what is wrong with templates written for other routers.
"""

from __future__ import annotations

import re
from typing import Final

from budgetware._core.policy import Match
from budgetware._core.routes import ANY_METHOD, shape
from budgetware.policyfile.findings import FieldError, suggestion
from budgetware.units import shown

METHODS: Final = (
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    ANY_METHOD,
)
LONGEST: Final = 512

_NAME: Final = r"[A-Za-z_][A-Za-z0-9_]*"
_PARAMETER: Final = re.compile(rf"\{{({_NAME})(:path)?\}}")
_URL: Final = re.compile(r"https?://[^/]*", re.IGNORECASE)
_FLASK: Final = re.compile(r"<(?:([a-z]+)(?:\([^)]*\))?:)?([A-Za-z_][A-Za-z0-9_]*)>")
_EXPRESS: Final = re.compile(rf":({_NAME})\??")
_CONVERTER: Final = re.compile(rf"\{{({_NAME}):[^}}]*\}}")
_SEPARATOR: Final = re.compile(r"[,|]")
_REGEX: Final = re.compile(r"[\^$\\()\[\]|+]|\.\*")

MATCH_PATTERN: Final = rf"^({'|'.join(METHODS[:-1])}|\*) /.*$"


def parse_match(text: str) -> Match:
    """Return the method and template of ``GET /signals/{symbol}``.

    Raises:
        FieldError: The method or the template cannot match any request, or is another notation.

    """
    if len(text) > LONGEST:
        raise _wrong(f"{shown(text)} is too long", f"at most {LONGEST} characters")
    method, _, template = text.partition(" ")
    if text.startswith("/") or _URL.match(text):
        raise _wrong(f"{shown(text)} names no method", f'write "GET {text}", or "* {text}" for any')
    _check_method(method, template)
    if not template:
        raise _wrong(f"{shown(text)} names no path", f'write "{method} /path"')
    _check_template(method, template)
    return Match(method, template)


def _wrong(message: str, hint: str = "") -> FieldError:
    return FieldError(message, hint, "bad-match")


def _check_method(method: str, template: str) -> None:
    if method in METHODS:
        return
    if method.upper() in METHODS:
        raise _wrong(f"the method {shown(method)} is not upper case", f"write {method.upper()}")
    several = [name.upper() for name in _SEPARATOR.split(method) if name]
    if len(several) > 1:
        entries = ", ".join(f'"{name} {template}"' for name in several)
        raise _wrong(f"{shown(method)} is not one method", f"write a list: [{entries}]")
    if method.upper() in {"ANY", "ALL"}:
        raise _wrong(f"unknown method {shown(method)}", f'write "* {template}" for any method')
    raise _wrong(f"unknown method {shown(method)}", suggestion(method, METHODS, "methods"))


def _check_template(method: str, template: str) -> None:
    if url := _URL.match(template):
        path = template[url.end() :] or "/"
        raise _wrong("a template has no scheme and no host", f'write "{method} {path}"')
    for character, part in (("?", "query string"), ("#", "fragment")):
        path, separator, _ = template.partition(character)
        if separator and ":" not in path.rpartition("/")[2]:
            raise _wrong(f"the {part} is no part of the path", f'write "{method} {path}"')
    if any(character.isspace() for character in template):
        raise _wrong(f"{shown(template)} is not one path", "write one request per list entry")
    if not template.startswith("/"):
        raise _wrong(f"{shown(template)} does not start with a slash", f"write /{template}")
    segments = template[1:].removesuffix("/").split("/") if template != "/" else []
    names: set[str] = set()
    for index, segment in enumerate(segments):
        _check_segment(segment, last=index == len(segments) - 1)
        if found := _PARAMETER.fullmatch(segment):
            if found[1] in names:
                raise _wrong(f"the parameter {shown(found[1])} is here twice", "name them apart")
            names.add(found[1])
    try:
        shape(template)
    except ValueError as error:
        raise _wrong(str(error)) from None


def _check_segment(segment: str, *, last: bool) -> None:
    parameter = _PARAMETER.fullmatch(segment)
    if not segment:
        raise _wrong("the template has an empty segment: `//`", "write one slash")
    if segment == "**" or (parameter and parameter[2]):
        if not last:
            raise _wrong(f"{shown(segment)} is the rest of the path", "nothing may follow it")
    elif not parameter:
        _check_literal(segment, last=last)


def _check_literal(segment: str, *, last: bool) -> None:
    if flask := _FLASK.search(segment):
        rest = ":path" if flask[1] == "path" else ""
        hint = f"write {{{flask[2]}{rest}}}"
        raise _wrong(f"{shown(flask[0])} is how Flask and Django write a parameter", hint)
    if express := _EXPRESS.fullmatch(segment):
        raise _wrong(f"{shown(segment)} is not a parameter here", f"write {{{express[1]}}}")
    if converter := _CONVERTER.search(segment):
        hint = f"write {{{converter[1]}}}, or {{{converter[1]}:path}} for the rest of the path"
        raise _wrong(f"{shown(segment)} has a converter", hint)
    if segment == "*":
        hint = "write ** for the rest of the path" if last else "write {name} for one segment"
        raise _wrong("`*` is not a segment", hint)
    if "{" in segment or "}" in segment:
        hint = "write {name}; a parameter is a whole segment"
        raise _wrong(f"{shown(segment)} is neither text nor a parameter", hint)
    if _REGEX.search(segment):
        hint = "write {name} for one segment, ** for the rest"
        raise _wrong(f"{shown(segment)} looks like a regular expression", hint)
    if re.search("%[0-9A-Fa-f]{2}", segment):
        raise _wrong(f"{shown(segment)} is percent-encoded", "write the character itself")
