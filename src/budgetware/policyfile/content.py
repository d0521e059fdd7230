"""What is in the file: the bytes of a regular file, and no more of them than are wanted.

Whatever else has its name is refused: a pipe would be waited for, and a device never ends.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

# A pipe with nobody at its other end is opened at once; Windows has no such pipes and no such flag.
_READ_ONLY: Final = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)

_KINDS: Final = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def read_bytes(path: str, most: int) -> bytes:
    """Return the content of the file at *path*, at most *most* bytes of it.

    Raises:
        OSError: There is no such file, it cannot be read, or it is no regular file.

    """
    try:
        _refuse_others(os.stat(path))  # noqa: PTH116 - opening a device may set it going
        descriptor = os.open(path, _READ_ONLY)
    except ValueError as error:  # a character no file name has
        raise OSError(errno.EINVAL, str(error)) from None
    try:
        _refuse_others(os.fstat(descriptor))  # it may have been replaced in between
        parts: list[bytes] = []
        while most and (part := os.read(descriptor, most)):
            parts.append(part)
            most -= len(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def _refuse_others(status: os.stat_result) -> None:
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG:
        raise OSError(errno.EINVAL, f"it is {_KINDS.get(kind, 'something else')}, and no file")
