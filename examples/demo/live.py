"""What is seen while the demo runs: a line for each step, and a table that moves on a terminal."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Final

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from examples.demo.load import RATES, Answer, Tape
from examples.demo.story import CRITICAL
from examples.demo.tables import short

_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_DRAW_EVERY_S: Final = 0.25


class Watch:
    """What the client knows during one run.

    Args:
        seconds: How long the run is to take.
        budgets_s: The budget each tier's signals have, for colours.

    """

    def __init__(self, seconds: float, budgets_s: Mapping[str, float]) -> None:
        self.seconds = seconds
        self.budgets_s = budgets_s
        self.phase = ""
        self.answers = 0
        self._start = time.perf_counter()
        self._signals: dict[str, dict[int, list[float]]] = {
            tier: defaultdict(list) for tier in RATES
        }

    @property
    def elapsed_s(self) -> float:
        """Seconds since the beginning."""
        return time.perf_counter() - self._start

    def heard(self, answer: Answer) -> None:
        """Take note of *answer*."""
        self.answers += 1
        if answer.route == CRITICAL:
            self._signals[answer.tier][int(self.elapsed_s)].append(answer.took_s)

    def recent_s(self, tier: str) -> float | None:
        """Return the median of the tier's signals in the last seconds."""
        now = int(self.elapsed_s)
        recent = [took for second in (now - 1, now) for took in self._signals[tier].get(second, ())]
        return statistics.median(recent) if recent else None

    def curve(self, tier: str) -> list[float | None]:
        """Return the median of the tier's signals, second by second."""
        seen = self._signals[tier]
        return [
            statistics.median(seen[second]) if second in seen else None
            for second in range(int(self.elapsed_s) + 1)
        ]


def step(phase: str, tape: Tape) -> str:
    """Return the line about a *phase* that has ended."""
    medians = ", ".join(
        f"{tier} {short(statistics.median(times) if times else None)}"
        for tier in RATES
        for times in [tape.times_s((CRITICAL, tier))]
    )
    return f"{phase:<18} {len(tape.answers):>5,} calls; {CRITICAL}: {medians}"


async def keep_drawing(live: Live, watch: Watch) -> None:
    """Draw the table over itself until cancelled."""
    while True:
        live.update(_draw(watch), refresh=True)
        await asyncio.sleep(_DRAW_EVERY_S)


def _draw(watch: Watch) -> RenderableType:
    head = Table.grid(padding=(0, 2))
    head.add_row(
        Text(f"  {watch.phase:<18}", "bold"),
        ProgressBar(watch.seconds, min(watch.elapsed_s, watch.seconds), width=30),
        f"{watch.elapsed_s:3.0f} s",
        f"{watch.answers:,} answers",
    )
    curves = Table.grid(padding=(0, 2))
    for tier in RATES:
        budget_s = watch.budgets_s[tier]
        now = watch.recent_s(tier)
        late = now is not None and now > budget_s
        curves.add_row(
            Text(f"  {tier:<10}", "bold"),
            Text(f"{short(now):>6}", "bold red" if late else "green"),
            Text(f"of {short(budget_s)}", "bright_black"),
            _curve(watch.curve(tier), budget_s),
        )
    return Group(
        head, Text("  signals, median by second as the client sees it", "bright_black"), curves
    )


def _curve(medians: list[float | None], budget_s: float) -> Text:
    # Full height is one and a half budgets.
    text = Text()
    for median in medians[-45:]:
        if median is None:
            text.append(" ")
            continue
        height = min(len(_BLOCKS) - 1, int(len(_BLOCKS) * median / (1.5 * budget_s)))
        text.append(_BLOCKS[height], "red" if median > budget_s else "green")
    return text
