"""The validated file as a policy: defaults filled in, inheritance resolved, frozen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from budgetware._core.decide import late_worth_of
from budgetware._core.policy import (
    Amount,
    CachePolicy,
    Clock,
    Ladder,
    Match,
    Mode,
    Objectives,
    Policy,
    Route,
    StagePolicy,
    StaticAnswer,
    TierPolicy,
)
from budgetware.policyfile.layers import plain_text
from budgetware.policyfile.parts import (
    BenchmarkPart,
    CachePart,
    ChecksPart,
    Latencies,
    ObjectivesPart,
    StagePart,
    StaticAnswerPart,
    TierPart,
)
from budgetware.policyfile.schema import PolicyFile, RoutePart
from budgetware.policyfile.tree import Table

T = TypeVar("T")

_DIGEST_LENGTH = 12
_EMPTY: Mapping[str, Any] = MappingProxyType({})

Inherited = tuple[Amount | StagePart, StagePolicy]
"""One of the file's own stages, as written and compiled once for every route."""


def digest_of(tree: Table, environment: str | None) -> str:
    """Return a short, stable hash of what *tree* says in *environment*; comments do not count."""
    content = json.dumps([environment, plain_text(tree)], separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()[:_DIGEST_LENGTH]


def compile_policy(
    model: PolicyFile,
    *,
    environment: str | None = None,
    source: str | None = None,
    digest: str = "",
) -> Policy:
    """Return the policy *model* describes."""
    stages = {name: _stage(entry) for name, entry in model.stages.items()}
    inherited = {name: (entry, stages[name]) for name, entry in model.stages.items()}
    return Policy(
        service=model.service or "",
        mode=model.mode or Mode.OBSERVE,
        ladder=Ladder(**(model.ladder.model_dump() if model.ladder else {})),
        concurrency=model.concurrency,
        tiers=_frozen({name: _tier(tier) for name, tier in model.tiers.items()}),
        stages=_frozen(stages),
        routes=_frozen(
            {name: _route(name, route, inherited) for name, route in model.routes.items()}
        ),
        checks=_frozen(_checks(model.checks) if model.checks else {}),
        environment=environment,
        source=source,
        digest=digest,
    )


def _frozen(mapping: Mapping[str, T]) -> Mapping[str, T]:
    return MappingProxyType(dict(mapping)) if mapping else _EMPTY


def _tier(part: TierPart) -> TierPolicy:
    given = dict(part)
    confidence = given.pop("confidence")
    if confidence is not None:
        given["late_worth"] = late_worth_of(confidence)
    return TierPolicy(**given)


def _route(name: str, route: RoutePart, inherited: Mapping[str, Inherited]) -> Route:
    match = route.match
    matches = () if match is None else (match,) if isinstance(match, Match) else tuple(match)
    statics = [answer for answer in route.answers if isinstance(answer, StaticAnswerPart)]
    return Route(
        name=name,
        match=matches,
        budget=None if isinstance(route.budget, dict) else route.budget,
        tier_budgets=_frozen(route.budget if isinstance(route.budget, dict) else {}),
        reserve=route.reserve,
        stages=_frozen(_stages_of(route, inherited if matches else {})),
        clock=route.clock or Clock.FIRST_BYTE,
        answers=tuple(answer if isinstance(answer, str) else "static" for answer in route.answers),
        static=_static(statics[0]) if statics else None,
        cache=_cache(route.cache) if route.cache else None,
        objectives=_objectives(route.objectives) if route.objectives else None,
        mode=route.mode,
        cancel_safe=route.cancel_safe,
        times_unsafe=route.timer == "unsafe",
    )


def _stages_of(route: RoutePart, inherited: Mapping[str, Inherited]) -> dict[str, StagePolicy]:
    """Return the inherited stages and then the route's own; its keys win, ``off`` drops one."""
    stages = {name: compiled for name, (_, compiled) in inherited.items()}
    for name, entry in route.stages.items():
        if entry is None:
            stages.pop(name, None)
        else:
            below, _ = inherited.get(name, (None, None))
            stages[name] = _stage(entry, below)
    return stages


def _stage(entry: Amount | StagePart, below: Amount | StagePart | None = None) -> StagePolicy:
    keys = (_keys(below) if below is not None else {}) | _keys(entry)
    merged = StagePart.model_construct(**keys)
    return StagePolicy(
        budget=merged.budget,
        optional=merged.optional,
        operations=_frozen(merged.operations),
        calls=merged.calls,
        objectives=_objectives(merged.objectives) if merged.objectives else None,
        answers=merged.on_overrun == "answer",
    )


def _keys(entry: Amount | StagePart) -> dict[str, Any]:
    """Return what the file says about a stage, short or long, and nothing it does not say."""
    if isinstance(entry, Amount):
        return {"budget": entry}
    return {name: getattr(entry, name) for name in entry.model_fields_set}


def _static(answer: StaticAnswerPart) -> StaticAnswer:
    static = answer.static
    return StaticAnswer(status=static.status, body=static.body, headers=_frozen(static.headers))


def _cache(cache: CachePart) -> CachePolicy:
    return CachePolicy(
        fresh=cache.fresh, stale=cache.stale, vary=tuple(cache.vary), public=cache.public
    )


def _percentiles(latencies: Latencies) -> Mapping[float, float]:
    return MappingProxyType(dict(sorted(latencies.percentiles.items())))


def _objectives(part: ObjectivesPart) -> Objectives:
    return Objectives(
        percentiles=_percentiles(part),
        average=part.average,
        within_budget=part.within_budget,
        degraded=part.degraded,
        error_rate=part.error_rate,
        availability=part.availability,
    )


def _checks(checks: ChecksPart) -> dict[str, object]:
    """Return the build-time budgets that are given, as plain data."""
    data: dict[str, object] = {}
    if checks.benchmarks:
        data["benchmarks"] = _frozen(
            {name: _frozen(_benchmark(part)) for name, part in checks.benchmarks.items()}
        )
    if checks.assets:
        data["assets"] = _frozen(checks.assets)
    if checks.load:
        data["load"] = _frozen(checks.load.model_dump(exclude_none=True))
    return data


def _benchmark(part: BenchmarkPart) -> dict[str, object]:
    given = {
        "average": part.average,
        "memory": part.memory,
        "min_rate": part.min_rate,
    }
    return {"percentiles": _percentiles(part)} | {
        name: value for name, value in given.items() if value is not None
    }
