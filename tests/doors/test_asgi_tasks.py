"""The ASGI door and the event loop: one task, one context, nothing kept, no mixing."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import resource
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio
from opentelemetry.metrics import Meter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from tests.doors.asgi_play import LAST, START, Door, Wire, answer, http, run

from budgetware import budget
from budgetware._core.budget import Budget
from budgetware._core.current import current_budget
from budgetware.asgi import Message, Receive, Scope, Send

mark: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="unset")


def _task(backend: str) -> Any:
    return asyncio.current_task() if backend == "asyncio" else trio.lowlevel.current_task()


@pytest.mark.anyio
async def test_the_application_runs_in_the_callers_task(anyio_backend_name: str) -> None:
    """Application, ``receive`` and ``send`` run in the server's task; no other is started."""
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(_task(anyio_backend_name))
        await receive()
        await answer(scope, receive, send)

    async def receive() -> Message:
        seen.append(_task(anyio_backend_name))
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        seen.append(_task(anyio_backend_name))

    before = anyio.get_running_tasks()
    await Door(app)(http("POST"), receive, send)

    assert len(seen) == 4
    assert set(seen) == {_task(anyio_backend_name)}
    assert [task.id for task in anyio.get_running_tasks()] == [task.id for task in before]


@pytest.mark.anyio
async def test_context_variables_flow_both_ways() -> None:
    """What is set outside is seen inside, in ``send`` too; what is set inside stays set."""
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(mark.get())
        mark.set("inside")
        await answer(scope, receive, send)

    async def send(message: Message) -> None:
        seen.append(mark.get())

    mark.set("outside")
    await Door(app)(http(), Wire().receive, send)

    assert seen == ["outside", "inside", "inside"]
    assert mark.get() == "inside"
    assert current_budget.get() is None


@pytest.mark.anyio
async def test_concurrent_requests_never_mix() -> None:
    """A thousand at once: each sees its own budget, and the middleware stays as it was."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        number = scope["number"]
        mine = current_budget.get()
        for _ in range(number % 5):
            with budget.stage(f"s{number % 7}"):
                await anyio.lowlevel.checkpoint()
            assert current_budget.get() is mine
        await send({"type": "http.response.start", "status": 200 + number})
        await anyio.lowlevel.checkpoint()
        await send({"type": "http.response.body", "body": bytes(number)})

    wires = [Wire() for _ in range(1000)]
    door = Door(app)
    await door({"type": "lifespan", "number": 0}, Wire().receive, Wire().send)  # opens it
    before = dict(vars(door))
    async with anyio.create_task_group() as tasks:
        for number, wire in enumerate(wires):
            scope = http(number=number, state={"budgetware.tier": ("free", "pro")[number % 2]})
            tasks.start_soon(door, scope, wire.receive, wire.send)

    assert vars(door) == before
    assert [len(wire.body) for wire in wires] == list(range(1000))
    assert len(door.records) == 1000
    for record in door.records:
        assert record.status is not None
        number = record.status - 200
        assert record.tier == ("free", "pro")[number % 2]
        assert [one.name for one in record.openings] == [f"s{number % 7}"] * (number % 5)
    assert door.faults == {}


@pytest.mark.anyio
async def test_the_servers_cancellation_is_passed_on(anyio_backend_name: str) -> None:
    """A cancelled request ends as cancelled, once, and the task's count of it is right."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with budget.stage("db"):
            await anyio.sleep_forever()

    door = Door(app)
    wire = Wire()
    with anyio.move_on_after(0.01) as cancelled:
        await door(http(), wire.receive, wire.send)

    assert cancelled.cancelled_caught
    assert door.outcomes == {"client_gone": 1}
    assert door.record.openings[0].ending == "failed"
    assert current_budget.get() is None
    if anyio_backend_name == "asyncio":
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0


@pytest.fixture
def _no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


ENDINGS: list[list[Message]] = [
    [START, LAST],
    [START, {"type": "http.response.body", "body": b"a", "more_body": True}, LAST],
    [START],
    [],
]


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("sends", ENDINGS)
@pytest.mark.parametrize("timing", [False, True])
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_budget_is_gone_with_its_request(
    sends: list[Message],
    timing: bool,  # noqa: FBT001
    fails: bool,  # noqa: FBT001
    method: str,
) -> None:
    """Without a garbage collector, neither budget nor scope nor messages outlive the request."""
    budgets: list[weakref.ref[Budget]] = []

    class Marked(dict[str, Any]):
        pass

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        mine = current_budget.get()
        assert mine is not None
        budgets.append(weakref.ref(mine))
        del mine
        await receive()
        with budget.stage("db", "select"):
            door.clock.now += 5  # notable, so that records and log events are made
        for message in sends:
            await send(Marked(message))
        if fails:
            raise ValueError

    door = Door(app, server_timing=timing)
    scope = Marked(http(method))
    refs: list[weakref.ref[Any]] = [weakref.ref(scope)]
    try:
        run(door(scope, Wire().receive, _forget(refs)))
    except ValueError:
        assert fails
    del scope

    assert [ref() for ref in budgets] == [None]
    if not timing:
        assert [ref() for ref in refs] == [None] * (1 + len(sends))


def _forget(refs: list[weakref.ref[Any]]) -> Send:
    async def send(message: Message) -> None:
        if type(message) is not dict:
            refs.append(weakref.ref(message))

    return send


def test_memory_stays_where_it_is() -> None:
    """Two hundred thousand requests with stages, after a warm-up, add next to nothing."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with budget.stage("db"):
            pass
        await answer(scope, receive, send)

    door = Door(app, observers=[])
    scopes = [http(path=path) for path in ("/signals/x", "/", "/nowhere/at/all")]

    async def nothing(message: Message) -> None:
        pass

    def serve(times: int) -> None:
        receive = Wire().receive
        for _ in range(times):
            for scope in scopes:
                run(door(scope, receive, nothing))

    serve(5_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    serve(66_700)
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

    assert grown_kb < 5_000
    assert sum(door.outcomes.values()) == 3 * 71_700


def test_a_request_may_have_any_number_of_stages() -> None:
    """Thirty thousand openings under three thousand names: bounded in memory and in names."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for number in range(30_000):
            with budget.stage(f"s{number % 3_000}"):
                pass
            if number == 2_000:
                tracemalloc.start()
        grown.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        await answer(scope, receive, send)

    grown: list[int] = []
    door = Door(app)
    Wire().run(door, http())

    assert grown[0] < 200_000
    assert len(door.record.stages) <= 70
    assert sum(total.calls for total in door.record.stages) == 30_000
    assert len(door.record.openings) <= 256


class _Counting(MeterProvider):
    """A provider that counts the instruments made with it."""

    made = 0

    def get_meter(self, *args: Any, **kwargs: Any) -> Meter:
        """Count what the meter makes."""
        meter = super().get_meter(*args, **kwargs)
        for name in [name for name in dir(meter) if name.startswith("create_")]:
            setattr(meter, name, partial(self._count, getattr(meter, name)))
        return meter

    def _count(self, create: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.made += 1
        return create(*args, **kwargs)


def test_requests_make_no_instruments() -> None:
    """Instruments are made with the door and never again, whatever is measured."""
    provider = _Counting([InMemoryMetricReader()], shutdown_on_exit=False)
    door = Door(answer, meter_provider=provider, histograms="recorded")
    door._engine.absorb_at = 1
    made = provider.made
    for number in range(200):
        Wire().run(door, http(path=f"/signals/{number}"))

    assert made == provider.made > 3
    provider.shutdown()
