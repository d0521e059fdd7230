"""A process that is forked at the worst moment serves on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FORKED = """
import contextlib, gc, os, signal, sys, threading
from opentelemetry.sdk.metrics import MeterProvider
from budgetware import budget
from budgetware.asgi import BudgetMiddleware as Asgi
from budgetware.telemetry.readers import AggregatedHistograms
from budgetware.wsgi import BudgetMiddleware as Wsgi
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from tests.doors import asgi_play, wsgi_play


class Reader(AggregatedHistograms, InMemoryMetricReader):
    pass


class Logger:
    def __getattr__(self, name):
        return lambda *args, **kwargs: None


async def app(scope, receive, send):
    for _ in range(600):
        with budget.stage("db"):
            pass
    clock.now += 10
    await asgi_play.answer(scope, receive, send)


def serve():
    asgi_play.Wire().run(doors[0], asgi_play.http())
    wsgi_play.Wire().run(doors[1], wsgi_play.environ())
    with budget.open("job"), budget.stage("db"):
        pass
    reader.get_metrics_data()


reader = Reader()
provider = MeterProvider([reader], shutdown_on_exit=False)
clock = asgi_play.Clock()
options = dict(
    policy=sys.argv[1], reload="file", clock=clock, meter_provider=provider, logger=Logger()
)
doors = [Asgi(app, **options), Wsgi(wsgi_play.answer, **options)]
for door in doors:
    door._engine.absorb_at = 1
serve()

kinds = (type(threading.Lock()), type(threading.RLock()))
places = [vars(module) for name, module in sys.modules.items() if name.startswith("budgetware")]
for one in gc.get_objects():
    if str(type(one).__module__).startswith("budgetware"):
        names = [*getattr(one, "__dict__", ()), *getattr(type(one), "__slots__", ())]
        places.append({name: getattr(one, name, None) for name in names})
        places.append(vars(type(one)))
locks = {id(lock): lock for place in places for lock in place.values() if isinstance(lock, kinds)}
print(len(locks))

held, done = threading.Event(), threading.Event()


def hold():
    with contextlib.ExitStack() as stack:
        for lock in locks.values():
            stack.enter_context(lock)
        held.set()
        done.wait(20)


holder = threading.Thread(target=hold)
holder.start()
held.wait()
child = os.fork()
if child == 0:
    signal.alarm(10)
    serve()
    os._exit(0)
status = os.waitpid(child, 0)[1]
done.set()
holder.join()
print(status)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_child_forked_while_every_lock_is_held_serves_on(tmp_path: Path) -> None:
    """A thread of the parent holds all our locks at the fork: the child waits for none of them."""
    policy = tmp_path / "budgetware.yaml"
    policy.write_text("version: 1\nroutes:\n  signals: {match: 'GET /signals/{x}', budget: 1s}\n")
    run = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKED, str(policy)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[2],
    )

    assert run.returncode == 0, run.stderr
    locks, status = run.stdout.split()
    assert int(locks) >= 5
    assert int(status) == 0
