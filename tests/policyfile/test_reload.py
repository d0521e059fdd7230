"""A changed policy file is taken when it is whole and right, and only then."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Never

import pytest

from budgetware._core.policy import Policy
from budgetware.errors import PolicyError
from budgetware.policyfile import Document, PolicyWatch, load, reload
from budgetware.policyfile.discover import judge
from budgetware.runtime import Runtime

GOOD = "version: 1\nservice: {name}\n"


class Watched:
    """A policy file, a watch over it that is looked through by hand, and what came of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.services: list[str] = []
        self.problems: list[str] = []
        self.write("one")
        self.watch = PolicyWatch(
            path, self.apply, on_problem=self.report, current=load(path).digest
        )
        self.settle()

    def apply(self, policy: Policy) -> None:
        """Take a policy as a service does."""
        self.services.append(policy.service)

    def report(self, error: PolicyError) -> None:
        """Take a problem as a service does."""
        self.problems.append(error.problems[0].code)

    def write(self, name: str, text: str = GOOD) -> None:
        """Write the file."""
        self.path.write_text(text.format(name=name))

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


def test_a_replaced_file_is_known_by_what_it_says(watched: Watched, tmp_path: Path) -> None:
    """A copy of the same size and time is another policy; a touch, or the same again, is none."""
    before = watched.path.stat()
    other = tmp_path / "new"
    for name in ("two", "six"):
        other.write_text(GOOD.format(name=name))
        os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
        other.replace(watched.path)
        watched.settle()
    after = watched.path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert watched.services == ["two", "six"]
    watched.path.touch()
    shutil.copy(watched.path, other)
    other.replace(watched.path)
    watched.settle()
    assert (watched.services, watched.problems) == (["two", "six"], [])


def test_a_file_written_over_in_place_is_seen_whatever_its_time(watched: Watched) -> None:
    """On a file system whose times are coarse, or set back, a new content is a new policy."""
    before = watched.path.stat()
    watched.write("two")
    os.utime(watched.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    watched.settle()
    assert watched.services == ["two"]


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_a_link_to_another_folder_is_followed(tmp_path: Path) -> None:
    """Kubernetes replaces the folder a link points through: the file is another at once."""
    for folder, name in (("old", "one"), ("new", "two")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "budgetware.yaml").write_text(GOOD.format(name=name))
    current, swapped = tmp_path / "..data", tmp_path / "..tmp"
    current.symlink_to("old")
    (tmp_path / "budgetware.yaml").symlink_to("..data/budgetware.yaml")
    taken: list[str] = []
    watch = PolicyWatch(tmp_path / "budgetware.yaml", lambda policy: taken.append(policy.service))
    watch.look()
    watch.look()
    swapped.symlink_to("new")
    swapped.replace(current)
    watch.look()
    watch.look()
    assert taken == ["one", "two"]


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


def test_what_was_seen_at_rest_is_what_is_taken(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is read once in a look, so a change while it is judged is left to the next."""

    def judge_late(content: bytes, **options: str) -> Document:
        document = judge(content, **options)  # type: ignore[arg-type]
        watched.write("late")
        return document

    watched.write("two")
    watched.watch.look()
    with monkeypatch.context() as patched:
        patched.setattr(reload, "judge", judge_late)
        watched.watch.look()
    assert watched.services == ["two"]
    watched.settle()
    assert watched.services == ["two", "late"]


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


class UnshowableError(Exception):
    """An exception that cannot even be shown."""

    def __repr__(self) -> str:
        """Fail."""
        raise self


ERRORS = [
    OSError(24, "Too many open files"),
    MemoryError(),
    RecursionError("too deep"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"),
    UnshowableError(),
    SystemExit(1),
    KeyboardInterrupt(),
]


def always(error: BaseException) -> Callable[..., Never]:
    """Return a function that raises *error* whatever it is given."""

    def fail(*_: object, **__: object) -> Never:
        raise error

    return fail


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("place", ["content_of", "judge", "apply"])
def test_whatever_goes_wrong_is_told_once_and_the_next_good_file_is_taken(
    place: str, error: BaseException, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error in reading, judging or applying changes nothing and is no end of watching."""
    watched.write("two")
    with monkeypatch.context() as broken:
        if place == "apply":
            broken.setattr(watched.watch, "_apply", always(error))
        else:
            broken.setattr(reload, place, always(error))
        for _ in range(3):
            watched.settle()
    assert (watched.services, watched.problems) == ([], ["not-applied"])
    watched.write("three")
    watched.settle()
    assert (watched.services, watched.problems) == (["three"], ["not-applied"])


def test_what_there_was_no_memory_for_is_tried_again(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lack of memory says nothing of the file, which is taken as soon as there is enough."""
    watched.write("two")
    with monkeypatch.context() as broken:
        broken.setattr(reload, "judge", always(MemoryError()))
        watched.settle()
        watched.settle()
    assert (watched.services, watched.problems) == ([], ["not-applied"])
    watched.watch.look()
    assert (watched.services, watched.problems) == (["two"], ["not-applied"])


def test_whoever_asks_for_a_reload_is_told_again(watched: Watched) -> None:
    """A broken file is told of once, and again whenever a reload of it is asked for."""
    watched.write("", "version: 2\n")
    watched.settle()
    watched.settle()
    watched.watch.look(now=True)
    assert watched.problems == ["bad-version"] * 2
    watched.watch._apply = always(ValueError())
    watched.write("two")
    watched.watch.look(now=True)
    watched.watch.look(now=True)
    assert watched.problems == ["bad-version"] * 2 + ["not-applied"] * 2


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


Running = tuple[PolicyWatch, Path, Callable[[], str]]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
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


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_report_and_a_log_that_fail_are_no_end_of_watching(
    error: BaseException, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When telling of a broken file fails, and logging that, too, the thread goes on."""
    watch, path, next_name = running
    told = threading.Event()

    def tell(problem: PolicyError) -> Never:
        told.set()
        raise error from problem

    monkeypatch.setattr(watch, "_on_problem", tell)
    monkeypatch.setattr(logging.Logger, "exception", always(error))
    watch.ensure_started()
    assert next_name() == "one"
    path.write_text("version: 2\n")
    assert told.wait(10)
    path.write_text(GOOD.format(name="second"))
    assert next_name() == "second"


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_service_that_fails_is_no_end_of_watching(error: BaseException, running: Running) -> None:
    """Whatever applying raises in the thread, the thread takes the next good file."""
    watch, path, next_name = running
    watch.ensure_started()
    assert next_name() == "one"
    apply, failed = watch._apply, threading.Event()

    def fail(_: Policy) -> Never:
        failed.set()
        raise error

    watch._apply = fail
    path.write_text(GOOD.format(name="second"))
    assert failed.wait(10)
    watch._apply = apply
    path.write_text(GOOD.format(name="third"))
    assert next_name() == "third"


def test_a_signal_without_a_thread_left_to_start_does_what_it_did(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The handler raises nothing into the main thread, and what was asked for is done later."""
    watch, _, next_name = running
    watch._interval_s = 600.0
    seen: list[int] = []
    original = signal.signal(signal.SIGUSR1, lambda number, _: seen.append(number))
    try:
        watch.install_signal(signal.SIGUSR1)
        with monkeypatch.context() as full:
            full.setattr(threading.Thread, "start", always(RuntimeError("can't start new thread")))
            signal.raise_signal(signal.SIGUSR1)
        assert seen == [signal.SIGUSR1]
        watch.ensure_started()
        assert next_name() == "one"
    finally:
        signal.signal(signal.SIGUSR1, original)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no such pipes")
def test_a_pipe_in_the_place_of_the_file_is_not_waited_for(running: Running) -> None:
    """The thread refuses the pipe, nobody being at its other end, and takes the next file."""
    watch, path, next_name = running
    problems: SimpleQueue[PolicyError] = SimpleQueue()
    watch._on_problem = problems.put
    watch.ensure_started()
    assert next_name() == "one"
    path.unlink()
    os.mkfifo(path)
    while "it is a pipe" not in str(problems.get(timeout=10)):
        pass  # it was seen between the two
    path.unlink()
    path.write_text(GOOD.format(name="second"))
    assert next_name() == "second"


def test_nothing_runs_before_it_is_started(
    running: Running,
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
    running: Running,
) -> None:
    """A file that changes under a running service is applied."""
    watch, path, next_name = running
    watch.ensure_started()
    assert next_name() == "one"
    path.write_text(GOOD.format(name="second"))
    assert next_name() == "second"


def test_a_signal_reloads_and_then_does_what_it_did(
    running: Running,
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


def test_a_signal_that_is_handled_outside_python_is_refused(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server written in C needs it; its handler could neither be called nor be put back."""
    watch, _, _ = running
    monkeypatch.setattr(signal, "getsignal", lambda _: None)
    monkeypatch.setattr(signal, "signal", lambda *_: pytest.fail("its handler is gone"))

    with pytest.raises(ValueError, match="signal 1 has a handler outside Python"):
        watch.install_signal(signal.SIGHUP)


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


@pytest.mark.parametrize("interval_s", [0.001, 3600.0])
def test_the_thread_ends_with_whoever_had_it_started(tmp_path: Path, interval_s: float) -> None:
    """However long it would have slept; nobody has to stop it."""
    watch = PolicyWatch(tmp_path / "budgetware.yaml", print, interval_s=interval_s)
    watch.ensure_started()
    thread = watch._thread
    assert thread is not None
    assert thread.is_alive()

    del watch
    gc.collect()
    thread.join(30)

    assert not thread.is_alive()


def test_the_thread_ends_with_its_application(tmp_path: Path) -> None:
    """Once another one has taken its place as the process's current one."""
    file = tmp_path / "budgetware.yaml"
    file.write_text("version: 1\n")
    runtime = Runtime.start(policy=file, reload="file")
    runtime.engine.watch.ensure_started()  # type: ignore[attr-defined]
    thread = runtime.engine.watch._thread  # type: ignore[attr-defined]
    Runtime.start(policy=Policy())

    del runtime
    gc.collect()
    thread.join(30)

    assert not thread.is_alive()
