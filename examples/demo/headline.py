"""The last screen: what each tier was promised and what it got, one table and one sentence each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from rich import box
from rich.console import Group, RenderableType
from rich.constrain import Constrain
from rich.table import Table
from rich.text import Text

from examples.demo.checks import Verdict
from examples.demo.load import RATES
from examples.demo.machine import BUSY, LATE_S
from examples.demo.story import CRITICAL, Row
from examples.demo.tables import short

WIDTH: Final = 80
"""As wide as a terminal is at least."""


def headline(
    shown: Mapping[str, Sequence[Row]], verdict: Verdict, late_timers: float
) -> RenderableType:
    """Return the end of what is shown.

    Args:
        shown: The rows of the run that observed and of the one that enforced, by mode.
        verdict: What came of the checks.
        late_timers: How busy the machine was.

    """
    rows = {mode: {row.key: row for row in found} for mode, found in shown.items()}
    keys = [
        key for tier in RATES if all((key := (CRITICAL, tier)) in found for found in rows.values())
    ]
    tiers = {key[1]: {mode: found[key] for mode, found in rows.items()} for key in keys}
    return Constrain(
        Group(
            Text(
                f"The same requests for /{CRITICAL}, twice; a third of the time the disk was slow",
                "bold",
            ),
            Text(
                "observe: budgetware only measures; enforce: it sends something smaller in time",
                "bright_black",
            ),
            _table(tiers),
            Text(),
            *(_sentence(tier, *of.values()) for tier, of in tiers.items()),
            Text(),
            *_conclusion(verdict, late_timers),
        ),
        WIDTH,
    )


def _table(tiers: Mapping[str, Mapping[str, Row]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), show_edge=False)
    for name in ("tier", "promised", "mode"):
        table.add_column(name, no_wrap=True)
    for name in ("requests", "late", "smaller"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("sent instead")
    for tier, of in tiers.items():
        for number, (mode, row) in enumerate(of.items()):
            smaller = sum(row.smaller.values())
            table.add_row(
                Text(tier if not number else "", "bold"),
                Text(short(row.limit_s) if not number else "", "cyan"),
                mode,
                f"{row.requests:,}",
                Text(f"{row.late:,}", "bold red" if row.late else "green"),
                Text(f"{smaller:,}", "yellow" if smaller else ""),
                ", ".join(f"{count:,} {answer}" for answer, count in sorted(row.smaller.items())),
            )
    return table


def _sentence(tier: str, observed: Row, enforced: Row) -> Text:
    kinds = " or ".join(sorted(enforced.smaller))
    smaller = _share(sum(enforced.smaller.values()) / enforced.requests)
    return Text.assemble(
        (f"{tier}: ", "bold"),
        f"{_share(observed.late / observed.requests)} late before,"
        f" {_share(enforced.late / enforced.requests)} with budgetware;"
        f" {f'{smaller} {kinds}' if kinds else 'every answer a full one'}.",
    )


def _share(share: float) -> str:
    percent = 100 * share
    # Neither a few nor all but a few are rounded away.
    return f"{percent:.{0 if percent in (0, 100) or 10 <= percent <= 99 else 1}f} %"


def _conclusion(verdict: Verdict, late_timers: float) -> Iterator[Text]:
    held, excused, failed = map(len, verdict)
    if late_timers > BUSY:
        yield Text(
            f"This machine is {'too busy to judge lateness' if excused else 'busy'}:"
            f" {_share(late_timers)} of timers were over {1000 * LATE_S:.0f} ms late.",
            "bold yellow",
        )
    if failed:
        yield Text(f"✗ {failed} of {held + excused + failed} checks failed, see above.", "bold red")
    else:
        which = "The other" if excused else "All"
        yield Text.assemble(
            (f"✓ {which} {held} checks hold.", "bold green"),
            ("  More: make demo ARGS=--details", "bright_black"),
        )
