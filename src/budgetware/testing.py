"""For tests: a clock that is moved by hand, requests without a server, and the records of both.

Everything here is public. The pytest plugin, ``budgetware.pytest_plugin``, makes fixtures of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from random import random
from time import perf_counter
from typing import Final

from budgetware._core.budget import Budget
from budgetware._core.current import current_budget
from budgetware._core.decide import Action
from budgetware._core.engine import Engine
from budgetware._core.lane import Lane
from budgetware._core.policy import UNMATCHED, Policy
from budgetware._core.record import RequestRecord, StageTotal
from budgetware._core.steering import Steering
from budgetware.answers.cache import ResponseCache
from budgetware.answers.facts import RequestFacts, encoded_path
from budgetware.answers.menu import ThreadMenu
from budgetware.misuse import did_you_mean
from budgetware.runtime import Options, Runtime
from budgetware.units import format_duration
from budgetware.wsgi.keeping import Keeping
from budgetware.wsgi.steered import GatedExchange

__all__ = [
    "Capture",
    "FakeClock",
    "assert_within_budget",
    "captured",
    "deciding",
    "recorded",
    "request",
]


class FakeClock:
    """A monotonic clock that stands still until it is advanced.

    Attributes:
        now: Where it stands, in seconds.

    """

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return where it stands, in seconds."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass.

        Raises:
            ValueError: *seconds* is negative; a monotonic clock does not go back.

        """
        if seconds < 0:
            raise ValueError(f"a monotonic clock cannot go back, not even {-seconds} seconds")
        self.now += seconds


class Capture:
    """What ``captured`` gives: an engine of its own, and the record of every request it served.

    Attributes:
        records: One per finished request or job, oldest first.
        options: For a door that is to belong to this capture:
            ``BudgetMiddleware(app, **capture.options)``.

    """

    def __init__(self, runtime: Runtime, options: Options, records: list[RequestRecord]) -> None:
        self.records = records
        self.options = options
        self._engine = runtime.engine

    @property
    def policy(self) -> Policy:
        """The policy whose promises it holds requests to."""
        return self._engine.policy

    @property
    def record(self) -> RequestRecord:
        """The latest record.

        Raises:
            LookupError: Nothing has finished yet.

        """
        if not self.records:
            raise LookupError("no request has finished yet; leave its `with` block first")
        return self.records[-1]

    @contextmanager
    def request(
        self,
        method: str = "GET",
        path: str | None = None,
        *,
        tier: str | None = None,
        status: int = 200,
    ) -> Iterator[Budget]:
        """Have the block be a request's work, answered with *status* when it ends.

        What the block calls finds its budget open, as it would behind a door; an exception passes
        through and makes the request a failed one. Where the policy's mode is ``enforce``, stages
        are decided on as well, by the forecast or by ``deciding``, and ``budget.degrade`` leaves
        the block for a smaller answer, which is in the record. Before the block, and by the clock,
        nothing is answered: that takes a door.

        Args:
            method: As in the policy file: upper case.
            path: One that a route matches; without it the request is for ``/``, or no route.
            tier: One of the policy's; without it the caller is unknown.
            status: What the request is answered with.

        Raises:
            RuntimeError: ``deciding`` would have the request answered before the block.
            ValueError: The policy has no such tier, or no route for *method* and *path*: the test
                would be held to another promise.

        """
        with _served(self._engine, method, path, tier, status) as account:
            yield account


@contextmanager
def captured(
    policy: Policy | str | Path | None = None,
    *,
    clock: Callable[[], float] = perf_counter,
) -> Iterator[Capture]:
    """Serve requests and jobs without a server, and capture their records.

    Within the block ``budget.open(...)`` belongs to the capture. It logs and exports nothing.

    Args:
        policy: A policy, its YAML text, or its file; by default the file the doors would find.
        clock: Monotonic seconds, such as a ``FakeClock``.

    Raises:
        PolicyError: The policy cannot be used.

    """
    records: list[RequestRecord] = []
    options = _silent(_read(policy))
    options["clock"] = clock
    options["observers"] = [records.append]
    with Runtime.lent(**options) as runtime:
        yield Capture(runtime, options, records)


@contextmanager
def recorded() -> Iterator[list[RequestRecord]]:
    """Collect the records of whatever this process serves meanwhile, behind doors of its own.

    Doors that were opened before count as well as those that open during the block.
    """
    records: list[RequestRecord] = []
    with Runtime.witnessed(records.append):
        yield records


@contextmanager
def request(
    method: str = "GET",
    path: str | None = None,
    *,
    tier: str | None = None,
    status: int = 200,
) -> Iterator[Budget]:
    """Have the block be the work of a request to the door that was opened last.

    Without a door it has the limits of the policy file that a door would find. Arguments are those
    of ``Capture.request``.

    Raises:
        PolicyError: The policy file cannot be used.
        ValueError: The policy has no such tier, or no route for *method* and *path*.

    """
    with _served(Runtime.current().engine, method, path, tier, status) as account:
        yield account


@contextmanager
def deciding(action: str) -> Iterator[None]:
    """Have every decision of this process be *action*, whatever the forecast says.

    It is acted upon where the policy's mode is ``enforce`` and the route has a budget; jobs are not
    decided on. What it comes to:

    - when a request begins, ``answer``, ``probe`` and ``reject`` have a door send the route's first
      answer without calling the application; with ``probe``, under ASGI, it is called behind the
      answer. The block of ``captured().request()`` is run in any case, so there they are an error,
      unless ``deciding`` begins within the block;
    - when ``budget.tier`` is assigned, the same three have the application, or the block, left for
      that answer;
    - at a stage with a fallback all but ``run`` have the fallback run, at a stage with
      ``on_overrun: answer`` they have the application, or the block, left.

    Args:
        action: ``run``, ``skip``, ``answer``, ``probe`` or ``reject``.

    Raises:
        ValueError: It is none of these.

    """
    if action not in set(Action):
        raise ValueError(f"{action!r} is no action{_only([*map(str, Action)], action)}")
    before, Steering.forced = Steering.forced, Action(action)
    try:
        yield
    finally:
        Steering.forced = before


def check_promise(policy: Policy, tier: str | None, route: str | None = None) -> None:
    """Refuse a tier, and a route, that *policy* promises nothing.

    A policy that says nothing of tiers and routes is asked for neither.

    Raises:
        ValueError: It has none of that name; those it has are named.

    """
    known = (("tier", tier, policy.tiers), ("route", route, policy.routes))
    for what, name, names in known:
        if name is not None and name not in names and (policy.tiers or policy.routes):
            raise ValueError(f"the policy has no {what} {name!r}{_only(list(names), name)}")


def assert_within_budget(records: RequestRecord | Iterable[RequestRecord]) -> None:
    """Fail unless every request, and every stage in it, kept what it was promised.

    Nothing to look at is a failure, too: neither no record at all nor records without any limit
    say that a promise was kept.

    Raises:
        AssertionError: It lists what went over, and by how much.

    """
    __tracebackhide__ = True
    found = [records] if isinstance(records, RequestRecord) else list(records)
    if not found:
        raise AssertionError("there is no record: nothing was served, or it has not finished yet")
    if all(record.limit_s == _NO_LIMIT and not _limited(record) for record in found):
        routes = ", ".join(sorted({record.route for record in found}))
        raise AssertionError(f"nothing was promised to any of these requests: {routes}")
    over = [text for text in map(_verdict, found) if text]
    if over:
        raise AssertionError(f"{len(over)} of {len(found)} over budget\n" + "\n".join(over))


_NO_LIMIT: Final = float("inf")
_ANSWERS: Final = frozenset({Action.ANSWER, Action.PROBE, Action.REJECT})


def _limited(record: RequestRecord) -> bool:
    return any(
        stage.limit_s < _NO_LIMIT or stage.calls_limit < _NO_LIMIT for stage in record.stages
    )


def _verdict(record: RequestRecord) -> str:
    """Return what was too long in *record*, and where its time went; empty if nothing was."""
    lines = [_overdraft(stage) for stage in record.stages]
    lines = [f"  {line}" for line in lines if line]
    if not (lines or record.overage_s > 0):
        return ""
    name = record.route if record.tier is None else f"{record.route} ({record.tier})"
    took = _excess(record.elapsed_s, record.limit_s)
    spent = [(stage.exclusive_s, stage.name) for stage in record.stages if not stage.operation]
    spent.append((record.unattributed_s, "no stage"))
    shares = [f"{stage} {_short(seconds)}" for seconds, stage in sorted(spent, reverse=True)]
    return "\n".join([f"{name}: {took}", *lines, f"  the time went to: {', '.join(shares)}"])


def _overdraft(stage: StageTotal) -> str:
    name = stage.name if stage.operation is None else f"{stage.name} {stage.operation}"
    if stage.overage_s > 0:
        calls = "1 call" if stage.calls == 1 else f"{stage.calls} calls"
        return f"{name}: {_excess(stage.spent_s, stage.limit_s)}, {calls}"
    if stage.calls > stage.calls_limit:
        return f"{name}: {stage.calls} calls of {stage.calls_limit:.0f}"
    return ""


def _excess(took_s: float, limit_s: float) -> str:
    if limit_s == _NO_LIMIT:
        return _short(took_s)
    text = f"{_short(took_s)} of {_short(limit_s)}"
    return f"{text}, {_short(took_s - limit_s)} too long" if took_s > limit_s else text


def _short(seconds: float) -> str:
    return format_duration(round(seconds, 9), digits=4)


@contextmanager
def _served(
    engine: Engine,
    method: str,
    path: str | None,
    tier: str | None,
    status: int,
) -> Iterator[Budget]:
    check_promise(engine.policy, tier)
    lane = engine.lane(method, path or "/", tier, None)
    if path is not None and lane.plan.route == UNMATCHED:
        _refuse_unmatched(engine.policy, f"{method} {path}")
    _refuse_to_answer(lane)
    account = _behind_no_door(engine, lane, method, path or "/")
    token = current_budget.set(account)
    try:
        yield account
        account.start_response(f"{status} ...", [])
        account.ready([])
    except BaseException as error:
        smaller = account.turned(error, None)
        if smaller is None:
            account.raised(error)
            raise
        smaller.close()
    finally:
        account.finish()
        current_budget.reset(token)


def _only(names: list[str], name: object) -> str:
    return f", only {', '.join(names)}{did_you_mean(name, names)}" if names else ", nor any other"


def _refuse_unmatched(policy: Policy, asked: str) -> None:
    templates = {
        f"{match.method} {match.template}": route.name
        for route in policy.routes.values()
        for match in route.match
    }
    for nearest in get_close_matches(asked, templates, 1, 0.0):
        raise ValueError(
            f"no route matches {asked!r}; the nearest is {templates[nearest]}: {nearest}. "
            "Leave the path out for a request of no route"
        )


def _refuse_to_answer(lane: Lane) -> None:
    forced, steering = Steering.forced, lane.steering
    if forced in _ANSWERS and steering is not None and steering.acts:
        raise RuntimeError(
            f"deciding({forced.value!r}) answers a request before its work begins, and a block is "
            "run all the same: take a door, BudgetMiddleware(app, **capture.options), or begin "
            "`deciding` within the block, where it is about stages"
        )


def _behind_no_door(engine: Engine, lane: Lane, method: str, path: str) -> GatedExchange:
    """Return a request that is decided on as behind the WSGI door, with no server to be sent to."""
    cache = ResponseCache()
    account = engine.begin_in(GatedExchange, lane)
    account.engine = engine
    account.forward = lambda *_: _nowhere
    account.timed_answer = False
    target = encoded_path(path.encode())
    asked = RequestFacts(route=lane.plan.route, method=method, target=target, tier=lane.plan.tier)
    account.prepare(
        {},
        asked,
        lambda steering: ThreadMenu(steering.plan, cache, None, random, engine.fault),
        Keeping(cache),
    )
    if lane.steering is not None:
        account.embark(lane.steering)
    return account


def _nowhere(_: bytes) -> None:
    """Take the place of a server's ``write``."""


def _read(policy: Policy | str | Path | None) -> Policy:
    if isinstance(policy, Policy):
        return policy
    is_text = isinstance(policy, str) and "\n" in policy
    return Policy.parse(str(policy)) if is_text else Policy.load(policy)


def _silent(policy: Policy) -> Options:
    """Return the options of a runtime that tells nobody but its observers."""
    import structlog  # noqa: PLC0415 - only when something is captured
    from opentelemetry.metrics import NoOpMeterProvider  # noqa: PLC0415 - likewise

    def drop(*_: object) -> str:
        raise structlog.DropEvent

    return {
        "policy": policy,
        "meter_provider": NoOpMeterProvider(),
        "logger": structlog.wrap_logger(None, processors=[drop]),
        "histograms": "off",
        "traces": "off",
    }
