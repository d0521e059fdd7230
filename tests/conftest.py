"""Each test begins in a process that has no door open yet."""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from budgetware._core.current import current_budget
from budgetware.runtime import Runtime

# No deadline: the suite runs on small, loaded machines, and time here is not what is tested.
settings.register_profile("budgetware", deadline=None, print_blob=True)
settings.load_profile("budgetware")


@pytest.fixture(autouse=True, scope="session")
def _signals_are_heard() -> Iterator[None]:
    """Undo what a script does to its jobs in the background, and they to all that they start."""
    deaf = {
        number: signal.signal(number, heard)
        for number, heard in (
            (signal.SIGINT, signal.default_int_handler),
            (signal.SIGQUIT, signal.SIG_DFL),
        )
        if signal.getsignal(number) is signal.SIG_IGN
    }
    yield
    for number, ignored in deaf.items():
        signal.signal(number, ignored)


@pytest.fixture(autouse=True, scope="module")
def _what_was_made_before_is_no_garbage() -> None:
    """Keep the collector, which many tests call for, from going through what others have left."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_door(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for variable in ("BUDGETWARE_POLICY", "BUDGETWARE_ENV"):
        monkeypatch.delenv(variable, raising=False)
    Runtime._current = None
    Runtime._witnesses = ()
    token = current_budget.set(None)
    yield
    Runtime._current = None
    current_budget.reset(token)
