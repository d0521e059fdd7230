"""What a reload of the policy file keeps the other threads from, and what a look at it costs."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.compare import CannotMeasureError, report

from budgetware._core.engine import Engine
from budgetware._core.policy import Policy
from budgetware.policyfile import PolicyWatch, check
from budgetware.policyfile.source import MOST_BYTES

VERSION = "version: 1\n"
ROUTES = VERSION + "routes:\n"
ANSWERS = ROUTES + "  r: {match: GET /r, answers: ["
STATIC = ROUTES + '  r: {match: GET /r, answers: [{static: {body: "'
MANY = """\
  s{0}:
    match: GET /signals/{0}/{{symbol}}
    reserve: 3ms
    stages: {{db: {{budget: 5ms, operations: {{select: 2ms}}}}, ml: 8ms}}
    answers: [cached, fallback, reject]
    cache: {{fresh: 1s, stale: 60s, vary: [identity]}}
    objectives: {{p50: 15ms, p95: 25ms, p99: 30ms}}
"""
SHARED = (
    VERSION
    + "tiers:\n"
    + "".join(f"  t{number}: {{budget: 100ms}}\n" for number in range(4))
    + "stages: {gateway: 2ms, auth: 1ms, response: 2ms}\nroutes:\n"
)
CROSSED = (
    VERSION
    + "tiers:\n"
    + "".join(f"  t{number}: {{budget: 1s}}\n" for number in range(10))
    + "stages:\n"
    + "".join(f"  s{number}: 1ms\n" for number in range(20))
    + "routes:\n"
)


def same(piece: str) -> Callable[[int], str]:
    """Return what says *piece* every time."""
    return lambda _: piece


FILES: Mapping[str, tuple[str, Callable[[int], str], str]] = {
    "routes as in the docs": (SHARED, MANY.format, ""),
    "short routes": (ROUTES, "  r{0}: {{match: GET /r{0}, budget: 1s}}\n".format, ""),
    "many plans": (CROSSED, "  r{0}: {{match: GET /r{0}, budget: 1s}}\n".format, ""),
    "one match": (ROUTES + "  r: {match: [", "GET /r{}, ".format, "]}\n"),
    "comments": (VERSION, same("# nothing\n"), ""),
    "empty lines": (VERSION, same("\n"), ""),
    "one text": (STATIC, same("x"), '"}}]}\n'),
    "one folded text": (STATIC, same("x\n       "), '"}}]}\n'),
    "bad entries of one list": (ANSWERS, same("x,"), "]}\n"),
    "bad routes": (ROUTES, "  r{}: {{budget: 3}}\n".format, ""),
    "unknown keys": (VERSION, "k{}: 1\n".format, ""),
    "one key again and again": (VERSION, same("a: 1\n"), ""),
    "braces without quotes": (ROUTES + "  r: {match: GET /", same("{a}"), "}\n"),
    "never closed": (ROUTES + "  r: {match: GET /", same("{a"), "\n"),
    "control characters": (VERSION, same("\x01"), ""),
}
"""What is repeated between a beginning and an end, by name."""


def largest(head: str, piece: Callable[[int], str], tail: str) -> str:
    """Return the file with as many pieces as are let pass, or as fit where none are."""

    def text(most: int) -> str:
        return head + "".join(piece(number) for number in range(most)) + tail

    def passes(most: int) -> bool:
        problems = check(text(most)).problems
        return not any(problem.code == "too-large" for problem in problems)

    low, high = 1, 2
    while passes(high):
        low, high = high, 2 * high
    while high - low > max(low // 100, 1):
        middle = (low + high) // 2
        low, high = (middle, high) if passes(middle) else (low, middle)
    return text(low)


def held_s(watch: PolicyWatch) -> tuple[float, float]:
    """Return how long, at most, no other thread could run while the file was taken; and the whole.

    It is the processor's time that the reading thread gets between two steps of this one, so that
    other processes are not in it. Python lets another thread run after 5 ms, and those are.
    """
    taken, noted = threading.Event(), threading.Event()

    def take() -> None:
        watch.look(now=True)
        taken.set()
        noted.wait()  # a thread that has ended has no clock

    thread = threading.Thread(target=take)
    thread.start()
    assert thread.ident is not None
    clock = time.pthread_getcpuclockid(thread.ident)
    last, longest = 0.0, 0.0
    while not taken.is_set():
        now = time.clock_gettime(clock)
        longest = max(longest, now - last)
        last = now
    whole = time.clock_gettime(clock)
    noted.set()
    thread.join()
    return max(longest, whole - last), whole


def look_us(path: Path, rounds: int) -> float:
    """Return what a look at an unchanged file costs, in the quietest of many."""
    watch = PolicyWatch(path, lambda _: None, on_problem=lambda _: None)
    watch.look()
    watch.look()
    best = float("inf")
    for _ in range(rounds):
        before = time.perf_counter()
        watch.look()
        best = min(best, time.perf_counter() - before)
    return 1e6 * best


def measure(quick: bool) -> dict[str, Any]:  # noqa: FBT001 - the one switch there is
    """Return the values of this group's rows."""
    if not hasattr(time, "pthread_getcpuclockid"):
        raise CannotMeasureError("there is no clock of another thread here: measure on Linux")
    details: dict[str, dict[str, float]] = {}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "budgetware.yaml"
        for name, parts in FILES.items():
            text = largest(*parts)
            path.write_text(text, "utf-8")
            taken = []
            for _ in range(3 if quick else 7):
                engine = Engine(Policy())
                taken.append(held_s(PolicyWatch(path, engine.adopt, on_problem=lambda _: None)))
            details[name] = {
                "bytes": len(text),
                "held_ms": 1e3 * min(held for held, _ in taken),
                "whole_ms": 1e3 * min(whole for _, whole in taken),
            }
        rounds = 200 if quick else 1000
        path.write_text("# " + "x" * (MOST_BYTES - 2), "utf-8")
        longest_us = look_us(path, rounds)
        path.write_text(SHARED + "".join(map(MANY.format, range(20))), "utf-8")
        usual_us = look_us(path, rounds)
        size = path.stat().st_size
    worst = max(details, key=lambda name: details[name]["held_ms"])
    slowest = max(details, key=lambda name: details[name]["whole_ms"])
    whole = f"at most {details[slowest]['whole_ms']:.0f} ms in all: {slowest}"
    return {
        "rows": {
            "reload-held": {
                "value": details[worst]["held_ms"],
                "remark": f"{worst}; {whole}",
            },
            "reload-look": {
                "value": usual_us,
                "remark": f"{size} bytes; {MOST_BYTES}: {longest_us:.0f} us",
            },
        },
        "details": details,
    }


if __name__ == "__main__":
    sys.exit(report(measure))
