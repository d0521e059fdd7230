"""Waiting only so long for what may take longer."""

from __future__ import annotations

import os
import threading

import pytest
from tests.servers import wait_until

from budgetware.answers.errands import Errands


def test_an_errand_is_run_and_its_result_returned() -> None:
    """On another thread, and what it raises is no result."""
    errands = Errands("errands", 2, 8)

    assert errands.run(lambda: threading.current_thread().name.startswith("errands"), 60) == (
        True,
        True,
    )
    assert errands.run(lambda: 1 / 0, 60) == (True, None)
    assert errands.run(lambda: 5, 60) == (True, 5)
    errands.close()
    assert errands.run(lambda: 5, 60) == (None, None)
    assert not errands.send(lambda: 5)


def test_what_is_over_the_bound_is_refused() -> None:
    """Two run, two wait, the fifth is refused; who gave up waiting is not run any more."""
    errands = Errands("errands", 2, 4)
    go = threading.Event()
    ran: list[int] = []
    for _ in range(2):
        assert errands.send(lambda: go.wait(60))
    assert errands.run(lambda: ran.append(1), 0.001) == (False, None)
    assert errands.send(lambda: ran.append(2))
    assert errands.run(lambda: ran.append(3), 60) == (None, None)
    go.set()
    wait_until(lambda: errands._underway == 0, "all is done")

    assert ran == [2]
    assert errands._threads == 2
    errands.close()
    wait_until(lambda: errands._threads == 0, "the threads have ended")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_gets_threads_of_its_own() -> None:
    """After a fork errands are run as before."""
    errands = Errands("errands", 2, 8)
    assert errands.run(lambda: 1, 60) == (True, 1)
    child = os.fork()
    if child == 0:
        os._exit(0 if errands.run(lambda: 2, 60) == (True, 2) else 1)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    errands.close()
