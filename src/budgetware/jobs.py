"""A budget outside HTTP: what ``budget.open("nightly-export")`` gives."""

from __future__ import annotations

import contextlib
from contextvars import Token
from types import TracebackType

from budgetware._core.budget import Budget
from budgetware._core.current import current_budget
from budgetware._core.decorate import F, decorated
from budgetware.runtime import Runtime


class Job:
    """One run of a job, as a ``with`` block; as a decorator, a run per call.

    A ``with`` block gives the job's account, with ``remaining()``, ``elapsed()`` and ``pool()``.
    """

    def __init__(self, name: str, tier: str | None = None) -> None:
        self._name = name
        self._tier = tier
        self._runs: list[tuple[Runtime, Budget, Token[Budget | None]]] = []

    def __enter__(self) -> Budget:
        runtime = Runtime.current()
        run = runtime.engine.begin_job(self._name, self._tier)
        self._runs.append((runtime, run, current_budget.set(run)))
        return run

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        runtime, run, token = self._runs.pop()
        if kind is not None:
            run.error = kind
            runtime.engine.fail(run)
        runtime.engine.finish(run)
        with contextlib.suppress(ValueError):  # left in another context than it was entered in
            current_budget.reset(token)

    def __call__(self, function: F) -> F:
        """Return *function* running as this job at every call."""
        name, tier = self._name, self._tier
        return decorated(lambda: Job(name, tier), function)
