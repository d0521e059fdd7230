"""``make demo``: run the trading API, make its database slow for a while, show who got what.

Exits with 0 only if what is shown agrees with the server's own metrics.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import random
import re
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import httpx2
from rich.console import Console, RenderableType
from rich.live import Live
from rich.theme import Theme

from examples.demo import tables
from examples.demo.checks import check
from examples.demo.live import Lines, Picture, Show, Watch, keep_showing
from examples.demo.load import RATES, Callers, Tape, plan
from examples.demo.scrape import Scrape
from examples.demo.services import Service, ServiceError
from examples.demo.story import JOB, Phase, Story, rows, stage_rows, violations_to_show

SECONDS: Final = 30.0
SLOW_MS: Final = 70.0
"""How long a statement waits on average while the disk is busy."""

_WARM_UP_S: Final = 2.0
_SEED: Final = 30
_FONTS: Final = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo and return its exit code."""
    options = _options(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    console = _console()
    try:
        with tempfile.TemporaryDirectory() as folder, _services(Path(folder)) as service:
            console.print(tables.opening(service.address, options.seconds))
            address = service.address
            story = asyncio.run(_run(service, options.seconds, console))
    except KeyboardInterrupt:
        console.print("interrupted; nothing is left running")
        return 128 + signal.SIGINT
    except (ServiceError, httpx2.HTTPError) as error:
        console.print(f"the demo cannot go on: {error!r}", markup=False)
        return 1
    shown, lines = rows(story), violations_to_show(story.during.log)
    checks = check(story, shown, lines)
    closing = tables.closing(story, shown, stage_rows(story), lines, checks)
    console.print(closing)
    if options.save is not None:
        _save(options.save, tables.opening(address, options.seconds), closing)
    return 1 if any(one.problems for one in checks) else 0


@contextlib.contextmanager
def _services(folder: Path) -> Iterator[Service]:
    """Run the hub, and the trading API that asks it."""
    with Service("examples.fastapi_app.hub:create_app", folder) as hub:
        environment = {"TRADING_HUB_URL": hub.address}
        with Service("examples.fastapi_app.app:create_app", folder, environment) as service:
            yield service


async def _run(service: Service, seconds: float, console: Console) -> Story:
    """Go through the three phases; each begins when the last answer of the one before is in."""
    rng = random.Random(_SEED)
    each = seconds / 3
    async with Callers(service.address) as callers:
        await callers.drive(plan(_WARM_UP_S, rng), Tape())
        scrapes = [Scrape.parse(await callers.metrics())]
        budgets = {tier: scrapes[0].limit_s(("signals", tier)) for tier in RATES}
        watch = Watch(seconds, budgets)
        phases: list[Phase] = []
        with _show(console) as show:
            progress = asyncio.create_task(keep_showing(show, watch))
            for title, wait_ms in (("as usual", 0.0), ("busy disk", SLOW_MS), ("recovered", 0.0)):
                watch.phase = title
                await callers.busy_disk(wait_ms, for_s=2 * each + 10.0)
                if not phases:
                    await callers.export()
                tape, logged = Tape(), len(service.log())
                await callers.drive(plan(each, rng), tape, watch.heard)
                scrapes.append(Scrape.parse(await callers.metrics()))
                counted = scrapes[-1].since(scrapes[-2])
                phases.append(Phase(title, tape, counted, service.log()[logged:]))
            progress.cancel()
    before, during, after = phases
    return Story(before, during, after, scrapes[-1], service.log(), {(JOB, ""): 1})


@contextlib.contextmanager
def _show(console: Console) -> Iterator[Show]:
    if console.is_terminal and not console.is_dumb_terminal:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            yield Picture(live)
    else:
        yield Lines(console)


def _console() -> Console:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    console = Console(theme=Theme(tables.styles()), highlight=False)
    if not console.is_terminal:
        console.width = tables.WIDTH
    return console


def _save(path: Path, *parts: RenderableType) -> None:
    """Write *parts* as a picture that needs nothing from elsewhere."""
    recorder = Console(
        theme=Theme(tables.styles()),
        highlight=False,
        record=True,
        width=tables.WIDTH,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
    )
    for part in parts:
        recorder.print(part)
    picture = recorder.export_svg(title="make demo", unique_id="demo")
    path.write_text(_FONTS.sub("", picture), encoding="utf-8")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=__doc__)
    parser.add_argument(
        "--seconds",
        type=_length,
        default=SECONDS,
        help=f"how long to call the service, 3 to 300 (default: {SECONDS:.0f})",
    )
    parser.add_argument("--save", type=Path, metavar="FILE", help="keep a picture, as SVG")
    return parser.parse_args(arguments)


def _length(text: str) -> float:
    seconds = float(text)
    if not 3 <= seconds <= 300:
        raise argparse.ArgumentTypeError("has to be between 3 and 300")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
