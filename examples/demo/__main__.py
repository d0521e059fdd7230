"""``make demo``: run the trading API twice, slow its database down, show who got what.

The first run only observes, the second enforces; the load is the same. Exits with 0 only if what
is shown agrees with the servers' own metrics, and what has to be quick was, on a machine that is
not too busy to tell.
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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import httpx2
from rich.console import Console, RenderableType
from rich.live import Live
from rich.theme import Theme

from examples.demo import tables
from examples.demo.checks import Run, check, judge
from examples.demo.effects import compare
from examples.demo.headline import WIDTH, headline
from examples.demo.live import Watch, keep_drawing, step
from examples.demo.load import RATES, Callers, Tape, plan
from examples.demo.machine import Timers
from examples.demo.scrape import Scrape
from examples.demo.services import Service, ServiceError
from examples.demo.story import CRITICAL, JOB, Phase, Story, lines_to_show, rows, stage_rows

SECONDS: Final = 36.0
MODES: Final = {"observe": "observe", "enforce": ""}
"""The modes shown, and what holds the policy back; it says ``enforce`` itself."""
SLOW_MS: Final = 70.0
"""How long a statement waits on average while the disk is busy."""

_WARM_UP_S: Final = 2.0
_SETTLE_S: Final = 0.5
"""What goes on behind a smaller answer is given so long to end before anything is counted."""
_SEED: Final = 30
_FONTS: Final = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo and return its exit code."""
    options = _options(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    console = _console(tables.WIDTH if options.details else WIDTH)
    try:
        with tempfile.TemporaryDirectory() as folder, _services(Path(folder)) as services:
            addresses = {mode: service.address for mode, service in services.items()}
            console.print(tables.opening(addresses, options.seconds))
            stories = [
                asyncio.run(_run(mode, service, options.seconds / len(services), console))
                for mode, service in services.items()
            ]
    except KeyboardInterrupt:
        console.print("interrupted; nothing is left running")
        return 128 + signal.SIGINT
    except (ServiceError, httpx2.HTTPError) as error:
        console.print(f"the demo cannot go on: {error!r}", markup=False)
        return 1
    observe, enforce = stories
    runs, lines = [Run(story, rows(story)) for story in stories], lines_to_show(observe, enforce)
    late_timers = max(phase.late_timers for story in stories for phase in story.phases)
    verdict = judge([*check(runs, lines), *compare(observe, enforce)], late_timers)
    if options.details:
        console.print(tables.details(runs, stage_rows(observe), lines))
    if options.details or verdict.failed:
        console.print(tables.checked(verdict))
    ending = headline({run.story.mode: run.shown for run in runs}, verdict, late_timers)
    console.print()
    console.print(ending)
    if options.save is not None:
        _save(options.save, ending)
    return 1 if verdict.failed else 0


@contextlib.contextmanager
def _services(folder: Path) -> Iterator[Mapping[str, Service]]:
    """Run the hub, and in each mode a trading API that asks it."""
    with contextlib.ExitStack() as stack:
        hub = stack.enter_context(Service("examples.fastapi_app.hub:create_app", folder))
        services = {}
        for mode, held_back in MODES.items():
            output = folder / mode
            output.mkdir()
            environment = {"TRADING_HUB_URL": hub.address, "BUDGETWARE_MODE": held_back}
            service = Service("examples.fastapi_app.app:create_app", output, environment)
            services[mode] = stack.enter_context(service)
        yield services


async def _run(mode: str, service: Service, seconds: float, console: Console) -> Story:
    """Go through the three phases; each begins when the last answer of the one before is in."""
    rng = random.Random(_SEED)
    each = seconds / 3
    async with Callers(service.address) as callers:
        await callers.drive(plan(_WARM_UP_S, rng), Tape())
        scrapes = [Scrape.parse(await callers.metrics())]
        budgets = {tier: scrapes[0].limit_s((CRITICAL, tier)) for tier in RATES}
        watch = Watch(seconds, budgets)
        phases: list[Phase] = []
        timers = Timers()
        with _live(console) as live:
            beside = [asyncio.create_task(timers.run())]
            if live is not None:
                beside.append(asyncio.create_task(keep_drawing(live, watch)))
            for title, wait_ms in (("as usual", 0.0), ("busy disk", SLOW_MS), ("recovered", 0.0)):
                watch.phase = f"{mode}: {title}"
                await callers.busy_disk(wait_ms, for_s=2 * each + 10.0)
                if not phases:
                    await callers.export()
                tape, logged, _ = Tape(), len(service.log()), timers.late()
                await callers.drive(plan(each, rng), tape, watch.heard)
                await asyncio.sleep(_SETTLE_S)
                scrapes.append(Scrape.parse(await callers.metrics()))
                counted = scrapes[-1].since(scrapes[-2])
                log = service.log()[logged:]
                phases.append(Phase(title, tape, counted, log, timers.late()))
                console.print(step(watch.phase, tape))
            for task in beside:
                task.cancel()
    before, during, after = phases
    jobs = {(JOB, ""): 1}
    return Story(mode, before, during, after, scrapes[-1], service.log(), jobs)


def _live(console: Console) -> contextlib.AbstractContextManager[Live | None]:
    if console.is_terminal and not console.is_dumb_terminal:
        return Live(console=console, auto_refresh=False, transient=True)
    return contextlib.nullcontext()


def _console(width: int) -> Console:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    console = Console(theme=Theme(tables.styles()), highlight=False)
    if not console.is_terminal:
        console.width = width
    return console


def _save(path: Path, shown: RenderableType) -> None:
    """Write what is *shown* as a picture that needs nothing from elsewhere."""
    recorder = Console(
        theme=Theme(tables.styles()),
        highlight=False,
        record=True,
        width=WIDTH,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
    )
    recorder.print(shown)
    picture = recorder.export_svg(title="make demo", unique_id="demo")
    path.write_text(_FONTS.sub("", picture), encoding="utf-8")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=__doc__)
    parser.add_argument(
        "--seconds",
        type=_length,
        default=SECONDS,
        help=f"how long to call the service in all, 6 to 300 (default: {SECONDS:.0f})",
    )
    parser.add_argument(
        "--details", action="store_true", help="show every route, the stages, events and checks"
    )
    parser.add_argument("--save", type=Path, metavar="FILE", help="keep the headline, as SVG")
    return parser.parse_args(arguments)


def _length(text: str) -> float:
    seconds = float(text)
    if not 6 <= seconds <= 300:
        raise argparse.ArgumentTypeError("has to be between 6 and 300")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
