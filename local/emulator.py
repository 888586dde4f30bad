"""DynamoDB emulated by moto's server, in a process of its own (run as `python -m local.emulator`).

Its own process, because moto is 8 ms of Python for each call, which would stall the event loop that
streams; and so that the library speaks to it over a socket, as it does to DynamoDB. It keeps everything
in memory.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from local.child import Child, when_parent_ends

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

READY: Final = "emulator: "


class Emulator:
    """The emulator, started at once."""

    def __init__(self) -> None:
        self._child = Child(["local.emulator"], READY)

    def url(self) -> str:
        """Return its address once it can be called.

        Raises:
            ChildFailed: it could not be started.
        """
        return self._child.wait_until_ready()

    def end(self) -> None:
        """End it; what it holds is gone."""
        self._child.end()


class OneAtATime:
    """WSGI middleware: one call after the other.

    moto checks a write's condition and writes without a lock in between, so two threads could both win,
    which DynamoDB never lets happen. It costs nothing: moto only computes.
    """

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app
        self._lock = threading.Lock()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        with self._lock:
            return list(self._app(environ, start_response))


def main() -> None:
    """Serve until the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # At once and without cleaning up: there is nothing to save, and threads may be busy.
    when_parent_ends(lambda: os._exit(0))

    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    from local.moto_tables import make_cheap

    make_cheap()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it logs every request
    app = OneAtATime(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler)
    print(f"{READY}http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
