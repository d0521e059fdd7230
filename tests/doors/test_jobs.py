"""Budgets outside HTTP: ``budget.open`` as a block and as a decorator."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from pathlib import Path

import pytest
from tests.doors.asgi_play import LAST, START, Clock, Door, Wire, http

from budgetware import PolicyError, budget
from budgetware._core.current import current_budget
from budgetware._core.engine import Engine
from budgetware._core.policy import Amount, Policy, Route, StagePolicy, TierPolicy
from budgetware._core.record import RequestRecord
from budgetware.asgi import Receive, Scope, Send
from budgetware.runtime import Runtime

POLICY = Policy(
    tiers={"free": TierPolicy(), "pro": TierPolicy(budget=0.1)},
    routes={
        "export": Route(
            name="export",
            budget=10.0,
            stages={"read": StagePolicy(budget=Amount(1.0))},
        ),
    },
)


class Work:
    """A runtime on a fake clock, with every record it made."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.records: list[RequestRecord] = []
        self.runtime = Runtime.start(
            policy=POLICY,
            clock=self.clock,
            observers=[self.records.append],
            traces="off",
        )

    @property
    def names(self) -> list[str]:
        """The routes of the records, oldest first."""
        return [record.route for record in self.records]

    @property
    def errors(self) -> int:
        """How many jobs failed."""
        return sum(series.errors for series in self.runtime.engine.tally.requests.values())


@pytest.fixture
def work() -> Work:
    """Start the runtime that jobs run under."""
    return Work()


def test_a_block_has_a_budget_of_its_own(work: Work) -> None:
    """With the limits of the route of that name, and its stages; gone when it is left."""
    with budget.open("export") as run:
        work.clock.now += 1
        with budget.stage("read"):
            work.clock.now += 2
        assert run.remaining() == budget.remaining() == 7
        assert (run.elapsed(), budget.route) == (3, "export")

    assert budget.remaining() == float("inf")
    (record,) = work.records
    assert (record.route, record.elapsed_s, record.limit_s) == ("export", 3, 10)
    assert [(one.name, one.level) for one in record.violations] == [("read", "breach")]
    assert (record.status, record.first_byte_s) == (None, None)


def test_a_tier_may_be_named(work: Work) -> None:
    """A job that works for one tier has that tier's promise; for an unknown one, the first's."""
    with budget.open("export", tier="pro"):
        assert budget.remaining() == pytest.approx(0.1)
    with budget.open("export", tier="nobody"):
        assert budget.remaining() == 10


def test_functions_of_every_kind_can_be_jobs(work: Work) -> None:
    """Sync, async, generator and async generator: a run per call, results as they are."""

    @budget.open("export")
    def plain(number: int) -> int:
        assert budget.route == "export"
        return number + 1

    @budget.open("export")
    async def waits(number: int) -> int:
        await asyncio.sleep(0)
        assert budget.route == "export"
        return number + 1

    @budget.open("export")
    def generates() -> Iterator[int]:
        assert budget.route == "export"
        yield 1

    @budget.open("export")
    async def generates_async() -> AsyncIterator[int]:
        assert budget.route == "export"
        yield 1

    async def main() -> list[int]:
        return [await waits(1), *[number async for number in generates_async()]]

    assert [plain(1), plain(2)] == [2, 3]
    assert asyncio.run(main()) == [2, 1]
    assert list(generates()) == [1]
    assert work.names == ["export"] * 5
    assert plain.__name__ == "plain"
    assert current_budget.get() is None


def test_jobs_nest_and_recur(work: Work) -> None:
    """Each run has its own account; leaving the inner one brings the outer one back."""

    @budget.open("export")
    def descend(depth: int) -> None:
        mine = current_budget.get()
        work.clock.now += 1
        if depth:
            descend(depth - 1)
        assert current_budget.get() is mine

    descend(50)
    shared = budget.open("export")
    with shared, shared:
        work.clock.now += 1

    assert [record.elapsed_s for record in work.records] == [*range(1, 52), 1, 1]


def test_a_job_inside_a_request_is_not_the_request(work: Work) -> None:
    """Its stages are its own, and the request goes on where it was."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with budget.stage("before"):
            pass
        with budget.open("export"), budget.stage("read"):
            pass
        with budget.stage("after"):
            pass
        await send(START)
        await send(LAST)

    door = Door(app, policy=POLICY)
    Wire().run(door, http())

    assert [record.route for record in door.records] == ["export", "_unmatched"]
    stages = [[one.name for one in record.openings] for record in door.records]
    assert stages == [["read"], ["before", "after"]]
    assert work.records == []  # the door that was opened last is the one in charge


@pytest.mark.parametrize(
    ("error", "failed"),
    [
        (ValueError(), True),
        (ExceptionGroup("g", [KeyError()]), True),
        (asyncio.CancelledError(), False),
        (KeyboardInterrupt(), False),
        (SystemExit(0), False),
        (GeneratorExit(), False),
    ],
    ids=repr,
)
def test_an_error_ends_the_job_and_goes_on(
    work: Work,
    error: BaseException,
    failed: bool,  # noqa: FBT001
) -> None:
    """The same object, one record; being stopped from outside is no failure of the job's."""
    with pytest.raises(type(error)) as raised, budget.open("export"):
        raise error

    assert raised.value is error
    assert [record.error for record in work.records] == [type(error).__name__]
    assert work.errors == failed
    assert current_budget.get() is None


def test_names_the_policy_does_not_list_are_bounded(work: Work) -> None:
    """A thousand made-up names are measured under a bounded number of labels."""
    for number in range(1000):
        with budget.open(f"job-{number}"):
            assert budget.remaining() == float("inf")

    assert len(set(work.names)) <= 66
    assert work.names[0] == "job-0"
    assert work.names[-1] == "_OTHER"
    assert len(work.runtime.engine.tally.requests) < 100


def test_a_job_left_in_another_context_leaves_nothing(work: Work) -> None:
    """Entered in one context and left in another, or in another thread: nothing is raised."""
    job = budget.open("export")
    contextvars.copy_context().run(job.__enter__)
    job.__exit__(None, None, None)
    with_thread = budget.open("export")
    thread = threading.Thread(target=with_thread.__enter__)
    thread.start()
    thread.join()
    with_thread.__exit__(None, None, None)

    assert work.names == ["export", "export"]
    assert current_budget.get() is None


def test_one_job_object_serves_many_threads(work: Work) -> None:
    """Shared by sixteen threads, every run is left by whoever entered it."""
    job = budget.open("export")
    together = threading.Barrier(16)
    mixed: list[int] = []

    def run() -> None:
        for _ in range(50):
            with job as mine:
                together.wait()
                if current_budget.get() is not mine:
                    mixed.append(1)
            if getattr(mine, "end", None) is None or current_budget.get() is not None:
                mixed.append(2)

    threads = [threading.Thread(target=run) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert mixed == []
    assert len(work.records) == 800


def test_a_generator_job_is_still_a_generator(work: Work) -> None:
    """What is sent and thrown in arrives, what is returned comes out, an error fails the job."""

    @budget.open("export")
    def echo() -> Generator[str, str, str]:
        got = yield "first"
        try:
            got = yield got + "!"
        except KeyError:
            got = yield "caught"
        return got

    generator = echo()
    assert next(generator) == "first"
    assert generator.send("a") == "a!"
    assert generator.throw(KeyError()) == "caught"
    with pytest.raises(StopIteration) as end:
        generator.send("done")
    assert end.value.value == "done"
    failing = echo()
    next(failing)
    with pytest.raises(ValueError, match="x"):
        failing.throw(ValueError("x"))
    assert [record.error for record in work.records] == [None, "ValueError"]
    assert work.errors == 1


def test_an_async_generator_job_is_still_one(work: Work) -> None:
    """The same for those that wait, and closing one closes the function inside."""
    closed: list[str] = []

    @budget.open("export")
    async def echo() -> AsyncGenerator[str, str]:
        try:
            got = yield "first"
            try:
                yield got + "!"
            except KeyError:
                yield "caught"
        finally:
            await asyncio.sleep(0)
            closed.append(str(budget.route))

    async def main() -> None:
        generator = echo()
        assert await anext(generator) == "first"
        assert await generator.asend("a") == "a!"
        assert await generator.athrow(KeyError()) == "caught"
        await generator.aclose()
        failing = echo()
        await anext(failing)
        with pytest.raises(ValueError, match="x"):
            await failing.athrow(ValueError("x"))

    asyncio.run(main())
    assert closed == ["export", "export"]
    assert [record.error for record in work.records] == ["GeneratorExit", "ValueError"]
    assert work.errors == 1


def test_a_generator_keeps_its_job_to_itself(work: Work) -> None:
    """Between two items the consumer sees its own budget, or none, and may leave half-way."""

    @budget.open("export")
    def rows() -> Iterator[int]:
        for number in range(3):
            with budget.stage("read"):
                yield number

    seen = [budget.route for _ in rows()]
    abandoned = rows()
    next(abandoned)
    seen.append(budget.route)
    contextvars.Context().run(abandoned.close)  # type: ignore[attr-defined]
    seen.append(budget.route)

    assert seen == [None] * 5
    assert work.names == ["export", "export"]
    assert [len(record.openings) for record in work.records] == [3, 1]


def test_an_async_generator_keeps_its_job_to_itself(work: Work) -> None:
    """The same for those that wait between their items."""

    @budget.open("export")
    async def rows() -> AsyncIterator[int]:
        for number in range(3):
            with budget.stage("read"):
                await asyncio.sleep(0)
                yield number

    async def main() -> list[str | None]:
        return [budget.route async for _ in rows()]

    assert asyncio.run(main()) == [None] * 3
    assert [len(record.openings) for record in work.records] == [3]


def test_a_broken_budgetware_breaks_no_job(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening, failing or finishing a budget may go wrong: the job runs, its errors are its own."""

    def job() -> None:
        with budget.open("export") as run:
            assert run.elapsed() >= 0
            with budget.stage("read"):
                raise ValueError("theirs")

    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("ours")

    for step in ("begin_job", "fail", "finish"):
        with monkeypatch.context() as broken:
            broken.setattr(Engine, step, fail)
            with pytest.raises(ValueError, match="theirs"):
                job()

    assert sum(work.runtime.engine.tally.faults.values()) == 3
    assert current_budget.get() is None


def test_a_policy_that_cannot_be_used_is_said_when_the_job_starts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a door, the discovered file counts; a broken one stops the job with its place."""
    (tmp_path / "budgetware.yaml").write_text("version: 1\nroutes: 7\n")
    monkeypatch.chdir(tmp_path)
    job = budget.open("export")

    with pytest.raises(PolicyError, match=r"budgetware\.yaml"):
        job.__enter__()
    assert current_budget.get() is None


def test_without_a_file_a_job_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No door and no file: the job runs, promises nothing, and is counted."""
    monkeypatch.chdir(tmp_path)
    with budget.open("nightly"):
        assert budget.remaining() == float("inf")

    tally = Runtime.current().engine.tally
    tally.absorb()
    assert tally.requests["nightly", None].outcomes["unbudgeted"] == 1
