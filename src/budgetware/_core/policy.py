"""What was promised: the policy file's content as frozen values, and one plan per route and tier.

This file knows numbers, not text: units, YAML and line numbers belong to ``policyfile``.
Durations are seconds, shares are fractions of one, rates are per second, sizes are bytes.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from os import PathLike
from types import MappingProxyType
from typing import Any, Final, cast

UNMATCHED = "_unmatched"
"""The route of last resort: requests that match nothing in the policy."""


class Mode(StrEnum):
    """How far budgetware may go: measure, decide without acting, or act."""

    OBSERVE = "observe"
    SHADOW = "shadow"
    ENFORCE = "enforce"


class Clock(StrEnum):
    """Which byte of the response ends the budget."""

    FIRST_BYTE = "first_byte"
    LAST_BYTE = "last_byte"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """Severity by the share of a budget or an allocation that was used."""

    warning: float = 0.8
    critical: float = 1.0
    breach: float = 1.5


@dataclass(frozen=True, slots=True)
class Amount:
    """A duration: so many seconds, or a share of the request's whole budget."""

    seconds: float | None = None
    share: float | None = None

    def of(self, total_s: float) -> float:
        """Return the seconds this is out of *total_s*; a share of no limit is no limit."""
        if self.seconds is not None:
            return self.seconds
        return inf if self.share is None or total_s == inf else self.share * total_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Objectives:
    """What the distribution of a route's or a stage's times should look like; these do not add up.

    Attributes:
        percentiles: Seconds by percentile, such as ``{0.95: 0.025}``.
        average: Seconds.
        within_budget: Least share of requests within their budget.
        degraded: Largest share of degraded answers.
        error_rate: Largest share of failed requests.
        availability: Least share of requests answered at all.

    """

    percentiles: Mapping[float, float] = field(default_factory=dict)
    average: float | None = None
    within_budget: float | None = None
    degraded: float | None = None
    error_rate: float | None = None
    availability: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePolicy:
    """What one stage of a route may use.

    Attributes:
        budget: The allocation per request, or ``None`` for a stage that is only measured.
        optional: Whether requests may do without it; unused, its allocation returns to the pool.
        operations: Allocations of the stage's operations, by name.
        calls: How many times a request may open the stage.
        objectives: What the distribution of its times should look like.
        answers: Whether a request is answered with something smaller when the stage is about to
            open and it and the rest will not fit.

    """

    budget: Amount | None = None
    optional: bool = False
    operations: Mapping[str, Amount] = field(default_factory=dict)
    calls: int | None = None
    objectives: Objectives | None = None
    answers: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TierPolicy:
    """One class of caller.

    Attributes:
        budget: Seconds per request; ``None`` when the tier promises no latency.
        rate: Requests per second of one caller.
        queue: Longest wait for admission, in seconds.
        share: Guaranteed share of the process's concurrency.
        late_worth: What a late answer is worth when a full one in time is worth 1.
        max_late_rate: Share of late answers to hold in the long run.
        mode: Overrides the policy's mode.

    """

    budget: float | None = None
    rate: float | None = None
    queue: float | None = None
    share: float | None = None
    late_worth: float = 0.0
    max_late_rate: float | None = None
    mode: Mode | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePolicy:
    """How long a stored full answer may stand in for a new one, and what separates callers.

    Attributes:
        fresh: Seconds for which it is as good as a new one.
        stale: Seconds for which it may be used after that.
        vary: ``identity``, ``tier`` or names of request fields.
        public: Whether responses are the same for everybody, whatever a request carries besides
            credentials.

    """

    fresh: float = 0.0
    stale: float = 0.0
    vary: tuple[str, ...] = ()
    public: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticAnswer:
    """A response written in the policy file, sent as it is.

    Attributes:
        status: The HTTP status.
        body: The whole body, as text.
        headers: By name.

    """

    status: int = 200
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Match:
    """A method (``*`` for any) and a path template such as ``/signals/{symbol}``."""

    method: str
    template: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A named group of requests, or a job when nothing is matched.

    Attributes:
        name: The label everywhere: metrics, logs, reports.
        match: The requests that belong to it; empty for a job opened by name.
        budget: Seconds for every tier; the shorter of this and the tier's own is in force.
        tier_budgets: Seconds this route promises one tier, in place of that tier's own.
        reserve: What no stage may plan with.
        stages: By name, the policy's defaults included.
        clock: Which byte ends the budget.
        answers: Smaller answers in order of preference.
        static: The response the answer ``static`` stands for.
        cache: What may be stored of this route.
        objectives: What its distribution should look like.
        mode: Overrides the policy's mode.
        cancel_safe: Whether work may be cancelled at the deadline.
        times_unsafe: Whether the clock also answers for methods that change something.

    """

    name: str
    match: tuple[Match, ...] = ()
    budget: float | None = None
    tier_budgets: Mapping[str, float] = field(default_factory=dict)
    reserve: Amount | None = None
    stages: Mapping[str, StagePolicy] = field(default_factory=dict)
    clock: Clock = Clock.FIRST_BYTE
    answers: tuple[str, ...] = ()
    static: StaticAnswer | None = None
    cache: CachePolicy | None = None
    objectives: Objectives | None = None
    mode: Mode | None = None
    cancel_safe: bool = False
    times_unsafe: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePlan:
    """A stage's limits for one route and tier, in seconds; ``inf`` where there is none."""

    name: str
    limit_s: float = inf
    optional: bool = False
    operations: Mapping[str, float] = field(default_factory=dict)
    calls: float = inf
    answers: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one route promises one tier.

    Attributes:
        route: The route's name.
        tier: The tier's name, or ``None`` outside any tier.
        limit_s: The whole budget in seconds, ``inf`` when nothing is promised.
        reserve_s: The part of it no stage may plan with.
        stages: Limits by stage name.
        clock: Which byte of the response ends the budget.
        ladder: Severity by share used.
        mode: How far decisions may go here.
        late_worth: What a late answer is worth when a full one in time is worth 1.
        max_late: Share of late answers to hold in the long run, ``None`` where nothing is said.
        answers: Smaller answers in order of preference.
        static: The response the answer ``static`` stands for.
        cache: What may be stored.
        degraded: Largest share of smaller answers, 1 where nothing is said.
        cancel_safe: Whether work may be cancelled at the deadline.
        times_unsafe: Whether the clock also answers for methods that change something.
        namespace: The service and its environment, told apart from others on a shared server.

    """

    route: str
    tier: str | None = None
    limit_s: float = inf
    reserve_s: float = 0.0
    stages: Mapping[str, StagePlan] = field(default_factory=dict)
    clock: Clock = Clock.FIRST_BYTE
    ladder: Ladder = field(default_factory=Ladder)
    mode: Mode = Mode.OBSERVE
    late_worth: float = 0.0
    max_late: float | None = None
    answers: tuple[str, ...] = ()
    static: StaticAnswer | None = None
    cache: CachePolicy | None = None
    degraded: float = 1.0
    cancel_safe: bool = False
    times_unsafe: bool = False
    namespace: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The whole parsed file, immutable once loaded; a reload swaps one reference.

    ``Policy()`` is the policy of a run without a file: it measures and promises nothing.

    Attributes:
        service: The service's name.
        mode: ``observe`` unless the file says otherwise.
        ladder: Severity by share used.
        concurrency: Requests one process runs at once.
        tiers: By name; the first is the default for unknown callers.
        stages: Defaults every route inherits.
        routes: By name.
        checks: Build-time budgets, as validated plain data.
        environment: The layer that was applied, if any.
        source: The file's name, ``None`` without a file.
        digest: Identifies the content; part of every record.
        most: The furthest any mode may go, whatever the file says: the kill switch.

    """

    service: str = ""
    mode: Mode = Mode.OBSERVE
    ladder: Ladder = field(default_factory=Ladder)
    concurrency: int | None = None
    tiers: Mapping[str, TierPolicy] = field(default_factory=dict)
    stages: Mapping[str, StagePolicy] = field(default_factory=dict)
    routes: Mapping[str, Route] = field(default_factory=dict)
    checks: Mapping[str, object] = field(default_factory=dict)
    environment: str | None = None
    source: str | None = None
    digest: str = ""
    most: Mode = Mode.ENFORCE

    @classmethod
    def load(
        cls, path: str | PathLike[str] | None = None, *, environment: str | None = None
    ) -> Policy:
        """Return the policy of a file; an empty one when none is named and there is none.

        A middleware that is given it has nothing to read when the server is already running.

        Args:
            path: The file; by default ``BUDGETWARE_POLICY``, ``./budgetware.yaml``, or the one
                that ``[tool.budgetware]`` in ``./pyproject.toml`` names.
            environment: The layer of the file's ``environments``; by default ``BUDGETWARE_ENV``.

        Raises:
            PolicyError: The file is not there or has errors; all of them are listed.
            TypeError: *path* is no file's name.

        """
        if not isinstance(path, str | PathLike | None):
            raise TypeError(
                f"path must be the name of a file, not {path!r:.80}; Policy.parse takes its text"
            )
        _check_environment(environment)
        return cast("Policy", _policyfile().load(path, environment=environment))

    @classmethod
    def parse(cls, text: str | bytes, *, environment: str | None = None) -> Policy:
        """Return the policy that *text* is the file of.

        Args:
            text: YAML, as in ``budgetware.yaml``.
            environment: The layer of its ``environments``; none unless given.

        Raises:
            PolicyError: It has errors; all of them are listed.
            TypeError: *text* is no text.

        """
        if not isinstance(text, str | bytes):
            raise TypeError(
                "text must be the YAML of a policy, as str or bytes, "
                f"not a {type(text).__name__}; Policy.load reads a file"
            )
        _check_environment(environment)
        return cast("Policy", _policyfile().check(text, environment=environment).require())

    @property
    def decides(self) -> bool:
        """Whether anything may be decided under it, and not only measured."""
        of_tiers = {tier.mode for tier in self.tiers.values()}
        of_routes = {route.mode for route in self.routes.values()}
        return not {self.mode} | of_tiers | of_routes <= {None, Mode.OBSERVE}

    @property
    def default_tier(self) -> str | None:
        """The tier of unknown callers: the first in the file, ``None`` without tiers."""
        return next(iter(self.tiers), None)

    @property
    def namespace(self) -> str:
        """The service and its environment as one text; empty when neither has a name."""
        return (
            f"{self.service}\0{self.environment or ''}" if self.service or self.environment else ""
        )

    def limit_s(self, route: Route | None, tier: str | None) -> float:
        """Return the seconds *route* promises *tier*; ``inf`` when nothing is promised.

        A route's own figure for the tier is that promise. Otherwise the shorter of the route's
        and the tier's budget is in force, so that neither can lengthen the other.
        """
        if route is not None and tier is not None and tier in route.tier_budgets:
            return route.tier_budgets[tier]
        of_route = route.budget if route is not None else None
        of_tier = None if tier is None or tier not in self.tiers else self.tiers[tier].budget
        return min((budget for budget in (of_route, of_tier) if budget is not None), default=inf)

    def mode_of(self, route: Route | None, tier: str | None) -> Mode:
        """Return how far decisions on *route* for *tier* may go.

        What the route or the tier says stands in place of the policy's mode; where both say
        something, the more cautious holds.
        """
        of_tier = None if tier is None or tier not in self.tiers else self.tiers[tier].mode
        of_route = None if route is None else route.mode
        said = [mode for mode in (of_route, of_tier) if mode is not None]
        return min((*(said or [self.mode]), self.most), key=_CAUTION.index)

    def plan(self, route: Route | None, tier: str | None) -> Plan:
        """Compile what *route* promises *tier*; ``None`` stands for ``_unmatched`` and no tier."""
        limit_s = self.limit_s(route, tier)
        stages = self.stages if route is None else route.stages
        reserve = None if route is None else route.reserve
        return Plan(
            route=UNMATCHED if route is None else route.name,
            tier=tier,
            limit_s=limit_s,
            reserve_s=_reserve_s(reserve, limit_s),
            stages=MappingProxyType(
                {name: _stage_plan(name, stage, limit_s) for name, stage in stages.items()},
            ),
            clock=Clock.FIRST_BYTE if route is None else route.clock,
            ladder=self.ladder,
            mode=self.mode_of(route, tier),
            namespace=self.namespace,
            **_attitude(None if tier is None else self.tiers.get(tier)),
            **_alternatives(route),
        )


_CAUTION = (Mode.OBSERVE, Mode.SHADOW, Mode.ENFORCE)


def _attitude(tier: TierPolicy | None) -> dict[str, Any]:
    if tier is None:
        return {}
    return {"late_worth": tier.late_worth, "max_late": tier.max_late_rate}


def _alternatives(route: Route | None) -> dict[str, Any]:
    if route is None:
        return {}
    degraded = None if route.objectives is None else route.objectives.degraded
    return {
        "answers": route.answers,
        "static": route.static,
        "cache": route.cache,
        "degraded": 1.0 if degraded is None else degraded,
        "cancel_safe": route.cancel_safe,
        "times_unsafe": route.times_unsafe,
    }


def _reserve_s(reserve: Amount | None, total_s: float) -> float:
    if reserve is None:
        return 0.0
    # A share of no limit is no limit, and that reserves nothing.
    seconds = min(reserve.of(total_s), total_s)
    return 0.0 if seconds == inf else seconds


# Of the stages without operations, which are most of the many that every tier of every route has.
_NO_OPERATIONS: Final[Mapping[str, float]] = MappingProxyType({})


def _stage_plan(name: str, stage: StagePolicy, total_s: float) -> StagePlan:
    operations = {operation: amount.of(total_s) for operation, amount in stage.operations.items()}
    return StagePlan(
        name=name,
        limit_s=inf if stage.budget is None else stage.budget.of(total_s),
        optional=stage.optional,
        operations=MappingProxyType(operations) if operations else _NO_OPERATIONS,
        calls=inf if stage.calls is None else stage.calls,
        answers=stage.answers,
    )


def _check_environment(name: object) -> None:
    if not isinstance(name, str | None):
        raise TypeError(f"environment must be a name in the policy file, not {name!r:.80}")


def _policyfile() -> Any:
    # By name, for people look for it at the class: the core itself imports nothing that reads.
    return importlib.import_module("budgetware.policyfile")
