"""What a process runs: one engine, wired to the policy file and to telemetry."""

from __future__ import annotations

import inspect
import os
import threading
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, ClassVar, Final, Literal, NamedTuple, TypedDict, TypeVar
from uuid import UUID

from budgetware import names
from budgetware._core.audience import Observing
from budgetware._core.current import current_budget
from budgetware._core.engine import B, Engine
from budgetware._core.lane import Lane
from budgetware._core.policy import Mode, Policy
from budgetware._core.record import Observer
from budgetware.errors import PolicyError
from budgetware.misuse import check_called, check_observers, check_telemetry, did_you_mean
from budgetware.telemetry import Telemetry

if TYPE_CHECKING:
    from typing import Unpack

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider
    from structlog.typing import FilteringBoundLogger

    from budgetware.policyfile.reload import PolicyWatch


__all__ = [
    "SHORTEST_WAIT_S",
    "Options",
    "Runtime",
    "current_budget",
]

SHORTEST_WAIT_S: Final = 0.0001
"""Shorter waits for the client are billed: leaving them out would cost more than they do."""

_LOOK_EVERY_S: Final = 1.0
_NEVER_S: Final = 30 * 86_400.0


T = TypeVar("T")


class Options(TypedDict, total=False):
    """What both doors and ``Runtime.start`` take; everything is optional.

    Attributes:
        policy: A policy, or the file to read it from. By default the file is looked for:
            ``BUDGETWARE_POLICY``, ``./budgetware.yaml``, ``[tool.budgetware]`` in
            ``pyproject.toml``; without any, requests are measured and nothing is promised.
        environment: The layer of the file's ``environments``; by default ``BUDGETWARE_ENV``. A
            ``Policy`` has been given it when it was read: ``Policy.load(path, environment=...)``.
        reload: ``"file"`` puts a changed file in force within seconds; a signal's number does so
            when that signal comes. Off by default; a broken file changes nothing.
        meter_provider: By default the global one.
        tracer_provider: By default the global one.
        logger: A structlog logger; by default ``structlog.get_logger("budgetware")``.
        histograms: How durations reach OpenTelemetry: ``"aggregated"`` by one of our readers,
            ``"recorded"`` one by one through any provider, ``"off"``; ``"auto"`` is the first
            when such a reader collects the provider, the second otherwise.
        traces: ``"auto"`` puts attributes on the current span, ``"stages"`` also makes a child
            span per stage, ``"off"`` does neither.
        observers: Called with every ``RequestRecord`` after the answer has left.
        clock: Monotonic seconds; by default ``time.perf_counter``. Where it fails there is no time:
            a request or a stage is in no total, and nothing is limited.

    """

    policy: Policy | str | Path | None
    environment: str | None
    reload: Literal["file"] | int | None
    meter_provider: MeterProvider | None
    tracer_provider: TracerProvider | None
    logger: FilteringBoundLogger | None
    histograms: Literal["auto", "aggregated", "recorded", "off"]
    traces: Literal["auto", "stages", "off"]
    observers: Sequence[Observer]
    clock: Callable[[], float] | None


class _WatchfulEngine(Engine):
    """An engine that has its policy file watched in whichever process it is used."""

    watch: PolicyWatch

    def begin_as(
        self, kind: type[B], method: str, path: str, tier: str | None, root: str | None
    ) -> B:
        self.watch.ensure_started()
        return super().begin_as(kind, method, path, tier, root)

    def begin_in(self, kind: type[B], lane: Lane) -> B:
        self.watch.ensure_started()
        return super().begin_in(kind, lane)


class Runtime:
    """An engine at work, with its telemetry.

    Attributes:
        engine: Begins and finishes budgets.
        telemetry: Where their figures go.

    """

    _current: ClassVar[Runtime | None] = None
    _starting: ClassVar[threading.RLock] = threading.RLock()
    _alive: ClassVar[weakref.WeakSet[Runtime]] = weakref.WeakSet()
    _witnesses: ClassVar[tuple[Observing, ...]] = ()

    def __init__(self, policy: Policy, options: Options, *, leads: bool = False) -> None:
        self.telemetry = telemetry = Telemetry(
            meter_provider=options.get("meter_provider"),
            tracer_provider=options.get("tracer_provider"),
            logger=options.get("logger"),
            histograms=options.get("histograms", "auto"),
            traces=options.get("traces", "auto"),
        )
        observers = [Observing(observer) for observer in options.get("observers", ())]
        reload = options.get("reload")
        self.engine = (_WatchfulEngine if reload == "file" else Engine)(
            policy,
            clock=options.get("clock") or perf_counter,
            observers=(*telemetry.observers, *observers, *Runtime._witnesses),
            alarms=telemetry.alarms,
            on_fault=telemetry.on_fault,
            on_not_kept=telemetry.on_not_kept,
        )
        Runtime._alive.add(self)
        if reload is not None:
            watch = self._watch(policy, reload)
            if isinstance(self.engine, _WatchfulEngine):
                self.engine.watch = watch
        if leads:
            # Before anything is logged: the application's logger may open a job of its own.
            Runtime._current = self
        telemetry.watch(self.engine)

    @classmethod
    def start(cls, **options: Unpack[Options]) -> Runtime:
        """Read the policy, wire an engine to telemetry and make it this process's current one.

        Raises:
            PolicyError: The policy file cannot be used.
            TypeError: An option is not one of ``Options``.
            ValueError: *reload* is neither ``"file"`` nor a signal, or there is no file to watch.

        """
        check_options(options)
        runtime = cls._discovered(options)
        _announce(runtime)
        return runtime

    @classmethod
    def current(cls) -> Runtime:
        """Return the runtime of the door that was opened last, or one for the discovered policy.

        Raises:
            PolicyError: There is no door yet and the policy file cannot be used.

        """
        runtime = cls._current
        if runtime is not None:
            return runtime
        with cls._starting:
            runtime = cls._current
            if runtime is not None:
                return runtime
            runtime = cls._discovered({})
        _announce(runtime)
        return runtime

    @classmethod
    def _discovered(cls, options: Options) -> Runtime:
        return cls(held_back(policy_of(options), os.environ), options, leads=True)

    @classmethod
    @contextmanager
    def lent(cls, **options: Unpack[Options]) -> Iterator[Runtime]:
        """Have a runtime of its own be the current one for a while, as tests want it.

        Raises:
            PolicyError: The policy file cannot be used.

        """
        before = cls._current
        try:
            yield cls.start(**options)
        finally:
            Runtime._current = before

    @classmethod
    @contextmanager
    def witnessed(cls, observer: Observer) -> Iterator[None]:
        """Have *observer* told, for a while, of the requests of every runtime there is or will be.

        It is for tests of applications whose doors are made out of the tests' reach.
        """
        witness = Observing(observer)
        Runtime._witnesses = (*cls._witnesses, witness)
        for runtime in list(cls._alive):
            runtime.engine.observe(witness)
        try:
            yield
        finally:
            Runtime._witnesses = tuple(one for one in cls._witnesses if one is not witness)
            for runtime in list(cls._alive):
                runtime.engine.ignore(witness)

    def miss_fallbacks(self, given: Collection[str]) -> None:
        """Say which routes list a fallback among their answers and are not *given* one.

        Only where anything is decided: it would be passed over in silence.
        """
        policy = self.engine.policy
        tiers = tuple(policy.tiers) or (None,)
        missed = [
            name
            for name, route in policy.routes.items()
            if "fallback" in route.answers
            and route.match
            and name not in given
            and any(policy.mode_of(route, tier) is not Mode.OBSERVE for tier in tiers)
        ]
        if missed:
            self.telemetry.no_fallback(missed)

    def _watch(
        self,
        policy: Policy,
        reload: Literal["file"] | int,
    ) -> PolicyWatch:
        from budgetware.policyfile.reload import PolicyWatch  # noqa: PLC0415 - off by default

        if policy.source is None:
            raise ValueError("reload needs a policy file; this policy was made in code or is empty")
        watch = PolicyWatch(
            policy.source,
            self._adopt,
            interval_s=_LOOK_EVERY_S if reload == "file" else _NEVER_S,
            environment=policy.environment,
            on_problem=self._reject,
            current=policy.digest,
        )
        if reload != "file":
            watch.install_signal(reload)
        return watch

    def _adopt(self, policy: Policy) -> None:
        self.engine.adopt(held_back(policy, os.environ))
        self.telemetry.say(names.EVENT_POLICY_RELOADED, policy=policy.digest, file=policy.source)

    def _reject(self, error: PolicyError) -> None:
        self.telemetry.say(names.EVENT_POLICY_REJECTED, "error", error=str(error))


def policy_of(options: Options) -> Policy:
    """Return the policy of *options*, read from its file unless it was made in code.

    Raises:
        PolicyError: The policy file cannot be used.

    """
    policy = options.get("policy")
    if isinstance(policy, Policy):
        return policy
    from budgetware.policyfile import load  # noqa: PLC0415 - a policy may come from code

    return load(policy, environment=options.get("environment"))


def held_back(policy: Policy, environment: Mapping[str, str]) -> Policy:
    """Return *policy* with no mode going further than ``BUDGETWARE_MODE`` in *environment* says.

    Raises:
        ValueError: The variable names no mode.

    """
    word = environment.get(names.MODE_VARIABLE, "").strip()
    if not word:
        return policy
    try:
        return replace(policy, most=Mode(word.lower()))
    except ValueError:
        words = ", ".join(Mode)
        raise ValueError(f"{names.MODE_VARIABLE} must be one of {words}, not {word!r}") from None


class Caller(NamedTuple):
    """Who has sent a request.

    Attributes:
        name: A name no other caller has; ``None`` for nobody.
        is_doubtful: Whether it may be somebody whose name could not be told.

    """

    name: str | None = None
    is_doubtful: bool = False


NOBODY: Final = Caller()
_SOMEBODY: Final = Caller(is_doubtful=True)


def identity_of(
    identify: Callable[[T], object] | None, request: T, fault: Callable[[str, Exception], None]
) -> Caller:
    """Return who has sent *request*, as the application's *identify* says.

    Numbers and UUIDs are names, too, and others than the same in text. ``None`` and blank text are
    nobody; whatever else it gives or raises is a fault, and may be somebody.
    """
    if identify is None:
        return NOBODY
    try:
        identity = identify(request)
        if identity is None:
            return NOBODY
        if isinstance(identity, str):
            # The anonymous users of Django and Starlette have a name that is empty.
            return Caller(_named("str", identity)) if identity.strip() else NOBODY
        if isinstance(identity, UUID):
            return Caller(_named("uuid", str(identity)))
        if type(identity) is int:
            return Caller(_named("int", str(identity)))
        kind = type(identity).__name__
        raise TypeError(f"identity gives a str, an int, a UUID or None, not a {kind}")  # noqa: TRY301 - counted below
    except Exception as error:  # noqa: BLE001 - the application's function, our call
        fault("identity", error)
        return _SOMEBODY


def _named(kind: str, text: str) -> str:
    """Return *text* as a name that only the same text of the same *kind* has."""
    return text if kind == "str" and not text.startswith("\0") else f"\0{kind} {text}"


def is_nested(outer: object, engine: Engine) -> bool:
    """Tell whether another door with the policy of *engine* has this request on its account.

    Args:
        outer: The budget that is current where the request arrives.
        engine: That of the door it arrives at. If *outer* is its own, the application has called
            itself, which is a request of its own.

    """
    other = getattr(outer, "engine", None)  # a job's budget has none
    if other is None or other is engine or getattr(outer, "end", None) is not None:
        return False
    return bool(other.policy == engine.policy)


def tier_of(name: Callable[[T], object], request: T) -> str | None:
    """Return the tier that the application's *name* gives *request*.

    Raises:
        Exception: It raised, or gave what is no name: something to be awaited, for one.

    """
    tier = name(request)
    if tier is None or isinstance(tier, str):
        return tier
    raise TypeError(f"tier gives a str or None, not {tier!r:.80}")


def is_timed(tells: Callable[[T], object], request: T) -> bool:
    """Tell whether the application's *tells* has the answer to *request* say how long it took.

    Raises:
        Exception: It raised, or gave what would have to be awaited, which says neither yes nor no.

    """
    yes = tells(request)
    if inspect.isawaitable(yes):
        raise TypeError(f"server_timing gives True or False at once, not {yes!r:.80}")
    return bool(yes)


def check_named(runtime: Runtime, store: object, rates: object) -> None:
    """Warn of a shared *store* or *rates* under a name that other services may have as well."""
    if runtime.engine.policy.service:
        return
    if not all(getattr(given, "has_own_prefix", True) for given in (store, rates)):
        runtime.telemetry.no_service()


def _announce(runtime: Runtime) -> None:
    # While no lock of ours is held: it goes through the application's logger.
    if replace(runtime.engine.policy, most=Mode.ENFORCE) == Policy():
        runtime.telemetry.no_policy()


def _renew_lock() -> None:
    # A thread of the parent may have held the lock at the moment of the fork.
    Runtime._starting = threading.RLock()  # noqa: SLF001 - ours


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def check_options(options: Options) -> None:
    """Refuse what a door cannot be opened with.

    Raises:
        TypeError: An option does not exist, or is of the wrong kind.
        ValueError: *reload* is neither ``"file"`` nor a signal.

    """
    known = Options.__annotations__
    for name in options:
        if name not in known:
            hint = did_you_mean(name, [*known, "tier", "server_timing"])
            raise TypeError(f"budgetware has no option {name!r}{hint}")
    _check_policy(options.get("policy"), options.get("environment"))
    check_observers(options.get("observers", ()))
    check_telemetry(
        options.get("logger"), options.get("meter_provider"), options.get("tracer_provider")
    )
    clock = options.get("clock")
    if clock is not None:
        check_called("clock", clock, "nothing", 0)
    reload = options.get("reload")
    # True would pass for signal number 1.
    if isinstance(reload, bool) or not (reload in (None, "file") or isinstance(reload, int)):
        raise ValueError(f'reload must be "file" or the number of a signal, not {reload!r}')


def _check_policy(policy: object, environment: object) -> None:
    if not isinstance(policy, Policy | str | os.PathLike | None):
        raise TypeError(f"policy must be a Policy or the path of a file, not {policy!r:.80}")
    if not isinstance(environment, str | None):
        raise TypeError(f"environment must be a name in the policy file, not {environment!r:.80}")
    if isinstance(policy, Policy) and environment is not None:
        raise TypeError(
            "environment says how a policy file is read, and this policy was read already: "
            f"Policy.load(path, environment={environment!r})"
        )
