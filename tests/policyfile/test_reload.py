"""A changed policy file is taken when it is whole and right, and only then."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from budgetware._core.policy import Policy
from budgetware.errors import PolicyError
from budgetware.policyfile import PolicyWatch, load
from budgetware.policyfile.reload import signature_of

GOOD = "version: 1\nservice: {name}\n"


class Watched:
    """A policy file, a watch over it that is looked through by hand, and what came of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.services: list[str] = []
        self.problems: list[str] = []
        self.touched = 0
        self.write("one")
        self.watch = PolicyWatch(
            path,
            self.apply,
            on_problem=self.report,
            current=load(path).digest,
            signature=self.signature,
        )
        self.settle()

    def apply(self, policy: Policy) -> None:
        """Take a policy as a service does."""
        self.services.append(policy.service)

    def report(self, error: PolicyError) -> None:
        """Take a problem as a service does."""
        self.problems.append(error.problems[0].code)

    def signature(self, path: str) -> tuple[int, int, int]:
        """Look at the file, with a time that only writing moves."""
        _, size, inode = signature_of(path)
        return (self.touched if size else 0, size, inode)

    def write(self, name: str, text: str = GOOD) -> None:
        """Write the file at a later time."""
        self.path.write_text(text.format(name=name))
        self.touched += 1

    def settle(self) -> None:
        """Look twice, as the thread does once a second."""
        self.watch.look()
        self.watch.look()


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    """Return a watch over a valid file that was seen at rest."""
    return Watched(tmp_path / "budgetware.yaml")


def test_an_unchanged_file_is_not_applied_again(watched: Watched) -> None:
    """The content in force is known by its digest, whatever the file's time says."""
    assert watched.services == []
    watched.write("one")
    watched.settle()
    assert (watched.services, watched.problems) == ([], [])


def test_a_changed_file_is_applied_once(watched: Watched) -> None:
    """A change is handed over after the second look, and not again."""
    watched.write("two")
    watched.watch.look()
    assert watched.services == []
    watched.watch.look()
    watched.settle()
    assert watched.services == ["two"]


def test_a_file_that_is_still_written_is_left_alone(watched: Watched) -> None:
    """As long as the file differs from one look to the next, nothing is read."""
    for text in ("version: 1\nservice: {name}", "version: 1\nserv", GOOD):
        watched.write("three", text)
        watched.watch.look()
    assert (watched.services, watched.problems) == ([], [])
    watched.watch.look()
    assert (watched.services, watched.problems) == (["three"], [])


def test_a_file_replaced_by_renaming_is_noticed(watched: Watched, tmp_path: Path) -> None:
    """Editors write another file and rename it; the inode tells."""
    other = tmp_path / "new"
    other.write_text(GOOD.format(name="two"))
    other.rename(watched.path)
    watched.settle()
    assert watched.services == ["two"]


def test_a_broken_file_changes_nothing_and_is_reported_once(watched: Watched) -> None:
    """The old policy stays until the file is right again; each change is reported once."""
    watched.write("", "version: 2\n")
    watched.settle()
    watched.settle()
    assert (watched.services, watched.problems) == ([], ["bad-version"])
    watched.write("", "version: [\n")
    watched.settle()
    assert watched.problems == ["bad-version", "syntax"]
    watched.write("two")
    watched.settle()
    assert watched.services == ["two"]


def test_a_file_that_is_gone_is_reported_once(watched: Watched) -> None:
    """The policy of a deleted file stays in force."""
    watched.path.unlink()
    watched.settle()
    watched.settle()
    assert (watched.services, watched.problems) == ([], ["no-file"])


def test_a_change_during_reading_is_not_taken(watched: Watched) -> None:
    """What was read while the file changed is read again when it rests."""
    looks = iter([5, 5, 6, 6, 6, 6])
    watched.watch._signature = lambda _: (next(looks), 1, 1)
    watched.write("two")
    watched.settle()
    assert watched.services == []
    watched.settle()
    assert watched.services == ["two"]


def test_a_service_that_does_not_take_the_policy_is_asked_again_later(watched: Watched) -> None:
    """An exception of the service is a problem of that change, not the end of watching."""

    def refuse(policy: Policy) -> None:
        raise RuntimeError(policy.service)

    watched.watch._apply = refuse
    watched.write("two")
    watched.settle()
    assert watched.problems == ["not-applied"]
    watched.watch._apply = watched.apply
    watched.watch.look(now=True)
    assert watched.services == ["two"]


def test_the_layer_is_that_of_the_environment(tmp_path: Path) -> None:
    """Each reading applies the same environment."""
    path = tmp_path / "budgetware.yaml"
    path.write_text("version: 1\nservice: one\nenvironments: {dev: {service: dev}}\n")
    applied: list[str] = []
    watch = PolicyWatch(path, lambda policy: applied.append(policy.service), environment="dev")
    watch.look(now=True)
    assert applied == ["dev"]


def test_problems_are_logged_unless_someone_takes_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without `on_problem` a warning is logged; a failing `on_problem` is logged, too."""
    path = tmp_path / "budgetware.yaml"
    path.write_text("version: 2\n")

    def fail(error: PolicyError) -> None:
        raise RuntimeError from error

    with caplog.at_level(logging.WARNING, logger="budgetware"):
        PolicyWatch(path, lambda _: None).look(now=True)
        PolicyWatch(path, lambda _: None, on_problem=fail).look(now=True)
    first, second = caplog.messages
    assert first.startswith("budgetware_policy_rejected: the policy in force stays: ")
    assert "could not be reported" in second


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[PolicyWatch, Path, Callable[[], str]]]:
    """Return a watch with a thread, its file, and what waits for the next service name."""
    path = tmp_path / "budgetware.yaml"
    path.write_text(GOOD.format(name="one"))
    names: list[str] = []
    applied = threading.Event()

    def apply(policy: Policy) -> None:
        names.append(policy.service)
        applied.set()

    def next_name() -> str:
        assert applied.wait(10)
        applied.clear()
        return names[-1]

    watch = PolicyWatch(path, apply, interval_s=0.01)
    yield watch, path, next_name
    watch.stop()


def test_nothing_runs_before_it_is_started(
    running: tuple[PolicyWatch, Path, Callable[[], str]],
) -> None:
    """Making a watch starts no thread; starting twice starts one; stopping ends it."""

    def threads() -> int:
        return sum(thread.name == "budgetware-policy" for thread in threading.enumerate())

    watch, _, next_name = running
    assert threads() == 0
    watch.ensure_started()
    watch.ensure_started()
    assert threads() == 1
    assert next_name() == "one"
    watch.stop()
    assert threads() == 0


def test_the_thread_takes_changes_by_itself(
    running: tuple[PolicyWatch, Path, Callable[[], str]],
) -> None:
    """A file that changes under a running service is applied."""
    watch, path, next_name = running
    watch.ensure_started()
    assert next_name() == "one"
    path.write_text(GOOD.format(name="second"))
    assert next_name() == "second"


def test_a_signal_reloads_and_then_does_what_it_did(
    running: tuple[PolicyWatch, Path, Callable[[], str]],
) -> None:
    """The handler reads the file at once, calls its predecessor, and can be taken back."""
    watch, path, next_name = running
    watch._interval_s = 600.0
    seen: list[int] = []
    original = signal.signal(signal.SIGUSR1, lambda number, _: seen.append(number))
    try:
        take_back = watch.install_signal(signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert next_name() == "one"
        path.write_text(GOOD.format(name="second"))
        signal.raise_signal(signal.SIGUSR1)
        assert next_name() == "second"
        take_back()
        signal.raise_signal(signal.SIGUSR1)
        assert seen == [signal.SIGUSR1] * 3
        assert watch._orders.empty()
    finally:
        signal.signal(signal.SIGUSR1, original)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_starts_its_own_thread(tmp_path: Path) -> None:
    """After a fork the parent's thread is not there; starting again works, even mid-start."""
    path = tmp_path / "budgetware.yaml"
    path.write_text(GOOD.format(name="one"))
    read_end, write_end = os.pipe()
    watch = PolicyWatch(
        path, lambda policy: os.write(write_end, policy.service.encode()), interval_s=0.01
    )
    watch._starting.acquire()  # as if the fork came while another thread was starting
    child = os.fork()
    if not child:
        watch.ensure_started()
        threading.Event().wait(10)
        os._exit(1)
    try:
        assert os.read(read_end, 100) == b"one"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        watch._starting.release()
        os.close(read_end)
        os.close(write_end)
