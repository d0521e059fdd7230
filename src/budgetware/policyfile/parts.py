"""The parts a policy file is made of: keys, what they mean and what they take.

The models are the single source of the JSON Schema and of the reference page.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final

from pydantic import BaseModel, ConfigDict, Field, model_validator

from budgetware.policyfile.fields import (
    PERCENTILE_PATTERN,
    AmountText,
    Confidence,
    Count,
    Duration,
    Flag,
    HeaderName,
    HeaderValue,
    LateRate,
    Level,
    ModeText,
    Name,
    OnOverrun,
    Percentile,
    Rate,
    RequestDuration,
    Share,
    ShareOrNone,
    Size,
    Status,
    Wait,
    Words,
    Worth,
)

# The name of a part that is no key of the file; the space keeps it apart from any key.
_PERCENTILES: Final = " percentiles"

_LIKE_PERCENTILE: Final = re.compile(r"p[0-9][0-9.]*")


class UnknownKeysError(ValueError):
    """Keys that the part of the file they are in does not have."""

    def __init__(self, unknown: list[str], known: list[str], elsewhere: Mapping[str, str]) -> None:
        self.unknown = unknown
        self.known = known
        self.elsewhere = elsewhere
        super().__init__(", ".join(unknown))


class Part(BaseModel):
    """A mapping of the file; unknown keys are all named at once."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    elsewhere: ClassVar[Mapping[str, str]] = {}
    """Hints for keys that belong somewhere else, by key."""

    @classmethod
    def known_keys(cls) -> list[str]:
        """Return the keys this part has, in the order of the reference."""
        names = [info.alias or name for name, info in cls.model_fields.items()]
        return [name for name in names if not name.startswith(" ")]

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: object) -> object:
        if isinstance(data, dict):
            known = cls.known_keys()
            if unknown := [key for key in data if key not in known and not cls._collects(key)]:
                raise UnknownKeysError(unknown, known, cls.elsewhere)
            return cls._collected(data)
        return data

    @classmethod
    def _collects(cls, key: str) -> bool:  # noqa: ARG003 - for the parts that do
        return False

    @classmethod
    def _collected(cls, data: dict[str, object]) -> dict[str, object]:
        return data


def _show_percentiles(schema: dict[str, Any]) -> None:
    """Write the collected percentiles as what they are in the file: keys such as ``p95``."""
    collected = schema["properties"].pop(_PERCENTILES)
    schema["patternProperties"] = {
        PERCENTILE_PATTERN: collected["additionalProperties"]
        | {"description": collected["description"], "examples": ["25ms"]},
    }


class Latencies(Part):
    """Percentiles and the average of some times."""

    model_config = ConfigDict(json_schema_extra=_show_percentiles)

    percentiles: Annotated[
        dict[Percentile, Duration],
        Field(
            default_factory=dict,
            alias=_PERCENTILES,
            description="At most this long for that share of them: `p50`, `p95`, `p99.9`.",
        ),
    ]
    average: Annotated[
        Duration | None, Field(description="At most this long on average.", examples=["20ms"])
    ] = None

    @classmethod
    def _collects(cls, key: str) -> bool:
        return _LIKE_PERCENTILE.fullmatch(key) is not None

    @classmethod
    def _collected(cls, data: dict[str, object]) -> dict[str, object]:
        percentiles = {key: value for key, value in data.items() if cls._collects(key)}
        rest = {key: value for key, value in data.items() if not cls._collects(key)}
        return rest | {_PERCENTILES: percentiles}


class ObjectivesPart(Latencies):
    """What a distribution should look like. Objectives are about many requests; unlike
    allocations they do not add up.
    """  # noqa: D205 - the text is the schema's description

    within_budget: Annotated[
        Share | None,
        Field(
            description="At least this share of requests is within its budget.", examples=["99%"]
        ),
    ] = None
    degraded: Annotated[
        ShareOrNone | None,
        Field(
            description="At most this share of requests gets a smaller answer.", examples=["0.1%"]
        ),
    ] = None
    error_rate: Annotated[
        ShareOrNone | None, Field(description="At most this share fails.", examples=["0.1%"])
    ] = None
    availability: Annotated[
        Share | None,
        Field(description="At least this share is answered at all.", examples=["99.95%"]),
    ] = None


class StagePart(Part):
    """What one stage may use of a request's budget."""

    budget: Annotated[
        AmountText | None,
        Field(
            description="The allocation: a hard limit for each request, as a duration or as a "
            "share of the request's budget. Without one the stage is only measured.",
            examples=["5ms", "30%"],
        ),
    ] = None
    optional: Annotated[
        Flag,
        Field(
            description="Whether a request may do without the stage. Unused, its allocation "
            "returns to the others.",
            examples=[True],
        ),
    ] = False
    operations: Annotated[
        dict[Name, AmountText],
        Field(
            default_factory=dict,
            description="Allocations of parts of the stage, by name. One request need not run all "
            "of them, so they may add up to more than the stage.",
            examples=[{"postgres": "2ms", "cache": "1ms"}],
        ),
    ]
    calls: Annotated[
        Count | None,
        Field(description="How many times one request may enter the stage.", examples=[50]),
    ] = None
    objectives: Annotated[
        ObjectivesPart | None,
        Field(
            description="What the distribution of the stage's times should look like.",
            examples=[{"p95": "4ms"}],
        ),
    ] = None
    on_overrun: Annotated[
        OnOverrun,
        Field(
            description="What to do when the stage is about to open and the forecast says that it "
            "and the rest will not fit: go on, or send one of the route's `answers` there and "
            "then. `continue` unless said otherwise.",
            examples=["answer"],
        ),
    ] = "continue"


class TierPart(Part):
    """A class of caller."""

    budget: Annotated[
        RequestDuration | None,
        Field(
            description="How long one of its requests may take. Without one the tier is promised "
            "no latency.",
            examples=["100ms"],
        ),
    ] = None
    rate: Annotated[
        Rate | None,
        Field(
            description="Requests one caller may make; a second's worth of them at once, and "
            "always one. Callers without an identity share one rate.",
            examples=["10/s", "600/m"],
        ),
    ] = None
    queue: Annotated[
        Wait | None,
        Field(
            description="The longest wait for one of the `concurrency`, and at most half of what "
            "a request has left. Without it nobody waits.",
            examples=["20ms"],
        ),
    ] = None
    share: Annotated[
        Share | None,
        Field(
            description="Share of `concurrency` that is always there for this tier. It may take "
            "more of what is nobody's share.",
            examples=["50%"],
        ),
    ] = None
    late_worth: Annotated[
        Worth,
        Field(
            description="What a late answer is worth to this tier, when a full one in time is "
            "worth 1. Below 0, late is worse than nothing.",
            examples=[-0.5],
        ),
    ] = 0.0
    confidence: Annotated[
        Confidence | None,
        Field(
            description="`late_worth` in other words: a request goes on when the forecast is at "
            "least so sure that it will be in time. One tier has one of the two.",
            examples=["60%"],
        ),
    ] = None
    max_late_rate: Annotated[
        LateRate | None,
        Field(
            description="The share of late answers to hold on each route in the long run: with "
            "more of them requests are given up sooner, with fewer later.",
            examples=["1%"],
        ),
    ] = None
    mode: Annotated[
        ModeText | None,
        Field(
            description="In place of the file's mode. Where route and tier have one, the more "
            "cautious holds.",
            examples=["observe"],
        ),
    ] = None


class CachePart(Part):
    """How long a stored full answer may stand in for a new one."""

    fresh: Annotated[Wait, Field(description="So long it is as good as new.", examples=["1s"])] = (
        0.0
    )
    stale: Annotated[
        Wait,
        Field(description="So long it is better than nothing, and marked.", examples=["60s"]),
    ] = 0.0
    vary: Annotated[
        list[HeaderName],
        Field(
            default_factory=list,
            description="What separates stored answers: `identity`, `tier` or request headers.",
            examples=[["identity"]],
        ),
    ]
    public: Annotated[
        Flag,
        Field(
            description="Whether answers are the same for everybody. Without it, and without an "
            "identity, an answer is only shared where every request header is known to say "
            "nothing of the caller. With it, everything but credentials is let pass.",
            examples=[True],
        ),
    ] = False


class StaticPart(Part):
    """A response written down here, sent as it is."""

    status: Annotated[Status, Field(description="The HTTP status.", examples=[200])] = 200
    body: Annotated[Words, Field(description="The whole body.", examples=['{"signals": []}'])] = ""
    headers: Annotated[
        dict[HeaderName, HeaderValue],
        Field(
            default_factory=dict,
            description="Response headers, by name.",
            examples=[{"content-type": "application/json"}],
        ),
    ]


class StaticAnswerPart(Part):
    """The smaller answer that is written down here."""

    static: Annotated[
        StaticPart,
        Field(description="The response.", examples=[{"status": 200, "body": "[]"}]),
    ]


class LadderPart(Part):
    """How serious it is, by the share of a budget that was used."""

    warning: Annotated[Level, Field(description="Getting close.", examples=["80%"])] = 0.8
    critical: Annotated[Level, Field(description="Over.", examples=["100%"])] = 1.0
    breach: Annotated[Level, Field(description="Far over.", examples=["150%"])] = 1.5


class BenchmarkPart(Latencies):
    """What one benchmark may use."""

    memory: Annotated[
        Size | None, Field(description="At most this much memory.", examples=["10MB"])
    ] = None
    min_rate: Annotated[
        Rate | None, Field(description="At least this many a second.", examples=["50/s"])
    ] = None


class LoadPart(Part):
    """The load test under which routes must keep their objectives."""

    users: Annotated[Count | None, Field(description="Concurrent users.", examples=[500])] = None
    duration: Annotated[
        Duration | None, Field(description="How long it runs.", examples=["2m"])
    ] = None
    min_rate: Annotated[
        Rate | None, Field(description="Requests served, at least.", examples=["100/s"])
    ] = None


class ChecksPart(Part):
    """Budgets that are checked when the service is built, not when it runs."""

    benchmarks: Annotated[
        dict[Name, BenchmarkPart],
        Field(
            default_factory=dict,
            description="By the benchmark's name.",
            examples=[{"schema_validator": {"p95": "50ms", "memory": "10MB"}}],
        ),
    ]
    assets: Annotated[
        dict[str, Size],
        Field(
            default_factory=dict,
            description="Sizes of built files, by glob pattern; `total` is all of them together.",
            examples=[{"dist/*.js": "200KB", "total": "850KB"}],
        ),
    ]
    load: Annotated[
        LoadPart | None,
        Field(
            description="The load test.",
            examples=[{"users": 500, "duration": "2m", "min_rate": "100/s"}],
        ),
    ] = None
