"""Which keys a policy file has, from the top down to a route.

Every field is optional except ``version``: a layer of an environment has the file's own shape.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Annotated, Final

from pydantic import Discriminator, Field, Tag

from budgetware.policyfile.fields import (
    AmountText,
    AnswerName,
    ClockText,
    Count,
    Duration,
    Flag,
    MatchText,
    ModeText,
    Name,
    Off,
    RequestDuration,
    Service,
    TimerText,
    Version,
)
from budgetware.policyfile.parts import (
    CachePart,
    ChecksPart,
    LadderPart,
    ObjectivesPart,
    Part,
    StagePart,
    StaticAnswerPart,
    TierPart,
)

# Tags of the forms one entry may have; the space keeps them apart from any key of the file.
_TEXT: Final = " text"
_TABLE: Final = " table"
_LIST: Final = " list"
_OFF: Final = " off"


def _form(value: object) -> str:
    if value is None or (isinstance(value, str) and value == "off"):
        return _OFF
    if isinstance(value, dict):
        return _TABLE
    return _LIST if isinstance(value, list) else _TEXT


def _text_or_table(value: object) -> str:
    return _TABLE if isinstance(value, dict | list) else _TEXT


def _text_or_list(value: object) -> str:
    return _LIST if isinstance(value, dict | list) else _TEXT


def _stage_form(value: object) -> str:
    form = _form(value)
    return _TABLE if form == _LIST else form


_ShortStage = Annotated[AmountText, Tag(_TEXT)]
_LongStage = Annotated[StagePart, Tag(_TABLE)]

StageEntry = Annotated[_ShortStage | _LongStage, Discriminator(_text_or_table)]
RouteStageEntry = Annotated[
    _ShortStage | _LongStage | Annotated[Off, Tag(_OFF)], Discriminator(_stage_form)
]
AnswerEntry = Annotated[
    Annotated[AnswerName, Tag(_TEXT)] | Annotated[StaticAnswerPart, Tag(_TABLE)],
    Discriminator(_text_or_table),
]
RouteBudget = Annotated[
    Annotated[Duration, Tag(_TEXT)] | Annotated[dict[Name, RequestDuration], Tag(_TABLE)],
    Discriminator(_text_or_table),
]
Matches = Annotated[
    Annotated[MatchText, Tag(_TEXT)] | Annotated[list[MatchText], Field(min_length=1), Tag(_LIST)],
    Discriminator(_text_or_list),
]


class RoutePart(Part):
    """A named group of requests, or a job when it matches none."""

    elsewhere = MappingProxyType(
        {"static": 'an entry of `answers`: `answers: [{static: {status: 200, body: "[]"}}]`'}
    )

    match: Annotated[
        Matches | None,
        Field(
            description="The requests that belong to it: a method or `*`, and a path template "
            "where `{name}` is one segment and a final `/**` is the rest, or a list of these. "
            "The most specific template wins. Without it the route is a job, opened by name.",
            examples=["GET /signals/{symbol}", ["GET /reports/**", "POST /reports"]],
        ),
    ] = None
    budget: Annotated[
        RouteBudget | None,
        Field(
            description="How long a request may take: one duration for everyone (the shorter of "
            "this and the tier's is in force), or durations by tier, in place of those tiers' own.",
            examples=["2s", {"pro": "500ms", "enterprise": "200ms"}],
        ),
    ] = None
    reserve: Annotated[
        AmountText | None,
        Field(
            description="What no stage may plan with: the network, a margin.",
            examples=["3ms", "10%"],
        ),
    ] = None
    stages: Annotated[
        dict[Name, RouteStageEntry],
        Field(
            default_factory=dict,
            description="Stages by name: an allocation, or a mapping. They lie over the file's "
            "`stages`, key by key; `off` drops an inherited one. A job inherits none.",
            examples=[{"db": "5ms", "ml": {"budget": "8ms", "optional": True}, "auth": "off"}],
        ),
    ]
    clock: Annotated[
        ClockText | None,
        Field(
            description="Which byte of the response ends the budget; `first_byte` unless said "
            "otherwise.",
            examples=["last_byte"],
        ),
    ] = None
    answers: Annotated[
        list[AnswerEntry],
        Field(
            default_factory=list,
            description="Smaller answers, best first: `cached`, `fallback`, `reject`, or a "
            "`static` one written down here.",
            examples=[["cached", {"static": {"status": 200, "body": "[]"}}, "reject"]],
        ),
    ]
    cache: Annotated[
        CachePart | None,
        Field(
            description="How long a stored answer may be used.",
            examples=[{"fresh": "1s", "stale": "60s", "vary": ["identity"]}],
        ),
    ] = None
    objectives: Annotated[
        ObjectivesPart | None,
        Field(
            description="What the distribution of its requests should look like.",
            examples=[{"p95": "25ms", "within_budget": "99%"}],
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
    cancel_safe: Annotated[
        Flag,
        Field(
            description="Whether its work may be cancelled when the clock has answered. For safe "
            "methods only, and under ASGI.",
            examples=[True],
        ),
    ] = False
    timer: Annotated[
        TimerText,
        Field(
            description="Whom the clock may answer while the work goes on: `safe` methods, which "
            "change nothing, or `unsafe` ones as well. Those are answered with the `static` answer "
            "of the route, whose status is then 202. `safe` unless said otherwise; under ASGI.",
            examples=["unsafe"],
        ),
    ] = "safe"


class LayerPart(Part):
    """What one environment changes: any part of the file, laid over it key by key."""

    service: Annotated[
        Service | None, Field(description="The service's name.", examples=["trading-api"])
    ] = None
    mode: Annotated[
        ModeText | None,
        Field(
            description="`observe` measures and reports. `shadow` also decides, and only says what "
            "it would have done. `enforce` does it. `observe` unless said otherwise.",
            examples=["observe"],
        ),
    ] = None
    ladder: Annotated[
        LadderPart | None,
        Field(
            description="How serious it is, by the share of a budget that was used.",
            examples=[{"warning": "80%", "critical": "100%", "breach": "150%"}],
        ),
    ] = None
    concurrency: Annotated[
        Count | None,
        Field(
            description="Requests one process runs at once; no limit unless given. The others "
            "wait in their tier's `queue`, or are told to come back.",
            examples=[64],
        ),
    ] = None
    tiers: Annotated[
        dict[Name, TierPart],
        Field(
            default_factory=dict,
            description="Classes of caller by name; the first one is for unknown callers.",
            examples=[{"free": {"budget": "1s"}, "pro": {"budget": "100ms"}}],
        ),
    ]
    stages: Annotated[
        dict[Name, StageEntry],
        Field(
            default_factory=dict,
            description="Stages every route inherits, by name: an allocation, or a mapping.",
            examples=[{"gateway": "2ms", "auth": "1ms"}],
        ),
    ]
    routes: Annotated[
        dict[Name, RoutePart],
        Field(
            default_factory=dict,
            description="Groups of requests, and jobs, by name.",
            examples=[{"signals": {"match": "GET /signals/{symbol}", "stages": {"db": "5ms"}}}],
        ),
    ]
    checks: Annotated[
        ChecksPart | None,
        Field(
            description="Budgets that are checked when the service is built.",
            examples=[{"assets": {"dist/*.js": "200KB"}}],
        ),
    ] = None


class PolicyFile(LayerPart):
    """A latency policy: what a service promises, to whom, and who may use how much of it."""

    version: Annotated[Version, Field(description="The format's version.", examples=[1])]
    environments: Annotated[
        dict[Name, LayerPart],
        Field(
            default_factory=dict,
            description="Changes by environment; `BUDGETWARE_ENV` picks one. Mappings are laid "
            "over the file key by key, lists and single values replace what is there.",
            examples=[{"staging": {"tiers": {"enterprise": {"budget": "60ms"}}}}],
        ),
    ]
