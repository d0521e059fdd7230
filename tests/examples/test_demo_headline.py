"""The last screen, of made-up results."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest
from rich.console import Console

from examples.demo.checks import Check, Verdict
from examples.demo.headline import headline
from examples.demo.story import Row

PICTURE = Path(__file__).parents[2] / "docs" / "demo.svg"
COLUMNS, LINES = 80, 24
HOLDS, BROKEN = Check("it is so"), Check("it is so", ("it is not",))
FINE = Verdict([HOLDS] * 14, [], [])


def _row(
    tier: str,
    requests: int,
    late: int,
    smaller: Mapping[str, int] | None = None,
    limit_s: float = 1,
) -> Row:
    found = Counter(smaller or {})
    full = requests - late - found.total()
    return Row(("signals", tier), limit_s, requests, full, found.total(), 0, late, found, 0.01)


def _shown(
    *rows: tuple[Row, Row], verdict: Verdict = FINE, late_timers: float = 0.0, width: int = COLUMNS
) -> list[str]:
    console = Console(file=io.StringIO(), width=width, record=True)
    observed, enforced = zip(*rows, strict=True)
    console.print(
        headline({"observe": observed, "enforce": enforced}, verdict, late_timers), highlight=False
    )
    return [line.rstrip() for line in console.export_text().splitlines()]


FREE = (_row("free", 251, 78), _row("free", 251, 1, {"static": 30, "cached": 40}))
PRO = (_row("pro", 99, 0, limit_s=0.1), _row("pro", 99, 0, limit_s=0.1))
LONG = {"cached": 1_234, "fallback": 1_345, "partial": 1_456}
ENTERPRISE = (
    _row("enterprise", 12_345, 4_000, limit_s=0.03),
    _row("enterprise", 12_345, 3_000, LONG, limit_s=0.03),
)


def test_what_happened_is_what_is_shown() -> None:
    """Each figure is one of the results, in the table and in the sentence about the tier."""
    lines = _shown(FREE, PRO)

    assert [line.split() for line in lines if re.search("observe |enforce ", line)] == [
        ["pro", "100ms", "observe", "99", "0", "0"],
        ["enforce", "99", "0", "0"],
        ["free", "1s", "observe", "251", "78", "0"],
        ["enforce", "251", "1", "70", "40", "cached,", "30", "static"],
    ]
    assert "free: 31 % late before, 0.4 % with budgetware; 28 % cached or static." in lines
    assert "pro: 0 % late before, 0 % with budgetware; every answer a full one." in lines
    assert lines[-2:] == ["", "✓ All 14 checks hold.  More: make demo ARGS=--details"]


def test_a_few_are_not_rounded_away() -> None:
    """One of a thousand is more than none, and all but one are not all."""
    lines = _shown((_row("pro", 1000, 999), _row("pro", 1000, 1)))

    assert "pro: 99.9 % late before, 0.1 % with budgetware; every answer a full one." in lines


@pytest.mark.parametrize("width", [COLUMNS, 200])
def test_it_fits_the_last_screen_of_a_terminal(width: int) -> None:
    """Even with long figures and a bad end, and a line is left for the prompt."""
    verdict = Verdict([HOLDS] * 10, [BROKEN] * 2, [BROKEN] * 2)
    lines = _shown(
        ENTERPRISE,
        (_row("pro", 12_345, 4_000), _row("pro", 12_345, 3_000, LONG)),
        FREE,
        verdict=verdict,
        late_timers=0.994,
        width=width,
    )

    assert max(map(len, lines)) <= COLUMNS
    assert len(lines) < LINES


@pytest.mark.parametrize(
    ("excused", "named"),
    [
        (2, "This machine is too busy to judge lateness: 31 % of timers were over 3 ms late."),
        (0, "This machine is busy: 31 % of timers were over 3 ms late."),
    ],
)
def test_a_busy_machine_is_named(excused: int, named: str) -> None:
    """What it excuses is said, in one sentence, beside what holds all the same."""
    verdict = Verdict([HOLDS] * 12, [BROKEN] * excused, [])

    sentence, last = _shown(FREE, verdict=verdict, late_timers=0.31)[-2:]
    assert sentence == named
    assert last.startswith(f"✓ {'The other' if excused else 'All'} 12 checks hold.")


def test_a_failure_is_named_on_any_machine() -> None:
    """The last line says that the figures are not to be believed, and where it says why."""
    for excused in ([], [BROKEN]):
        verdict = Verdict([HOLDS] * 3, excused, [BROKEN])

        last = _shown(FREE, verdict=verdict, late_timers=0.31)[-1]
        assert last == f"✗ 1 of {4 + len(excused)} checks failed, see above."


def test_the_picture_is_of_a_headline() -> None:
    """What the README shows is what the demo ends with today, but for the figures."""
    lines = defaultdict[str, str](str)
    for text in ET.parse(PICTURE).iter("{http://www.w3.org/2000/svg}text"):
        if text.get("class") != "demo-title":
            lines[text.attrib["y"]] += text.text or ""
    # Where nothing is written, nothing is drawn.
    drawn, shown = (["".join(line.split()) for line in of] for of in (lines.values(), _shown(FREE)))

    assert len(drawn) < LINES
    assert drawn[:3] == shown[:3]
    assert drawn[-1].partition("More")[1:] == shown[-1].partition("More")[1:]
    for tier in ("enterprise", "pro", "free"):
        assert any(re.match(rf"{tier}:.*latebefore,.*withbudgetware;", line) for line in drawn)
