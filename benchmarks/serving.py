"""How a measured server is run in a process of its own, and how that is brought to its end.

By SIGTERM, not by SIGINT: what is started by a job in the background of a script ignores that.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess

import uvicorn

LONGEST_END_S = 20.0


def serve(config: uvicorn.Config, listening: socket.socket, *, silent: bool = False) -> None:
    """Print the port and serve on it until SIGTERM or Ctrl-C comes, then return.

    Args:
        config: What to serve, and how.
        listening: A socket with an address.
        silent: Print nothing after the port.

    """
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn stops in order, then raises it again
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        print(listening.getsockname()[1], flush=True)
        if silent:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        uvicorn.Server(config).run(sockets=[listening])


def stop(server: subprocess.Popen[str]) -> str:
    """End *server* and return what it has printed since; nothing if it had to be killed."""
    server.terminate()
    try:
        return server.communicate(timeout=LONGEST_END_S)[0]
    except subprocess.TimeoutExpired:
        server.kill()
        server.communicate()
        return ""
