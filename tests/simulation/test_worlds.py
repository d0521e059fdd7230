"""What a simulation is relied on for: all holds, and the same seed is the same world."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulation.many import ENOUGH, TO_BE_MET, Found, play_some
from simulation.play import play

ROOT = Path(__file__).parents[2]

TRACES = """
from tests.simulation.test_worlds import traces
print(traces(range(0, 40)))
"""


def traces(seeds: range) -> str:
    """Return a digest of all that happens in the worlds of *seeds*."""
    digest = hashlib.sha256()
    for seed in seeds:
        digest.update("\n".join(map(str, play(seed).trace)).encode())
    return digest.hexdigest()


def simulation(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    return subprocess.run(
        [sys.executable, "-m", "simulation", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=ROOT,
    )


def test_everything_holds_in_two_hundred_worlds() -> None:
    """Whatever clients, applications, servers and a Redis do in them."""
    assert play_some(range(200)).failed == []


def test_the_same_seed_is_the_same_world() -> None:
    """In another process, with other addresses and other hashes, and whatever came before it."""
    other = subprocess.run(
        [sys.executable, "-c", TRACES],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "4711"},
    )

    play(4711)
    assert traces(range(40)) == other.stdout.strip()
    assert traces(range(1)) != traces(range(1, 2))


def test_one_world_is_shown_with_everything_that_happens_in_it() -> None:
    """That is what the printed line is for."""
    shown = simulation("--seed", "4711")

    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert lines[-1] == "seed 4711: everything holds"
    assert [str(event) for event in play(4711).trace] == lines[:-1]


def test_worlds_are_played_on_all_processors() -> None:
    """However many processes there are, the same is met."""
    runs = [simulation("--seeds", "60", "--processes", count) for count in ("1", "2")]

    assert [run.returncode for run in runs] == [0, 0], runs[0].stderr
    met = [run.stdout.partition("\n\n")[0] for run in runs]
    assert met[0] == met[1]


def test_a_world_that_fails_is_told_with_the_line_that_replays_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the command fails."""
    from simulation import __main__ as command  # noqa: PLC0415 - it is patched here

    found = Found(worlds=2, failed=[(4711, "slots: 1 are left")])
    monkeypatch.setattr(command, "play_all", lambda *_: found)
    monkeypatch.setattr(sys, "argv", ["simulation", "--seeds", "2"])

    assert command.main() == 1
    said = capsys.readouterr().out
    assert "seed 4711: slots: 1 are left\n    make simulate SEED=4711\n" in said


def test_many_worlds_that_never_meet_something_fail() -> None:
    """A simulation that has gone blind would find nothing, and nobody would know."""
    met = dict.fromkeys(TO_BE_MET, 1)
    del met["sends that raise when called"]
    found = Found(worlds=ENOUGH)
    found.met.update(met)

    assert found.never_met == ["sends that raise when called"]
    found.worlds -= 1
    assert found.never_met == []
