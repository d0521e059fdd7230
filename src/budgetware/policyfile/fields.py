"""What one value may be: text from the file to numbers, with the rule that was broken.

Each type carries the JSON Schema that editors use, so the two cannot drift apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import partial
from typing import Annotated, Any, Final, TypeVar

from pydantic import PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from budgetware import units
from budgetware._core.policy import Amount, Clock, Match, Mode
from budgetware.policyfile.findings import FieldError, suggestion
from budgetware.policyfile.templates import MATCH_PATTERN, parse_match
from budgetware.policyfile.tree import taken_for
from budgetware.units import UnitError, shown

T = TypeVar("T")

LONGEST_NAME: Final = 64
MOST: Final = 1_000_000
LEAST_WORTH: Final = -100

NAME_PATTERN: Final = r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$"
_NAME: Final = re.compile(NAME_PATTERN)
_COUNT: Final = re.compile(r"0|[1-9][0-9]{0,8}")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,8})(?:\.[0-9]{1,9})?")
_PERCENTILE: Final = re.compile(r"p([1-9][0-9]?(?:\.[0-9]{1,4})?|0\.[0-9]{1,4})")
_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")

PERCENTILE_PATTERN: Final = r"^p([1-9][0-9]?|0)(\.[0-9]{1,4})?$"

FIELD_ERROR: Final = "field_error"
"""Pydantic's type of an error whose context is a report's code, message and hint."""

_ANSWERS: Final = ("cached", "fallback", "reject")


class Text(str):
    """A scalar's text."""

    __slots__ = ()
    plain = False


class PlainText(Text):
    """A scalar's text that was written without quotes."""

    __slots__ = ()
    plain = True


def _scalar(value: object, wanted: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        kind, hint = "a mapping", "write one value; text with `: ` in it needs quotes"
    else:
        kind, hint = "a list", "write one value, without brackets or dashes"
    raise FieldError(f"{kind} where {wanted} is expected", hint, "wrong-type")


def _reads(parse: Callable[[str], T], wanted: str, schema: dict[str, Any]) -> Any:
    """Return the annotation of a field whose scalar *parse* reads."""

    def validate(value: object) -> T:
        try:
            return parse(_scalar(value, wanted))
        except (FieldError, UnitError) as error:
            # An exception is kept with its frames, and a bad file may have thousands.
            told = {"code": error.code, "message": error.message, "hint": error.hint}
            raise PydanticCustomError(FIELD_ERROR, "{message}", told) from None

    return [PlainValidator(validate), WithJsonSchema(schema)]


def _pattern(pattern: str, *examples: str) -> dict[str, Any]:
    return {"type": "string", "pattern": pattern, "examples": list(examples)}


def _amount(text: str) -> Amount:
    if text.endswith("%"):
        return Amount(share=units.parse_percent(text))
    return Amount(seconds=units.parse_duration(text))


def _one_of(names: tuple[str, ...], text: str) -> str:
    if text in names:
        return text
    raise FieldError(
        f"{shown(text)} is not one of the choices", suggestion(text, names, "choices"), "bad-choice"
    )


def _choice(*names: str) -> Any:
    return _reads(partial(_one_of, names), "a word", {"enum": list(names)})


def _answer(text: str) -> str:
    if text == "static":
        raise FieldError(
            "`static` has no response to send",
            'write it down here, such as `static: {status: 200, body: "[]"}` as an entry',
            "bad-choice",
        )
    return _one_of(_ANSWERS, text)


def _mode(text: str) -> Mode:
    return Mode(_one_of(tuple(Mode), text))


def _clock(text: str) -> Clock:
    return Clock(_one_of(tuple(Clock), text))


def _flag(text: str) -> bool:
    if text in {"true", "false"} and getattr(text, "plain", True):
        return text == "true"
    meant = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(text.lower())
    hint = f"write {meant or text.lower()}" if meant or text.lower() in {"true", "false"} else ""
    raise FieldError(f"{shown(text)} is neither true nor false", hint or "write true or false")


def _count(text: str) -> int:
    if _COUNT.fullmatch(text) is None or not 1 <= int(text) <= MOST:
        digits = re.sub("[_,]", "", text)
        meant = f"write {int(digits)}" if re.fullmatch("0*[1-9][0-9]{,5}", digits) else ""
        raise FieldError(f"{shown(text)} is not a count", meant or f"a whole number, 1 to {MOST}")
    return int(text)


def _status(text: str) -> int:
    if re.fullmatch("[2-5][0-9][0-9]", text) is None:
        raise FieldError(f"{shown(text)} is not a response status", "from 200 to 599")
    return int(text)


def _worth(text: str) -> float:
    if _NUMBER.fullmatch(text) is None or not LEAST_WORTH <= Decimal(text) <= 1:
        raise FieldError(
            f"{shown(text)} is not what a late answer can be worth",
            f"a number from {LEAST_WORTH} to 1, where 1 is a full answer in time",
        )
    return float(text)


def _below_all(text: str, *, zero: bool, why: str) -> float:
    share = units.parse_percent(text, zero=zero)
    if share >= 1:
        raise FieldError(f"{shown(text)} {why}", "below 100%", "out-of-range")
    return share


def _version(text: str) -> int:
    if text != "1":
        raise FieldError(
            f"{shown(text)} is not a version this release reads", "write 1", "bad-version"
        )
    return 1


def _words(text: str) -> str:
    if getattr(text, "plain", False) and (kind := taken_for(text)):
        raise FieldError(f"{shown(text)} is read as {kind} by YAML", f'write "{text}"', "yaml-trap")
    return str(text)


def _service(text: str) -> str:
    if not 0 < len(_words(text)) <= LONGEST_NAME or "\n" in text:
        raise FieldError("a service name has 1 to 64 characters")
    return str(text)


def _name(text: str) -> str:
    if _NAME.fullmatch(text):
        return str(text)
    if text.startswith("_"):
        raise FieldError(
            f"the name {shown(text)} is reserved", "names that start with _ are ours", "bad-name"
        )
    raise FieldError(
        f"{shown(text)} is not a name",
        "a letter, then at most 63 letters, digits, dots, dashes or underscores",
        "bad-name",
    )


def _percentile(text: str) -> float:
    if _PERCENTILE.fullmatch(text) is None or Decimal(text[1:]) == 0:
        raise FieldError(
            f"{shown(text)} is not a percentile", "from p0.1 to p99.9999, such as p95", "bad-name"
        )
    return float(Decimal(text[1:]) / 100)


def _header_name(text: str) -> str:
    if _HEADER.fullmatch(text) is None:
        raise FieldError(f"{shown(text)} is not a header name", "", "bad-name")
    return str(text)


def _header_value(text: str) -> str:
    if not (_words(text).isprintable() and text.isascii() and text == text.strip()):
        raise FieldError(f"{shown(text)} cannot be sent as a header", "one line of ASCII text")
    return str(text)


_DURATION = _pattern(units.DURATION_PATTERN, "250us", "5ms", "1.5s", "2m")
_AMOUNT = {"anyOf": [_DURATION, _pattern(units.PERCENT_PATTERN, "30%")]}
_SHARE = _pattern(units.PERCENT_PATTERN, "99.9%", "0.1%")

Duration = Annotated[float, *_reads(units.parse_duration, "a duration", _DURATION)]
RequestDuration = Annotated[
    float,
    *_reads(
        partial(units.parse_duration, longest_s=units.LONGEST_REQUEST_S), "a duration", _DURATION
    ),
]
Wait = Annotated[float, *_reads(partial(units.parse_duration, zero=True), "a duration", _DURATION)]
AmountText = Annotated[Amount, *_reads(_amount, "a duration or a percentage", _AMOUNT)]
Share = Annotated[float, *_reads(units.parse_percent, "a percentage", _SHARE)]
ShareOrNone = Annotated[
    float, *_reads(partial(units.parse_percent, zero=True), "a percentage", _SHARE)
]
Confidence = Annotated[
    float,
    *_reads(
        partial(_below_all, zero=True, why="is surer than any forecast"), "a percentage", _SHARE
    ),
]
LateRate = Annotated[
    float,
    *_reads(
        partial(_below_all, zero=False, why="lets every answer be late"), "a percentage", _SHARE
    ),
]
Level = Annotated[float, *_reads(partial(units.parse_percent, most=10.0), "a percentage", _SHARE)]
Rate = Annotated[
    float, *_reads(units.parse_rate, "a rate", _pattern(units.RATE_PATTERN, "10/s", "600/m"))
]
Size = Annotated[
    int, *_reads(units.parse_size, "a size", _pattern(units.SIZE_PATTERN, "200KB", "10MiB"))
]
ModeText = Annotated[Mode, *_reads(_mode, "a word", {"enum": list(Mode)})]
ClockText = Annotated[Clock, *_reads(_clock, "a word", {"enum": list(Clock)})]
OnOverrun = Annotated[str, *_choice("continue", "answer")]
TimerText = Annotated[str, *_choice("safe", "unsafe")]
AnswerName = Annotated[str, *_reads(_answer, "a word", {"enum": list(_ANSWERS)})]
Flag = Annotated[bool, *_reads(_flag, "true or false", {"type": "boolean"})]
Count = Annotated[
    int, *_reads(_count, "a count", {"type": "integer", "minimum": 1, "maximum": MOST})
]
Status = Annotated[
    int, *_reads(_status, "a status", {"type": "integer", "minimum": 200, "maximum": 599})
]
Worth = Annotated[
    float, *_reads(_worth, "a number", {"type": "number", "minimum": LEAST_WORTH, "maximum": 1})
]
Version = Annotated[int, *_reads(_version, "a version", {"const": 1})]
Off = Annotated[
    None, PlainValidator(lambda _: None), WithJsonSchema({"enum": ["off", None, False]})
]
Words = Annotated[str, *_reads(_words, "text", {"type": "string"})]
Service = Annotated[
    str, *_reads(_service, "a name", {"type": "string", "minLength": 1, "maxLength": LONGEST_NAME})
]
Name = Annotated[str, *_reads(_name, "a name", _pattern(NAME_PATTERN))]
MatchText = Annotated[
    Match, *_reads(parse_match, "a method and a path", _pattern(MATCH_PATTERN, "GET /a/{id}"))
]
Percentile = Annotated[float, *_reads(_percentile, "a percentile", {"type": "string"})]
HeaderName = Annotated[str, *_reads(_header_name, "a header name", {"type": "string"})]
HeaderValue = Annotated[str, *_reads(_header_value, "text", {"type": "string"})]
