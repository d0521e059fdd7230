"""What the demo shows besides its headline: an opening, the checks, and the details."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.highlighter import RegexHighlighter
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from examples.demo.checks import Check, Run, Verdict
from examples.demo.load import RATES
from examples.demo.story import CRITICAL, Row, Shares, StageRow, Story, shares

WIDTH = 100

_BAR = 8
_FIGURES = ("calls", "full", "degr.", "late", "p95")


class _Logfmt(RegexHighlighter):
    highlights = [  # noqa: RUF012 - rich's way
        r"(?P<key>\b\w+)=",
        r"(?:event|scope|route|tier|stage|operation|budget_level|answer|reason)=(?P<name>\S+)",
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


def opening(addresses: Mapping[str, str], seconds: float) -> RenderableType:
    """Return what is said at the start: what is going to happen, and where to look meanwhile.

    Args:
        addresses: Where the service answers, by mode.
        seconds: How long it is called.

    """
    places = Table.grid(padding=(0, 3))
    places.add_column(style="bold")
    places.add_column(style="cyan")
    for mode, address in addresses.items():
        places.add_row(mode, f"{address}/docs and /metrics")
    each = seconds / 6
    return Group(
        Text.assemble(
            ("budgetware demo ", "bold"),
            "A trading API has promised each tier of its callers a time.\n"
            f"It is called for {each:.0f} s as usual, {each:.0f} s with a slow disk and"
            f" {each:.0f} s recovered, twice:\nbudgetware first observes, then it enforces.",
        ),
        Padding(places, (1, 2)),
    )


def details(
    runs: Sequence[Run], stages: Sequence[StageRow], lines: Sequence[str]
) -> RenderableType:
    """Return what is behind the headline: every route, the stages, and events from the logs."""
    stories = [run.story for run in runs]
    return Group(
        _title(
            f"{CRITICAL.title()}, by tier and phase", "full █  degraded ▒  late ░; server's metrics"
        ),
        _phases(stories),
        _title("The same load in both modes", "shares from the servers' metrics; p95 the client's"),
        _promises(runs),
        _title("Stages while observing, per request that had them", "from the server's metrics"),
        _stages(stories[0], stages),
        _title("Three events", "as the servers logged them"),
        *(Padding(_line(line), (0, 1, 1, 2)) for line in lines),
    )


def checked(verdict: Verdict) -> RenderableType:
    """Return the checks and what they found."""
    return Group(
        _title("Checked", "figures that came about in different ways"),
        *(
            line
            for checks, mark, style in (
                (verdict.held, "✓", "green"),
                (verdict.excused, "~", "yellow"),
                (verdict.failed, "✗", "red"),
            )
            for one in checks
            for line in _check(one, mark, style)
        ),
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


def _promises(runs: Sequence[Run]) -> RenderableType:
    heads = [
        f"{run.story.mode if name == _FIGURES[0] else ''}\n{name}"
        for run in runs
        for name in _FIGURES
    ]
    table = _table("<\nroute", "<\ntier", "\nbudget", *heads)
    table.padding = 0
    by_key = [{row.key: row for row in run.shown} for run in runs]
    keys = list(dict.fromkeys(row.key for run in runs for row in run.shown))
    for route, group in itertools.groupby(keys, key=lambda key: key[0]):
        tiers = list(group)
        for key in tiers:
            found = [rows.get(key) for rows in by_key]
            table.add_row(
                Text(route if key is tiers[0] else "", "bold"),
                key[1] or Text("job", "bright_black"),
                Text(short(next(row.limit_s for row in found if row is not None)), "cyan"),
                *(cell for row in found for cell in _figures(row)),
                end_section=key is tiers[-1],
            )
    return Padding(table, (0, 0, 1, 1))


def _figures(row: Row | None) -> list[Text]:
    if row is None:
        return [Text("-", "bright_black")] * len(_FIGURES)
    return [
        Text(f"{row.requests:,}"),
        _percent(row.full, row.requests, "green"),
        _percent(row.degraded, row.requests, "yellow"),
        _percent(row.late, row.requests, "bold red"),
        _against(row.p95_s, row.limit_s),
    ]


def _phases(stories: Sequence[Story]) -> RenderableType:
    table = _table("<tier", "<mode", *(f"<{phase.title}" for phase in stories[0].phases))
    for tier in RATES:
        for story in stories:
            table.add_row(
                Text(tier if story is stories[0] else "", "bold"),
                story.mode,
                *(_bar(shares(phase, tier)) for phase in story.phases),
                end_section=story is stories[-1],
            )
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


def _percent(count: int, of: int, style: str) -> Text:
    return Text(f"{100 * count / of:.0f}%" if of else "-", style if count else "bright_black")


def _bar(found: Shares) -> Text:
    if not sum(found):
        return Text("-", "bright_black")
    late = round(_BAR * found.of(found.late))
    # One late answer is visible.
    late = max(late, 1) if found.late else 0
    full = min(round(_BAR * found.of(found.full)), _BAR - late)
    return Text.assemble(
        ("█" * full, "green"),
        ("▒" * (_BAR - full - late), "yellow"),
        ("░" * late, "red"),
        *(
            (f" {100 * found.of(count):>3.0f}%", style if count else "bright_black")
            for count, style in zip(found, ("green", "yellow", "bold red"), strict=True)
        ),
    )


def _line(line: str) -> Text:
    return _Logfmt()(Text(line))


def _check(one: Check, mark: str, style: str) -> Iterator[RenderableType]:
    yield Text.assemble((f"  {mark} ", f"bold {style}"), one.claim)
    for problem in one.problems:
        yield Text(f"      {problem}", style)
