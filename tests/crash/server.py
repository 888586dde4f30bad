"""The servers that are killed (`python -m tests.crash.server`): the whole application, each in a process of its own.

Importing it takes a second or more of a core. So this process imports it once, and forks a server for every line on
its standard input; it prints the server's process id and port as soon as that one serves. What the servers share is
code: the backend, its connections and the event loop are made after the fork, and all of it dies with the server.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from typing import Final

SERVING: Final = "serving: "


def main() -> None:
    """Fork a server for each line of standard input; at its end kill those that are left."""
    from tailrace.http.api_app import create_api_app  # noqa: F401

    from tests.crash.database import patient_backend  # noqa: F401

    assert threading.active_count() == 1, "a fork would lose the other threads"
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # whoever was killed leaves nothing behind
    servers: list[int] = []
    while os.read(0, 1):
        pid = os.fork()
        if pid == 0:
            serve()
            os._exit(0)
        servers.append(pid)
    for pid in servers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def serve() -> None:
    """Serve with the environment's settings until the end of this process."""
    from tailrace.http.api_app import create_api_app
    from tailrace.http.server import server
    from tailrace.settings import Settings

    from tests.crash.database import patient_backend

    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # the lines there are for the parent
    listening = socket.create_server(("127.0.0.1", 0))
    told = False

    async def tell() -> None:
        nonlocal told
        if not told:
            told = True
            sys.stdout.write(f"{SERVING}{os.getpid()} {listening.getsockname()[1]}\n")
            sys.stdout.flush()

    running = server(create_api_app(patient_backend(Settings.from_environment())), host="127.0.0.1", port=0)
    running.config.callback_notify = tell  # called as soon as requests are served
    running.run([listening])


if __name__ == "__main__":
    main()
