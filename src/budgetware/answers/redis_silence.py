"""Does a server answer anybody in this process? What one has found out, the others need not.

Rates and answers are often kept by one server. When it falls silent, a request that has waited for
the one in vain would wait for the other as well, and its wait would be the sum of two bounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from weakref import WeakValueDictionary

_PORT: Final = 6379


class Server:
    """What is known of one server.

    Needs no lock: it is one flag, and whoever sees it too late or too early asks for itself.

    Attributes:
        silent: Whether somebody has stopped asking it, and nobody has had an answer since.

    """

    __slots__ = ("__weakref__", "silent")

    def __init__(self) -> None:
        self.silent = False

    def answered(self) -> None:
        """Take note of an answer, whoever had it."""
        if self.silent:
            self.silent = False


_servers: WeakValueDictionary[tuple[str, int], Server] = WeakValueDictionary()


def server_at(address: Mapping[str, Any]) -> Server:
    """Return what is known of the server at *address*, for as long as somebody keeps it.

    Args:
        address: As redis-py's ``parse_url`` returns it. Names are not looked up: a server that goes
            by two of them is taken for two.

    """
    path = address.get("path")
    if path is not None:
        return _servers.setdefault((str(path), 0), Server())
    host = str(address.get("host") or "localhost").lower()
    return _servers.setdefault((host, int(address.get("port") or _PORT)), Server())
