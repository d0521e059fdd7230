"""What the demo shows: an opening with addresses, and a closing with tables."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.highlighter import RegexHighlighter
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from examples.demo.checks import Check, late_share
from examples.demo.load import RATES
from examples.demo.story import Row, StageRow, Story

WIDTH = 100

_BAR = 12


class _Logfmt(RegexHighlighter):
    highlights = [  # noqa: RUF012 - rich's way
        r"(?P<key>\b\w+)=",
        r"(?:event|scope|route|tier|stage|operation|budget_level)=(?P<name>\S+)",
        r"(?:overage_ms|actual_ms)=(?P<over>\S+)",
    ]
    base_style = "log."


_STYLES = {"log.key": "bright_black", "log.name": "cyan", "log.over": "bold red"}


def short(seconds: float | None) -> str:
    """Write a duration with few digits: ``40us``, ``4.2ms``, ``42ms``, ``1.2s``."""
    if seconds is None:
        return "-"
    ms = seconds * 1000
    if abs(ms) >= 1000:
        return f"{seconds:.3g}s"
    if abs(ms) >= 9.95:
        return f"{ms:.0f}ms"
    return f"{ms:.1f}ms" if abs(ms) >= 0.1 else f"{ms * 1000:.0f}us"


def opening(address: str, seconds: float) -> RenderableType:
    """Return what is said at the start: what is going to happen, and where to look meanwhile."""
    places = Table.grid(padding=(0, 3))
    places.add_column(style="cyan")
    places.add_column(style="bright_black")
    for path, what in (
        ("/docs", "the API, to read: calls that are not the demo's are noticed"),
        ("/metrics", "what Prometheus scrapes, and where the counts below come from"),
    ):
        places.add_row(f"{address}{path}", what)
    each = seconds / 3
    return Group(
        Text.assemble(
            ("budgetware demo ", "bold"),
            f"a trading API promises 30ms to enterprise, 100ms to pro and 1s to free callers.\n"
            f"After a warm-up it is called for {seconds:.0f} s: {each:.0f} s as usual,"
            f" {each:.0f} s with a slow disk, {each:.0f} s recovered.",
        ),
        Padding(places, (1, 2)),
    )


def closing(
    story: Story,
    shown: Sequence[Row],
    stages: Sequence[StageRow],
    lines: Sequence[str],
    checks: Sequence[Check],
) -> RenderableType:
    """Return everything that is shown at the end."""
    return Group(
        _title(
            "Promises",
            "server's metrics; client's p50 to p99, p95 headroom; most over: in how many requests",
        ),
        _promises(shown),
        _title("Late answers, by tier and phase", "from the server's metrics"),
        _phases(story),
        _title("Stages, per request that had them", "from the server's metrics"),
        _stages(story, stages),
        _title("Three violations", "as the server logged them"),
        *(Padding(_line(line), (0, 1, 1, 2)) for line in lines),
        _title("Checked", "figures that came about in different ways"),
        *_verdict(checks),
    )


def styles() -> dict[str, str]:
    """Return the styles a console needs for this."""
    return dict(_STYLES)


def _title(text: str, note: str) -> RenderableType:
    title = Text.assemble((text, "bold"), (f"  {note} ", "bright_black"))
    return Rule(title, align="left", style="bright_black")


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), show_edge=False)
    for column in columns:
        name = column.removeprefix("<")
        left = column != name
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    return table


def _promises(shown: Sequence[Row]) -> RenderableType:
    table = _table(
        *("<route", "<tier", "budget", "calls", "in time", "late"),
        *("p50", "p95", "p99", "headroom", "<most over"),
    )
    for route, group in itertools.groupby(shown, key=lambda row: row.key[0]):
        found = list(group)
        for row in found:
            table.add_row(
                Text(route if row is found[0] else "", "bold"),
                row.key[1] or Text("job", "bright_black"),
                Text(short(row.limit_s), "cyan"),
                f"{row.requests:,}",
                Text(f"{row.in_time:,}", "green" if row.in_time else "bright_black"),
                _count(row.late),
                *(_against(value, row.limit_s) for value in (row.p50_s, row.p95_s, row.p99_s)),
                _headroom(row),
                "" if row.overspent is None else f"{row.overspent[0]} in {row.overspent[1]}",
                end_section=row is found[-1],
            )
    return Padding(table, (0, 0, 1, 0))


def _phases(story: Story) -> RenderableType:
    table = _table("<tier", *(f"<{phase.title}" for phase in story.phases))
    for tier in RATES:
        cells = [late_share(phase.counted, tier) for phase in story.phases]
        table.add_row(Text(tier, "bold"), *(_share(late, all_) for late, all_ in cells))
    return Padding(table, (0, 0, 1, 0))


def _stages(story: Story, stages: Sequence[StageRow]) -> RenderableType:
    table = _table(
        *("<route", "<stage", "allowed"),
        *(phase.title for phase in story.phases),
        *("over by", "violations"),
    )
    for route, group in itertools.groupby(stages, key=lambda row: row.route):
        found = list(group)
        for row in found:
            over = row.overspent_s
            table.add_row(
                Text(route if row is found[0] else "", "bold"),
                row.stage,
                Text(short(row.limit_s), "cyan"),
                *(_against(mean, row.limit_s) for mean in row.means_s),
                Text(f"+{short(over)}", "bold red") if over else Text("-", "bright_black"),
                _count(row.violations),
                end_section=row is found[-1],
            )
    return Padding(table, (0, 0, 1, 0))


def _count(number: int) -> Text:
    return Text(f"{number:,}", "bold red" if number else "bright_black")


def _against(seconds: float | None, limit_s: float) -> Text:
    late = seconds is not None and limit_s > 0 and seconds > limit_s
    return Text(short(seconds), "red" if late else "")


def _headroom(row: Row) -> Text:
    room = row.headroom_s
    if room is None:
        return Text("-", "bright_black")
    return Text(short(room), "red" if room < 0 else "green")


def _share(late: int, requests: int) -> Text:
    if not requests:
        return Text("-", "bright_black")
    filled = round(_BAR * late / requests)
    # One late answer is visible.
    filled = max(filled, 1) if late else 0
    return Text.assemble(
        ("█" * filled, "red"),
        ("░" * (_BAR - filled), "bright_black"),
        (f" {late:>3} of {requests:<3}", "bold red" if late else "bright_black"),
    )


def _line(line: str) -> Text:
    return _Logfmt()(Text(line))


def _verdict(checks: Sequence[Check]) -> list[RenderableType]:
    told: list[RenderableType] = []
    for one in checks:
        mark = ("  ✗ ", "bold red") if one.problems else ("  ✓ ", "bold green")
        told.append(Text.assemble(mark, one.claim))
        told.extend(Text(f"      {problem}", "red") for problem in one.problems)
    failed = any(one.problems for one in checks)
    told.append(
        Text("\n  These figures do not agree.", "bold red")
        if failed
        else Text("\n  All figures agree.", "bold green"),
    )
    return told
