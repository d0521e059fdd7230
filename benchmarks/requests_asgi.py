"""A Starlette request behind budgetware, in this process: no network, no server."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

from benchmarks.asgi import (
    HELLO,
    SIGNAL,
    STAGES,
    App,
    Client,
    Endpoint,
    application,
    hello,
    hello_in_floors,
    hello_in_stages,
)
from benchmarks.compare import Candidate, Rounds, WrongCountError, quietest, report
from benchmarks.floor import PassThrough
from benchmarks.telemetry import Telemetry
from prometheus_client import CollectorRegistry, Histogram
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from budgetware import BudgetMiddleware

TIMES = 128
"""What a lane keeps before it sorts durations into buckets: that work is in every round."""


@dataclass
class Watched:
    """An application behind budgetware, and the proof that it counts."""

    name: str
    endpoint: Endpoint = hello_in_stages
    telemetry: Telemetry = field(default_factory=Telemetry)
    server_timing: bool = False
    path: str = HELLO

    def __post_init__(self) -> None:
        self.stages = STAGES if self.endpoint is hello_in_stages else ()
        self.app: App = BudgetMiddleware(
            application(self.endpoint),
            server_timing=self.server_timing,
            **self.telemetry.options,
        )


def prometheus_endpoint() -> tuple[Endpoint, CollectorRegistry]:
    """Return an endpoint with eight histograms of prometheus_client bound beforehand."""
    registry = CollectorRegistry()
    histogram = Histogram("stage_seconds", "Seconds by stage.", ["stage"], registry=registry)
    gateway, auth, bridge, db, ml, trading, hub, response = map(histogram.labels, STAGES)

    async def endpoint(_: Request) -> Response:
        with gateway.time():
            pass
        with auth.time():
            pass
        with bridge.time():
            pass
        with db.time():
            pass
        with ml.time():
            pass
        with trading.time():
            pass
        with hub.time():
            pass
        with response.time():
            pass
        return PlainTextResponse("hello")

    return endpoint, registry


def verify(client: Client, watched: list[Watched], registry: CollectorRegistry) -> None:
    """Raise unless everybody counted what the client sent."""
    for one in watched:
        one.telemetry.verify(one.name, client.sent[one.name], one.stages)
    counted = registry.get_sample_value("stage_seconds_count", {"stage": "db"})
    if counted != client.sent["prometheus"]:
        raise WrongCountError(f"prometheus_client counted {counted}")
    timed = next(one for one in watched if one.name == "timing")
    headers = dict(client.answer(timed.app)[0]["headers"])
    if headers.get(b"server-timing", b"").count(b";dur=") != len(STAGES) + 1:
        raise WrongCountError(f"Server-Timing: {headers.get(b'server-timing')!r}")


def values(rounds: Rounds) -> dict[str, float]:
    """Return the values of this group's rows, by medians of what belongs to the same round."""

    def added(name: str, base: str = "bare") -> float:
        return rounds.added_usually(name, base)

    return {
        "asgi-0": rounds.ratio_usually("zero", "bare"),
        "asgi-8": added("eight") / added("floor8"),
        "asgi-8-timing": added("timing") / added("floor8"),
        # Histograms, outcomes, alarms and traces=auto are on by default, Server-Timing is not.
        "asgi-8-all": added("auto") / added("prometheus"),
        "asgi-8-all-timing": added("all") / added("prometheus"),
        "floor8": rounds.ratio_usually("floor8", "bare"),
        "asgi-8-total": rounds.ratio_usually("eight", "bare"),
        "asgi-0-auto": rounds.ratio_usually("zero_auto", "bare"),
        "asgi-8-auto": added("auto") / added("floor8"),
        "asgi-8-checked": added("checked") / added("floor8"),
        "asgi-8-template": added("template", "bare_template")
        / added("floor8_template", "bare_template"),
    }


def by_minima(rounds: Rounds) -> dict[str, float]:
    """Return the same ratios by the least times, for the remarks."""
    floor8 = rounds.added("floor8", "bare")
    return {
        "asgi-0": rounds.least("zero") / rounds.least("bare"),
        "asgi-8": rounds.added("eight", "bare") / floor8,
        "asgi-8-timing": rounds.added("timing", "bare") / floor8,
        "asgi-8-all": rounds.added("auto", "bare") / rounds.added("prometheus", "bare"),
        "asgi-8-auto": rounds.added("auto", "bare") / floor8,
        "asgi-8-checked": rounds.added("checked", "bare") / floor8,
    }


def good(rounds: Rounds) -> bool:
    """Tell whether one set is enough."""
    found = values(rounds)
    return (
        found["asgi-0"] <= 1.18
        and found["asgi-8"] <= 1.6
        and found["asgi-8-timing"] <= 2.3
        and found["asgi-8-all"] <= 0.6
    )


def measure(quick: bool) -> dict[str, Any]:  # noqa: FBT001 - the one switch there is
    """Return the values of this group's rows."""
    client = Client()
    peer, registry = prometheus_endpoint()
    watched = [
        Watched("zero", hello),
        Watched("eight"),
        Watched("timing", server_timing=True),
        Watched("all", telemetry=Telemetry(traces="auto"), server_timing=True),
        Watched("zero_auto", hello, Telemetry(traces="auto")),
        Watched("auto", telemetry=Telemetry(traces="auto")),
        Watched("checked", telemetry=Telemetry("checked")),
        Watched("template", path=SIGNAL),
    ]
    bare, floor8 = application(hello), PassThrough(application(hello_in_floors))
    plain: list[tuple[str, App, str]] = [
        ("bare", bare, HELLO),
        ("floor8", floor8, HELLO),
        ("prometheus", application(peer), HELLO),
        ("bare_template", bare, SIGNAL),
        ("floor8_template", floor8, SIGNAL),
    ]
    everything = plain + [(one.name, one.app, one.path) for one in watched]
    candidates = [
        Candidate(name, client.timing(name, app, path), TIMES) for name, app, path in everything
    ]
    rounds, remark = quietest(candidates, 120 if quick else 500, good)
    verify(client, watched, registry)
    minima = by_minima(rounds)
    rows: dict[str, dict[str, Any]] = {}
    for name, value in values(rounds).items():
        remarks = [f"by minima {minima[name]:.2f}"] if name in minima else []
        if name == "asgi-0":
            remarks.append(f"bare {1e6 * rounds.least('bare'):.2f} us")
            remarks.extend([remark] if remark else [])
        rows[name] = {"value": value, "remark": "; ".join(remarks)}
    return {"rows": rows, "details": rounds.figures()}


if __name__ == "__main__":
    sys.exit(report(measure))
