"""Text such as ``30ms``, ``80%``, ``10/s`` and ``200KB``, to and from plain numbers.

Durations are seconds, shares are fractions of one, rates are per second, sizes are bytes.
A unit is never implied: whatever has none is refused with what was probably meant.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Final

from budgetware.errors import BudgetwareError

LONGEST_REQUEST_S: Final = 24 * 3600.0
"""The longest budget of a request, in seconds."""

LONGEST_S: Final = 30 * LONGEST_REQUEST_S
"""The longest duration at all, in seconds: a job that runs for a month."""

LARGEST_BYTES: Final = 10**15

_DURATIONS: Final = {
    "us": Decimal("0.000001"),
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
}
_RATES: Final = {"s": 1, "m": 60, "h": 3600}
_SIZES: Final = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}

# How units are written elsewhere, and what they are called here.
_DURATION_ALIASES: Final = {
    "us": "us µs μs usec usecs microsecond microseconds",
    "ms": "ms msec msecs millis millisecond milliseconds",
    "s": "s sec secs second seconds",
    "m": "m min mins minute minutes",
    "h": "h hr hrs hour hours",
}
_SIZE_ALIASES: Final = {
    "B": "byte bytes",
    "KB": "k kilobyte kilobytes",
    "MB": "m mega megabyte megabytes",
    "GB": "g giga gigabyte gigabytes",
    "TB": "t tera terabyte terabytes",
}
_SPELLINGS: Final = {
    alias: unit for unit, aliases in _DURATION_ALIASES.items() for alias in aliases.split()
}
_SIZE_SPELLINGS: Final = {unit.lower(): unit for unit in _SIZES} | {
    alias: unit for unit, aliases in _SIZE_ALIASES.items() for alias in aliases.split()
}

_NUMBER: Final = r"(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,12})?"
_DURATION: Final = re.compile(rf"({_NUMBER})(us|ms|s|m|h)")
_PERCENT: Final = re.compile(rf"({_NUMBER})%")
_RATE: Final = re.compile(rf"({_NUMBER})/([smh])")
_SIZE: Final = re.compile(rf"({_NUMBER})(B|[KMGT]i?B)")

DURATION_PATTERN: Final = rf"^{_NUMBER}(us|ms|s|m|h)$"
PERCENT_PATTERN: Final = rf"^{_NUMBER}%$"
RATE_PATTERN: Final = rf"^{_NUMBER}/[smh]$"
SIZE_PATTERN: Final = rf"^{_NUMBER}(B|[KMGT]i?B)$"

# Anything a person may have meant as a number, followed by anything meant as a unit.
_LOOSE: Final = re.compile(r"[<>=~≤]{0,2}\s*([0-9][0-9_.,]{0,20}|\.[0-9]{1,20})\s*+(.{0,14}?)\s*")
_SEXAGESIMAL: Final = re.compile(r"([0-9]{1,4}):([0-5][0-9])")
_COMPOUND: Final = re.compile(r"(?:[0-9]{1,6}(?:us|ms|s|m|h)){2,5}")
_PART: Final = re.compile(r"([0-9]+)(us|ms|s|m|h)")
_NOT_FINITE: Final = re.compile(r"[-+]?\.?(?:nan|inf|infinity)", re.IGNORECASE)
_SHOWN: Final = 40

_MINUTE: Final = Decimal(60)


class UnitError(BudgetwareError, ValueError):
    """A quantity that cannot be read.

    Attributes:
        message: What is wrong, with the offending text.
        hint: What would be right.
        code: ``missing-unit``, ``bad-quantity`` or ``out-of-range``.

    """

    def __init__(self, message: str, hint: str, code: str = "bad-quantity") -> None:
        self.message = message
        self.hint = hint
        self.code = code
        super().__init__(f"{message}; {hint}" if hint else message)


def shown(text: str) -> str:
    """Return *text* as a message quotes it: in backticks, on one line, cut when it is long."""
    visible = "".join(
        character if character.isprintable() else repr(character)[1:-1]
        for character in text[:_SHOWN]
    )
    return f"`{visible}`" if len(text) <= _SHOWN else f"`{visible}...`"


def parse_duration(text: str, *, zero: bool = False, longest_s: float = LONGEST_S) -> float:
    """Return the seconds of a duration such as ``250us``, ``5ms``, ``1.5s``, ``2m`` or ``1h``.

    Raises:
        UnitError: It is no duration, zero unless *zero*, or longer than *longest_s*.

    """
    found = _DURATION.fullmatch(text)
    if found is None:
        raise _no_duration(text)
    seconds = float(Decimal(found[1]) * _DURATIONS[found[2]])
    if seconds == 0 and not zero:
        raise UnitError(f"{shown(text)} leaves no time at all", "", "out-of-range")
    if seconds > longest_s:
        raise UnitError(
            f"{shown(text)} is too long",
            f"at most {format_duration(longest_s)}",
            "out-of-range",
        )
    return seconds


def parse_percent(text: str, *, zero: bool = False, most: float = 1.0) -> float:
    """Return the fraction of a percentage: ``80%`` is 0.8.

    Raises:
        UnitError: It is no percentage, zero unless *zero*, or more than *most* (a fraction).

    """
    found = _PERCENT.fullmatch(text)
    if found is None:
        raise _no_percent(text)
    share = float(Decimal(found[1]) / 100)
    if share > most:
        raise UnitError(
            f"{shown(text)} is too much",
            f"at most {format_percent(most)}",
            "out-of-range",
        )
    if share == 0 and not zero:
        raise UnitError(f"{shown(text)} is nothing", "more than 0%", "out-of-range")
    return share


def parse_rate(text: str) -> float:
    """Return the rate per second of ``10/s``, ``600/m`` or ``1000/h``.

    Raises:
        UnitError: It is no rate, or zero.

    """
    found = _RATE.fullmatch(text)
    if found is None:
        raise _no_rate(text)
    rate = float(Decimal(found[1]) / _RATES[found[2]])
    if rate == 0:
        raise UnitError(f"{shown(text)} lets nothing through", "", "out-of-range")
    return rate


def parse_size(text: str) -> int:
    """Return the bytes of ``200KB`` (1000 each) or ``10MiB`` (1024 each).

    Raises:
        UnitError: It is no size, not a whole number of bytes, zero, or over a petabyte.

    """
    found = _SIZE.fullmatch(text)
    if found is None:
        raise _no_size(text)
    exact = Decimal(found[1]) * _SIZES[found[2]]
    if exact != int(exact) or not 0 < exact <= LARGEST_BYTES:
        raise UnitError(
            f"{shown(text)} is no size anything can have",
            "whole bytes, from 1B to 1000TB",
            "out-of-range",
        )
    return int(exact)


def format_duration(seconds: float, *, digits: int = 12) -> str:
    """Return *seconds* in the unit a person would use: ``30ms``, ``1.5s``, ``90s``, ``5m``.

    *digits* is how many significant digits are kept; whatever was parsed comes back the same.

    Raises:
        ValueError: *seconds* is not finite.

    """
    exact = _rounded(seconds, digits)
    size = abs(exact)
    if size >= _MINUTE:
        unit = next((unit for unit in ("h", "m") if size % _DURATIONS[unit] == 0), "s")
    elif size == 0:
        unit = "s"
    else:
        unit = next((unit for unit in ("s", "ms") if size >= _DURATIONS[unit]), "us")
    return _plain(exact / _DURATIONS[unit]) + unit


def format_percent(share: float, *, digits: int = 12) -> str:
    """Return a fraction as a percentage: 0.999 is ``99.9%``.

    Raises:
        ValueError: *share* is not finite.

    """
    return _plain(_rounded(share, digits) * 100) + "%"


def format_rate(per_second: float) -> str:
    """Return a rate per second in the unit that makes it a whole number: ``10/s``, ``1/m``.

    Raises:
        ValueError: *per_second* is not finite.

    """
    for unit, seconds in _RATES.items():
        exact = _rounded(per_second * seconds, 12)
        if exact == exact.to_integral_value():
            return f"{_plain(exact)}/{unit}"
    return f"{_plain(_rounded(per_second, 12))}/s"


def format_size(size: int) -> str:
    """Return bytes in the unit that says it shortest: ``200KB``, ``10MiB``."""
    texts = [_plain(Decimal(size) / factor) + unit for unit, factor in _SIZES.items()]
    return min((text for text in texts if _SIZE.fullmatch(text)), key=len)


def _rounded(number: float, digits: int) -> Decimal:
    if not math.isfinite(number):
        raise ValueError(f"{number} has no unit to be written in")
    return Decimal(f"{number:.{digits - 1}e}")


def _plain(number: Decimal) -> str:
    text = f"{number:f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _no_duration(text: str) -> UnitError:
    if reason := _never_a_number(text):
        return UnitError(reason, "write a duration such as 30ms")
    number, unit = _loose(text)
    if number is None:
        return _clock_or_compound(text)
    if not unit:
        return UnitError(
            f"{shown(text)} has no unit",
            f"did you mean {number}ms or {number}s?",
            "missing-unit",
        )
    if meant := _SPELLINGS.get(unit) or _SPELLINGS.get(unit.lower()):
        return UnitError(f"{shown(text)} is not written as a duration", f"write {number}{meant}")
    if unit in {"ns", "d", "day", "days"}:
        factor = Decimal("1e-9") if unit == "ns" else Decimal(86400)
        meant = format_duration(float(Decimal(number) * factor))
        return UnitError(f"{shown(text)} has an unknown unit", f"write {meant}")
    return _clock_or_compound(text)


def _clock_or_compound(text: str) -> UnitError:
    if text.endswith("%"):
        return UnitError(f"{shown(text)} is a share of what?", "write a duration such as 30ms")
    if clock := _SEXAGESIMAL.fullmatch(text):
        total = int(clock[1]) * 60 + int(clock[2])
        return UnitError(f"{shown(text)} is not a duration", f"did you mean {total}s or {total}m?")
    if _COMPOUND.fullmatch(text):
        parts = _PART.findall(text)
        total_s = float(sum(Decimal(number) * _DURATIONS[unit] for number, unit in parts))
        return UnitError(f"{shown(text)} mixes units", f"write {format_duration(total_s)}")
    return UnitError(
        f"{shown(text)} is not a duration", "write one such as 30ms; the units are us, ms, s, m, h"
    )


def _no_percent(text: str) -> UnitError:
    if reason := _never_a_number(text):
        return UnitError(reason, "write a percentage such as 80%")
    number, unit = _loose(text)
    if number is None:
        return UnitError(f"{shown(text)} is not a percentage", "write one such as 80% or 0.1%")
    if not unit and 0 < Decimal(number) <= 1:
        share = format_percent(float(number))
        return UnitError(
            f"{shown(text)} has no unit", f"did you mean {share} or {number}%?", "missing-unit"
        )
    if not unit:
        return UnitError(f"{shown(text)} has no unit", f"did you mean {number}%?", "missing-unit")
    if unit in {"%", "percent", "pct"}:
        return UnitError(f"{shown(text)} is not written as a percentage", f"write {number}%")
    return UnitError(f"{shown(text)} is not a percentage", "write one such as 80% or 0.1%")


def _no_rate(text: str) -> UnitError:
    if reason := _never_a_number(text):
        return UnitError(reason, "write a rate such as 10/s")
    number, unit = _loose(text)
    if number is None:
        return UnitError(f"{shown(text)} is not a rate", "write one such as 10/s, 600/m or 1000/h")
    if not unit:
        return UnitError(
            f"{shown(text)} has no unit", f"did you mean {number}/s or {number}/m?", "missing-unit"
        )
    if unit.lower() in {"rps", "qps", "tps", "hz"}:
        return UnitError(f"{shown(text)} is not written as a rate", f"write {number}/s")
    per = unit.rpartition("/")[2].strip().lower()
    if "/" in unit and per in _SPELLINGS and _SPELLINGS[per] in _RATES:
        meant = f"{number}/{_SPELLINGS[per]}"
        return UnitError(f"{shown(text)} is not written as a rate", f"write {meant}")
    return UnitError(f"{shown(text)} is not a rate", "write one such as 10/s, 600/m or 1000/h")


def _no_size(text: str) -> UnitError:
    if reason := _never_a_number(text):
        return UnitError(reason, "write a size such as 200KB")
    number, unit = _loose(text)
    if number is None:
        return UnitError(f"{shown(text)} is not a size", "write one such as 200KB or 10MiB")
    if not unit:
        return UnitError(
            f"{shown(text)} has no unit",
            f"did you mean {number}KB or {number}MB?",
            "missing-unit",
        )
    if meant := _SIZE_SPELLINGS.get(unit.lower()):
        return UnitError(f"{shown(text)} is not written as a size", f"write {number}{meant}")
    return UnitError(f"{shown(text)} is not a size", "write one such as 200KB or 10MiB")


def _never_a_number(text: str) -> str:
    """Return why *text* is refused whatever unit was meant, or nothing."""
    if _NOT_FINITE.match(text):
        return f"{shown(text)} is not a finite number"
    if text.startswith("-"):
        return f"{shown(text)} is negative"
    if any(character.isnumeric() and not character.isascii() for character in text[:_SHOWN]):
        return f"{shown(text)} has digits other than 0 to 9"
    return ""


def _loose(text: str) -> tuple[str | None, str]:
    """Return the number and unit someone probably meant by *text*."""
    if text[:20].lower().lstrip("0123456789.").startswith("e") and (
        science := re.fullmatch(r"([0-9.]{1,10})[eE]([0-9]{1,2})(.{0,14})", text)
    ):
        try:
            return _plain(Decimal(f"{science[1]}e{science[2]}")), science[3].strip()
        except ArithmeticError:
            return None, ""
    found = _LOOSE.fullmatch(text)
    if found is None:
        return None, ""
    written = found[1].replace("_", "")
    if written.count(",") == 1 and "." not in written:
        whole, _, rest = written.partition(",")
        written = whole + rest if len(rest) == 3 else f"{whole}.{rest}"  # noqa: PLR2004 - thousands
    try:
        number = _plain(Decimal(written))
    except ArithmeticError:
        return None, ""
    return number, found[2]
