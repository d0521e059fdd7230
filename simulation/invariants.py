"""What must hold in every world, whatever happens in it.

Some of it is looked at after every step, some of it when a response has ended, and the rest when
nothing is left to happen. What one door owes one request is in ``passages``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from budgetware._core.policy import Mode
from budgetware.http import SAFE_METHODS
from simulation.applications import MARK
from simulation.policies import ACCEPTED, STATIC

if TYPE_CHECKING:
    from budgetware._core.admit import Admission
    from simulation.clients import Request
    from simulation.doors import Guarded
    from simulation.world import World

SLACK_S: Final = 0.05
"""Between a look at what is kept and the answer a shared store may be asked."""

_REFUSALS: Final = {429, 503, 504}


@dataclass(frozen=True, slots=True)
class Reply:
    """What a client got.

    Attributes:
        status: Its status.
        headers: By name, in lower case.
        body: As much of the body as there was.
        whole: Whether it was all.
        at_s: When it began.

    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool
    at_s: float


def check_step(world: World) -> None:
    """Look at what must hold after every step."""
    for door in world.doors:
        engine = door.engine
        now = engine._traffic.now
        if not 0 <= now <= door.under_way:
            world.fails("traffic", f"{now} at {door.name}, with {door.under_way} under way")
        admission = engine.entrance.enforced
        if admission is not None:
            in_use = admission.in_flight
            ever_lent = len(door.lent)
            lent = door.lends()
            world.met["slots that are lent"] += len(door.lent) - ever_lent
            holding = len(door.holding - lent)
            if not holding <= in_use <= door.under_way + world.loose:
                world.fails("slots", f"{in_use} at {door.name}, with {holding} at work")
            for number in lent:
                run = world.runs.get(number)  # none yet, where a door inside answers
                if run is not None and run.is_at_work:
                    world.fails("slots", f"that of {number} is lent at {door.name}, and it works")
            limit = engine.policy.concurrency
            # A slot that was lent is taken back over the limit.
            if len(world.policies) == 1 and limit is not None and in_use > limit + len(door.lent):
                world.fails("slots", f"{in_use} of {limit} at {door.name}")


def check_reply(world: World, request: Request, reply: Reply, *, is_blamed: bool) -> None:
    """Look at what one client got: one response, whole, and his own.

    Args:
        world: The world.
        request: What he asked for.
        reply: What he got.
        is_blamed: Whether somebody is to blame for a response that is torn.

    """
    kind = reply.headers.get("budgetware-answer")
    world.met[f"{kind or 'full'} responses" if reply.whole else "torn responses"] += 1
    if not reply.whole and not is_blamed:
        world.fails("one response", f"that to {request.number} is torn, and nobody is to blame")
    if kind in {None, "partial"}:
        _check_full(world, request, reply, is_partial=kind is not None)
        return
    if request.method == "HEAD" and reply.body:
        world.fails("one response", f"that to {request.number} has a body, and is one to HEAD")
    if not reply.whole or request.method == "HEAD":
        return
    expected: object
    if kind == "cached":
        _check_kept(world, request, reply)
        return
    if kind == "fallback":
        expected = f"cheap for {request.mark}".encode()
        is_right = reply.body == expected
    elif kind == "static":
        expected = STATIC, ACCEPTED
        is_right = reply.body.decode() in {STATIC, ACCEPTED}
    else:
        expected = _REFUSALS
        is_right = reply.status in _REFUSALS and reply.body.startswith(b"{")
    if not is_right:
        world.fails("whose", f"{request.number} got {reply.body!r} as {kind}, and not {expected!r}")


def check_promise(world: World, request: Request, took_s: float) -> None:
    """Look at whether a response has begun in time, where the clock can see to that.

    Args:
        world: The world, one of coroutines.
        request: What was asked for.
        took_s: How long it took until the response began.

    """
    policy = world.policies[0]
    route = policy.routes.get(request.path.split("/")[1])
    run = world.runs.get(request.number)
    if (
        route is None
        or len(world.policies) > 1
        or len(world.doors) > len(world.outer_doors)
        or (run is not None and run.is_odd)
        or request.upload
        or request.method == "OPTIONS"
        or route.objectives is not None
        or not {"static", "reject"} & set(route.answers)
    ):
        return
    tier = request.tier if request.tier in policy.tiers else policy.default_tier
    plan = policy.plan(route, tier)
    is_safe = request.method in SAFE_METHODS
    if plan.mode is Mode.ENFORCE and is_safe and took_s > plan.limit_s + 1e-6:
        world.fails("promise", f"{request.number} was answered after {took_s} of {plan.limit_s} s")


def _check_full(world: World, request: Request, reply: Reply, *, is_partial: bool) -> None:
    run = world.runs.get(request.number)
    if run is None or reply.headers.get(MARK) != request.mark:
        world.fails("whose", f"{request.number} got what was made for {reply.headers.get(MARK)}")
        return
    full = b"".join(run.response.parts)
    if reply.body != full if reply.whole else not full.startswith(reply.body):
        world.fails("one response", f"{request.number} got {reply.body!r} for {full!r}")
    if run.is_partial is not is_partial:
        world.fails("mark", f"{request.number} got {run.fallbacks} stages less, unmarked or not so")


def _check_kept(world: World, request: Request, reply: Reply) -> None:
    mark = reply.headers.get(MARK, "")
    number = mark.partition("|")[0]
    run = world.runs.get(int(number)) if number.isdigit() else None
    if run is None or run.request.mark != mark:
        world.fails("whose", f"{request.number} got a response made for nobody: {mark}")
        return
    made_for = run.request
    if reply.body != b"".join(run.response.parts) or reply.status != run.response.status:
        world.fails("whose", f"{request.number} got {reply.body!r} out of the cache")
    whose = [one.who if one.who_is_known else None for one in (made_for, request)]
    if whose[0] != whose[1] or made_for.url != request.url or made_for.method != "GET":
        world.fails("whose", f"{request.number} of {request.mark} got what is {mark}'s")
    if whose[1] is None and (request.has_credentials or made_for.has_credentials):
        world.fails("whose", f"{request.number} or {number} may be anybody's, and they share")
    if not run.response.may_be_kept or run.is_partial:
        world.fails("kept", f"{request.number} got what must not be kept: {run.response.headers}")
    if world.redis is None or not world.redis.lies:
        longest_s = max(
            (route.cache.fresh + route.cache.stale)
            for policy in world.policies
            for route in policy.routes.values()
            if route.cache is not None
        )
        age_s = reply.at_s - run.began_s
        if age_s > longest_s + SLACK_S:
            world.fails("kept", f"{request.number} got what is {age_s} s old")
    door, arrived_s = world.served_by[request.number]
    for where, url, wrote_s in world.writes:
        if where is door and url == request.url and run.began_s <= wrote_s < arrived_s:
            world.fails(
                "kept", f"{request.number} got what was written to after {number} had begun"
            )


def check_end(world: World) -> None:
    """Look at what must hold when nothing is left to happen."""
    check_clean(world)
    for door in world.doors:
        _check_tally(world, door)


def check_clean(world: World) -> None:
    """Look whether nothing is under way at any door."""
    for door in world.doors:
        engine = door.engine
        if engine._traffic.now:
            world.fails("traffic", f"{engine._traffic.now} are left at {door.name}")
        for admission in (engine.entrance.enforced, engine.entrance.shadow):
            if admission is not None:
                _check_free(world, door, admission)


def _check_free(world: World, door: Guarded, admission: Admission) -> None:
    load = admission.load()
    if admission.in_flight or any(map(any, load.values())) or admission.faults:
        world.fails("slots", f"{load} are left at {door.name}")


def _check_tally(world: World, door: Guarded) -> None:
    tally = door.engine.tally
    tally.absorb()
    counted = sum(sum(series.outcomes.values()) for series in tally.requests.values())
    counted -= door.counted_before
    if counted != door.began:
        outcomes = [series.outcomes for series in tally.requests.values()]
        world.fails("tally", f"{counted} of {door.began} requests at {door.name}: {outcomes}")
    known = {"identity", "observe", "fallback", "unknown_tier", "server_timing"}
    strange = {step: count for step, count in tally.faults.items() if step not in known}
    if strange:
        world.fails("fault", f"{strange} at {door.name}")
    passed: dict[str, int] = {}
    for (_, mode, passage), count in tally.admission.items():
        key = f"{mode} {passage}"
        passed[key] = passed.get(key, 0) + count
    ended = sum(passed.get(f"enforce {word}", 0) for word in ("admitted", "expired", "refused"))
    if passed.get("enforce queued", 0) > ended + world.gave_up and not door.is_inner:
        world.fails("tally", f"{passed} at {door.name}, and {world.gave_up} gave up")
