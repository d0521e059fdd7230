"""Quantities: text to numbers and back."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgetware.errors import BudgetwareError
from budgetware.units import (
    LONGEST_S,
    UnitError,
    format_duration,
    format_percent,
    format_rate,
    format_size,
    parse_duration,
    parse_percent,
    parse_rate,
    parse_size,
    shown,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250us", 0.00025),
        ("5ms", 0.005),
        ("30ms", 0.03),
        ("0.1ms", 0.0001),
        ("1.5s", 1.5),
        ("2m", 120.0),
        ("1h", 3600.0),
        ("720h", 30 * 86400.0),
    ],
)
def test_durations_are_seconds(text: str, seconds: float) -> None:
    """Every unit of a duration gives exactly the float a person would type."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("30", "`30` has no unit", "did you mean 30ms or 30s?"),
        ("1e3", "`1e3` has no unit", "did you mean 1000ms or 1000s?"),
        ("1_000", "`1_000` has no unit", "did you mean 1000ms or 1000s?"),
        ("010", "`010` has no unit", "did you mean 10ms or 10s?"),
        ("010ms", "`010ms` is not written as a duration", "write 10ms"),
        ("5 ms", "`5 ms` is not written as a duration", "write 5ms"),
        (" 5ms", "` 5ms` is not written as a duration", "write 5ms"),
        ("5ms\n", "`5ms\\n` is not written as a duration", "write 5ms"),
        ("5MS", "`5MS` is not written as a duration", "write 5ms"),
        ("5min", "`5min` is not written as a duration", "write 5m"),
        ("5sec", "`5sec` is not written as a duration", "write 5s"),
        ("5\u00b5s", "`5\u00b5s` is not written as a duration", "write 5us"),
        ("<2ms", "`<2ms` is not written as a duration", "write 2ms"),
        (".5ms", "`.5ms` is not written as a duration", "write 0.5ms"),
        ("5,5ms", "`5,5ms` is not written as a duration", "write 5.5ms"),
        ("1,000ms", "`1,000ms` is not written as a duration", "write 1000ms"),
        ("1m30s", "`1m30s` mixes units", "write 90s"),
        ("1:30", "`1:30` is not a duration", "did you mean 90s or 90m?"),
        ("2d", "`2d` has an unknown unit", "write 48h"),
        ("5ns", "`5ns` has an unknown unit", "write 0.005us"),
        ("30%", "`30%` is a share of what?", "write a duration such as 30ms"),
        ("-5ms", "`-5ms` is negative", "write a duration such as 30ms"),
        ("nan", "`nan` is not a finite number", "write a duration such as 30ms"),
        (".inf", "`.inf` is not a finite number", "write a duration such as 30ms"),
        ("-.inf", "`-.inf` is not a finite number", "write a duration such as 30ms"),
        ("0ms", "`0ms` leaves no time at all", ""),
        ("721h", "`721h` is too long", "at most 720h"),
        ("\u0663ms", "`\u0663ms` has digits other than 0 to 9", "write a duration such as 30ms"),
        ("\uff15ms", "`\uff15ms` has digits other than 0 to 9", "write a duration such as 30ms"),
        (
            "soon",
            "`soon` is not a duration",
            "write one such as 30ms; the units are us, ms, s, m, h",
        ),
        ("", "`` is not a duration", "write one such as 30ms; the units are us, ms, s, m, h"),
        (
            "1.2.3ms",
            "`1.2.3ms` is not a duration",
            "write one such as 30ms; the units are us, ms, s, m, h",
        ),
    ],
)
def test_what_is_no_duration_says_what_would_be(text: str, message: str, hint: str) -> None:
    """Every refused duration names the text and what was probably meant."""
    with pytest.raises(UnitError) as caught:
        parse_duration(text)
    assert (message, hint) == (caught.value.message, caught.value.hint)
    assert isinstance(caught.value, BudgetwareError)
    assert isinstance(caught.value, ValueError)


def test_zero_and_the_longest_duration_are_the_callers_choice() -> None:
    """A wait may be zero, and a request may not run as long as a job."""
    assert parse_duration("0s", zero=True) == 0.0
    assert parse_duration("24h", longest_s=86400.0) == 86400.0
    with pytest.raises(UnitError, match="at most 24h"):
        parse_duration("24.1h", longest_s=86400.0)


@pytest.mark.parametrize(
    ("text", "share"), [("80%", 0.8), ("0.1%", 0.001), ("99.95%", 0.9995), ("100%", 1.0)]
)
def test_percentages_are_fractions(text: str, share: float) -> None:
    """A percentage gives the fraction of one, exactly."""
    assert parse_percent(text) == share


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("80", "did you mean 80%?"),
        ("0.8", "did you mean 80% or 0.8%?"),
        ("101%", "at most 100%"),
        ("0%", "more than 0%"),
        ("5 %", "write 5%"),
        ("5 percent", "write 5%"),
        ("-1%", "negative"),
        (".nan%", "not a finite number"),
        ("most", "not a percentage"),
        ("5ms", "not a percentage"),
    ],
)
def test_what_is_no_percentage_says_what_would_be(text: str, fragment: str) -> None:
    """Every refused percentage says what would be right."""
    with pytest.raises(UnitError, match=fragment.replace("?", r"\?")):
        parse_percent(text)


@pytest.mark.parametrize(
    ("text", "rate"), [("10/s", 10.0), ("600/m", 10.0), ("36000/h", 10.0), ("0.5/s", 0.5)]
)
def test_rates_are_per_second(text: str, rate: float) -> None:
    """A rate per minute or hour gives the rate per second."""
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("10", "did you mean 10/s or 10/m?"),
        ("10rps", "write 10/s"),
        ("10/sec", "write 10/s"),
        ("10 / min", "write 10/m"),
        ("10/day", "is not a rate"),
        ("0/s", "lets nothing through"),
        ("-1/s", "negative"),
        ("fast", "is not a rate"),
    ],
)
def test_what_is_no_rate_says_what_would_be(text: str, fragment: str) -> None:
    """Every refused rate says what would be right."""
    with pytest.raises(UnitError, match=fragment.replace("?", r"\?")):
        parse_rate(text)


@pytest.mark.parametrize(
    ("text", "size"), [("200KB", 200_000), ("10MiB", 10 * 2**20), ("1.5MB", 1_500_000), ("1B", 1)]
)
def test_sizes_are_bytes(text: str, size: int) -> None:
    """KB counts thousands and KiB counts 1024s."""
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("200", "did you mean 200KB or 200MB?"),
        ("200kb", "write 200KB"),
        ("5M", "write 5MB"),
        ("3mib", "write 3MiB"),
        ("0.5B", "whole bytes"),
        ("0KB", "whole bytes"),
        ("2000TB", "whole bytes"),
        ("-1KB", "negative"),
        ("big", "is not a size"),
        ("5 parsecs", "is not a size"),
    ],
)
def test_what_is_no_size_says_what_would_be(text: str, fragment: str) -> None:
    """Every refused size says what would be right."""
    with pytest.raises(UnitError, match=fragment.replace("?", r"\?")):
        parse_size(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.03, "30ms"),
        (0.1 + 0.2, "300ms"),
        (0.0305, "30.5ms"),
        (0.99999999999999, "1s"),
        (1.5, "1.5s"),
        (14.1, "14.1s"),
        (90, "90s"),
        (300, "5m"),
        (5400, "90m"),
        (7200, "2h"),
        (3601.5, "3601.5s"),
        (1e-9, "0.001us"),
        (-0.012, "-12ms"),
        (0, "0s"),
        (-1e-30, "-0.000000000000000000000001us"),
    ],
)
def test_durations_are_written_as_people_write_them(seconds: float, text: str) -> None:
    """The unit is the one that gives a short number, without noise of floats."""
    assert format_duration(seconds) == text


def test_measured_durations_can_be_rounded() -> None:
    """Significant digits can be limited where a duration was measured."""
    assert format_duration(0.0314159265, digits=3) == "31.4ms"
    assert format_duration(59.9999, digits=3) == "1m"


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_has_no_text(number: float) -> None:
    """Nothing that is not finite is written with a unit."""
    with pytest.raises(ValueError, match="no unit"):
        format_duration(number)


def test_other_quantities_are_written_as_people_write_them() -> None:
    """Rates pick the unit that makes them whole, sizes the shortest text."""
    assert [format_rate(rate) for rate in (10.0, 1 / 60, 0.5, math.pi)] == [
        "10/s",
        "1/m",
        "30/m",
        "3.14159265359/s",
    ]
    assert [format_size(size) for size in (200_000, 10 * 2**20, 1024, 1)] == [
        "200KB",
        "10MiB",
        "1KiB",
        "1B",
    ]
    assert [format_percent(share) for share in (0.001, 0.8, 1 - 0.95)] == ["0.1%", "80%", "5%"]


NUMBERS = st.decimals(
    min_value="0.001", max_value="9999", places=3, allow_nan=False, allow_infinity=False
).map(lambda number: f"{number.normalize():f}")


@settings(max_examples=150, deadline=None)
@given(NUMBERS, st.sampled_from(["us", "ms", "s", "m"]))
def test_durations_come_back_the_same(number: str, unit: str) -> None:
    """Parsing what was formatted from a parsed duration gives the same number."""
    seconds = parse_duration(number + unit, longest_s=LONGEST_S)
    assert parse_duration(format_duration(seconds)) == seconds


@settings(max_examples=100, deadline=None)
@given(NUMBERS)
def test_rates_and_percentages_come_back_the_same(number: str) -> None:
    """Parsing what was formatted from a parsed rate or percentage gives the same number."""
    rate, share = parse_rate(f"{number}/s"), parse_percent(f"{number}%", most=1000)
    assert parse_percent(format_percent(share), most=1000) == share
    assert parse_rate(format_rate(rate)) == pytest.approx(rate, rel=1e-11)


@settings(max_examples=100, deadline=None)
@given(st.integers(min_value=1, max_value=10**15))
def test_sizes_come_back_the_same(size: int) -> None:
    """Parsing a formatted size gives the same bytes."""
    assert parse_size(format_size(size)) == size


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=30) | st.from_regex(r"[-+<]?[0-9._,: ]{0,12}[a-zA-Z%/µ ]{0,8}"))
def test_any_text_is_a_quantity_or_refused(text: str) -> None:
    """No text makes a parser do anything but return a positive number or refuse it."""
    for parse in (parse_duration, parse_percent, parse_rate, parse_size):
        try:
            number = parse(text)
        except UnitError as error:
            assert error.message  # noqa: PT017 - either way is fine, silence is not
        else:
            assert 0 < number < math.inf
            assert text.isascii()


def test_long_text_is_cut_where_it_is_shown() -> None:
    """A message never repeats more than a line of what it is about."""
    assert len(shown("x" * 1000)) < 50
    assert shown("a\nb") == "`a\\nb`"
