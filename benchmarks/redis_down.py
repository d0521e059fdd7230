"""What clients notice when the Redis that a service shares rates and answers in goes away.

A Redis is killed, started again, frozen (it accepts and never answers) and thawed, while requests
come at a steady rate by an open loop, each of which has to ask it twice: for its caller's rate, and
for the answer that another process of the service made in full. The same requests go to the same
service without Redis, in turns; what one takes beyond the other is what was added.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.compare import WrongCountError, report
from benchmarks.redis_load import Pace, Seen, Target, run
from benchmarks.redis_server import RedisServer
from benchmarks.redis_shared import FULL
from benchmarks.serving import stop

ROOT: Final = Path(__file__).resolve().parent.parent
PER_S: Final = 1000.0
FULL_PER_S: Final = 50.0
CALLERS: Final = 50
LOOK_EVERY_S: Final = 0.05
FIRST_S: Final = 1.0
"""How long an outage may be noticed."""

LEAD_S: Final = 0.05
"""Requests due so shortly before a fault may still be under way when it comes."""

REQUESTS: Final = tuple(
    f"GET /work HTTP/1.1\r\nhost: x\r\nx-caller: caller-{number}\r\n\r\n".encode()
    for number in range(CALLERS)
)
STATE: Final = b"GET /state HTTP/1.1\r\nhost: x\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Outage:
    """A time without Redis, in seconds of the clock.

    Attributes:
        how: What was done to it.
        began_s: When.
        over_s: When it was begun to be brought back.
        end_s: When the next outage began, or the measurement ended.

    """

    how: str
    began_s: float
    over_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything that was seen.

    Attributes:
        began_s: When the first request was due that counts.
        outages: In their order.
        shared: The server with Redis.
        without: The one without.
        full: The one whose full answers are shared.
        state: What the server with Redis said of itself.
        late_s: See ``Pace``.

    """

    began_s: float
    outages: list[Outage]
    shared: Target
    without: Target
    full: Target
    state: Target
    late_s: list[float]


async def drive(redis: RedisServer, ports: list[int], calm_s: float, away_s: float) -> Observed:
    """Load the servers while *redis* goes away twice.

    Args:
        redis: What they share.
        ports: Of the servers ``smaller``, ``without`` and ``full``, and again of ``smaller``.
        calm_s: Seconds before the first outage and, with ten more, after each.
        away_s: Seconds of each outage.

    """
    targets = shared, without, full, state = [Target(port) for port in ports]
    seconds = calm_s + 2 * (away_s + back_within_s(away_s))
    paces = [Pace() for _ in range(3)]

    def both(number: int, due_s: float) -> None:
        (shared if number % 2 else without).ask(REQUESTS[number // 2 % CALLERS], due_s)

    def fill(number: int, due_s: float) -> None:
        full.ask(REQUESTS[number % CALLERS], due_s)

    def load(seconds: float) -> list[asyncio.Future[None]]:
        return [
            asyncio.ensure_future(paces[0].keep(2 * PER_S, seconds, both)),
            asyncio.ensure_future(paces[1].keep(FULL_PER_S, seconds, fill)),
            asyncio.ensure_future(
                paces[2].keep(1 / LOOK_EVERY_S, seconds, lambda _, due_s: state.ask(STATE, due_s))
            ),
        ]

    await asyncio.gather(*load(WARM_UP_S))  # connections are opened, code is warm
    for target in targets:
        target.seen.clear()
    paces[0].late_s.clear()
    gc.collect()
    gc.freeze()
    gc.disable()
    began_s = time.perf_counter()
    running = load(seconds)
    outages = []
    at_s = began_s + calm_s
    ways: list[tuple[str, Callable[[], None], Callable[[], None]]] = [
        ("killed", redis.kill, redis.start),
        ("frozen", redis.freeze, redis.thaw),
    ]
    for how, away, back in ways:
        end_s = at_s + away_s + back_within_s(away_s)
        await asyncio.sleep(at_s - time.perf_counter())
        fault_s = time.perf_counter()
        await asyncio.to_thread(away)
        await asyncio.sleep(at_s + away_s - time.perf_counter())
        over_s = time.perf_counter()
        await asyncio.to_thread(back)
        outages.append(Outage(how, fault_s, over_s, end_s))
        at_s = end_s
    await asyncio.gather(*running)
    for target in targets:
        await target.settle()
    gc.enable()
    return Observed(began_s, outages, shared, without, full, state, paces[0].late_s)


WARM_UP_S: Final = 3.0


def back_within_s(away_s: float) -> float:
    """Return the seconds that follow an outage of *away_s*, in which sharing has to be back."""
    return max(4.0, 0.75 * away_s)


Span = tuple[float, float]
"""From when to when, in seconds of the clock."""


def p99_ms(seen: list[Seen], *spans: Span) -> float:
    """Return what 99 % of the requests due in *spans* did not exceed, in milliseconds."""
    took_s = sorted(
        one.took_s for one in seen for begin_s, end_s in spans if begin_s <= one.due_s < end_s
    )
    if not took_s:
        raise WrongCountError("there is a time in which nothing was answered")
    return 1e3 * took_s[math.ceil(0.99 * len(took_s)) - 1]


def added_ms(observed: Observed, *spans: Span) -> float:
    """Return by how much the p99 of *spans* is larger with Redis than without."""
    return p99_ms(observed.shared.seen, *spans) - p99_ms(observed.without.seen, *spans)


def quiet_seconds(observed: Observed, begin_s: float, end_s: float) -> list[Span]:
    """Return the half of a time's seconds in which the machine had least else to do.

    The server without Redis tells which these are, so what Redis adds is not chosen by; if
    anything it looks larger, being compared with the other's best.
    """
    count = max(1, int(end_s - begin_s))
    seconds = [(begin_s + number, begin_s + number + 1) for number in range(count)]
    seconds.sort(key=lambda span: p99_ms(observed.without.seen, span))
    return seconds[: (count + 1) // 2]


def shared_again_s(observed: Observed, outage: Outage) -> float:
    """Return how long after *outage* rates and answers were shared again; infinite for never.

    That is when the server asks Redis for both, and a client has had a shared answer.
    """
    says = [
        one.due_s
        for one in observed.state.seen
        if outage.over_s < one.due_s < outage.end_s and json.loads(one.body)["shares"]
    ]
    has = [
        one.due_s + one.took_s
        for one in observed.shared.seen
        if outage.over_s < one.due_s < outage.end_s and one.body == FULL
    ]
    return max(min(says, default=math.inf), min(has, default=math.inf)) - outage.over_s


def shared_part(observed: Observed, begin_s: float, end_s: float) -> float:
    """Return the share of the answers in a time that came out of Redis."""
    bodies = [one.body for one in observed.shared.seen if begin_s <= one.due_s < end_s]
    return sum(body == FULL for body in bodies) / max(1, len(bodies))


def found(observed: Observed) -> dict[str, Any]:
    """Return the values of this group's rows.

    Raises:
        WrongCountError: Redis was not asked while it was there, or was while it was not.

    """
    outages = observed.outages
    first_s = outages[0].began_s
    calm = shared_part(observed, observed.began_s, first_s - LEAD_S)
    if calm < 0.5:
        raise WrongCountError(f"with Redis up, {100 * calm:.0f} % of the answers were shared")
    figures = []
    for outage in outages:
        later_s = outage.began_s + FIRST_S
        if shared_part(observed, later_s, outage.over_s):
            raise WrongCountError(f"answers were shared while Redis was {outage.how}")
        quiet = quiet_seconds(observed, later_s, outage.over_s)
        back_s = shared_again_s(observed, outage)
        most_s = max(
            one.took_s
            for one in observed.shared.seen
            if outage.began_s - LEAD_S <= one.due_s < outage.over_s
        )
        figures.append(
            {
                "first_ms": added_ms(observed, (outage.began_s - LEAD_S, later_s)),
                "after_ms": added_ms(observed, *quiet),
                "after_in_all_seconds_ms": added_ms(observed, (later_s, outage.over_s)),
                "without_p99_ms": p99_ms(observed.without.seen, *quiet),
                "longest_ms": 1e3 * most_s,
                "back_s": back_s,
                "held": shared_part(observed, outage.over_s + back_s + 1, outage.end_s),
            }
        )
    failed = len(observed.shared.failed) + len(observed.full.failed)
    sent = observed.shared.sent + observed.full.sent
    late_ms = 1e3 * sorted(observed.late_s)[math.ceil(0.99 * len(observed.late_s)) - 1]
    up_ms = added_ms(observed, (observed.began_s, first_s - LEAD_S))

    def row(figure: str, remark: str, digits: int) -> dict[str, Any]:
        each = [
            f"{outage.how} {one[figure]:.{digits}f}"
            for outage, one in zip(outages, figures, strict=True)
        ]
        value = max(one[figure] for one in figures)
        return {"value": value, "remark": "; ".join([*each, remark] if remark else each)}

    base = f"p99 without Redis {max(one['without_p99_ms'] for one in figures):.1f} ms"
    base += f"; in all seconds {max(one['after_in_all_seconds_ms'] for one in figures):.2f}"
    pace = f"sent within {late_ms:.2f} ms of their time"
    held = min(one["held"] for one in figures)
    up = f"with Redis up {up_ms:.1f}, {100 * calm:.0f} % shared"
    return {
        "rows": {
            "redis-failed": {"value": failed, "remark": f"of {sent}; 99 % {pace}"},
            "redis-first": row("first_ms", up, 1),
            "redis-after": row("after_ms", base, 2),
            "redis-back": row("back_s", f"a second later {100 * held:.0f} % shared", 1),
        },
        "details": {
            "outages": {outage.how: one for outage, one in zip(outages, figures, strict=True)},
            "p99_ms_by_second": by_second(observed),
            "failed_without": len(observed.without.failed),
        },
    }


def by_second(observed: Observed) -> list[list[float]]:
    """Return for each second its begin, p99 with and without Redis in ms, and the shared part."""
    lines = []
    at_s = observed.began_s
    while at_s + 1 <= observed.outages[-1].end_s:
        span = at_s, at_s + 1
        lines.append(
            [
                round(at_s - observed.began_s, 1),
                round(p99_ms(observed.shared.seen, span), 3),
                round(p99_ms(observed.without.seen, span), 3),
                round(shared_part(observed, *span), 3),
            ]
        )
        at_s += 1
    return lines


@contextlib.contextmanager
def serving(*kinds: tuple[str, ...]) -> Iterator[list[int]]:
    """Run a server for each of *kinds*; their ports are known within."""
    servers: list[subprocess.Popen[str]] = []
    try:
        for kind in kinds:
            command = [sys.executable, "-m", "benchmarks.redis_shared", *kind]
            servers.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True))
        yield [int(server.stdout.readline()) for server in servers if server.stdout is not None]
    finally:
        for server in servers:
            stop(server)


def measure(quick: bool) -> dict[str, Any]:  # noqa: FBT001 - the one switch there is
    """Return the values of this group's rows."""
    calm_s, away_s = (2.0, 3.0) if quick else (4.0, 16.0)
    with RedisServer() as redis:
        kinds = ("smaller", redis.url), ("without",), ("full", redis.url)
        with serving(*kinds) as ports:
            return found(run(drive(redis, [*ports, ports[0]], calm_s, away_s)))


if __name__ == "__main__":
    sys.exit(report(measure))
