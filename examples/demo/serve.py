"""Run one service on a free loopback port for as long as the process that started us lives.

``python -m examples.demo.serve package.module:create_app``, with a pipe from the parent as standard
input: when the pipe closes, for whatever reason, the service shuts down. So the demo leaves
nothing behind, however it ends.
"""

from __future__ import annotations

import sys
import threading
from typing import Final

import uvicorn

KEEP_ALIVE_S: Final = 120
"""Longer than any client keeps a connection: a request sent while the server closes it is lost."""


def main(application: str) -> None:
    """Serve what the function *application* returns, until standard input ends."""
    server = uvicorn.Server(
        uvicorn.Config(
            application,
            factory=True,
            host="127.0.0.1",
            port=0,
            access_log=False,
            timeout_keep_alive=KEEP_ALIVE_S,
        ),
    )
    threading.Thread(target=_leave_with_parent, args=(server,), daemon=True).start()
    server.run()


def _leave_with_parent(server: uvicorn.Server) -> None:
    sys.stdin.buffer.read()
    server.should_exit = True


if __name__ == "__main__":
    main(sys.argv[1])
