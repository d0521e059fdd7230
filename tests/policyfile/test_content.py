"""Only a regular file is a policy file, and of that no more is read than is wanted."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from budgetware.errors import PolicyError
from budgetware.policyfile import load
from budgetware.policyfile.content import read_bytes

pytestmark = pytest.mark.skipif(os.name == "nt", reason="files of other kinds are POSIX")


def a_socket(path: Path) -> None:
    """Put a socket at *path*."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))


OTHERS: dict[str, Callable[[Path], object]] = {
    "a directory": Path.mkdir,
    "a pipe": os.mkfifo,
    "a socket": a_socket,
    "a device": lambda path: path.symlink_to("/dev/zero"),
}
"""What puts something at a path, by what it is."""


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_file_is_refused_at_once(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is neither waited for nor read, whether it is named or found, nor is a pyproject."""
    monkeypatch.chdir(tmp_path)
    expected = f"cannot be read: it is {kind}, and no file"
    OTHERS[kind](Path("named"))
    with pytest.raises(PolicyError, match=expected) as caught:
        load("named")
    assert caught.value.file == "named"
    assert caught.value.problems[0].hint
    OTHERS[kind](Path("pyproject.toml"))
    with pytest.raises(PolicyError, match=expected):
        load()
    OTHERS[kind](Path("budgetware.yaml"))
    with pytest.raises(PolicyError, match=expected):
        load()


@pytest.mark.parametrize("kind", OTHERS)
def test_what_takes_the_place_of_a_file_meanwhile_is_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was replaced after the first look at it is looked at again when it is open."""
    path = tmp_path / "budgetware.yaml"
    path.write_text("version: 1\n")
    before = path.stat()
    path.unlink()
    OTHERS[kind](path)
    with monkeypatch.context() as late:
        late.setattr(os, "stat", lambda _: before)
        with pytest.raises(OSError, match=r"and no file|No such device"):
            read_bytes(str(path), 10)


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    """Whatever comes of it, the file is closed."""
    file = tmp_path / "budgetware.yaml"
    file.write_text("version: 1\n")
    OTHERS["a pipe"](tmp_path / "pipe")

    def open_ones() -> int:
        return len(list(Path("/dev/fd").iterdir()))

    before = open_ones()
    assert read_bytes(str(file), 100) == b"version: 1\n"
    assert read_bytes(str(file), 7) == b"version"
    assert read_bytes(str(file), 0) == b""
    for name in ("pipe", "gone"):
        with pytest.raises(OSError, match=r"pipe|No such file"):
            read_bytes(str(tmp_path / name), 10)
    assert open_ones() == before


def test_a_file_that_comes_in_pieces_is_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A system may give less at a time than it was asked for."""
    file = tmp_path / "budgetware.yaml"
    file.write_text("version: 1\n")
    read = os.read
    monkeypatch.setattr(os, "read", lambda descriptor, most: read(descriptor, min(most, 3)))
    assert read_bytes(str(file), 100) == b"version: 1\n"
    assert read_bytes(str(file), 4) == b"vers"
