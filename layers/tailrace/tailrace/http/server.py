"""The server that runs an application: in the stream function, in a container, on one machine."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from types import ModuleType
from typing import Any


def _import_uvicorn() -> None:
    """Import uvicorn without its command line, which its package imports, and with it click and multiprocessing: a
    twentieth of the stream function's imports (benchmarks/README.md). Who asks for that gets it all the same."""
    package, command_line = "uvicorn", "uvicorn.main"
    stand_in = sys.modules[command_line] = ModuleType(command_line)
    stand_in.__dict__.update(Server=None, main=None, run=None)  # what the package takes from it
    try:
        found = import_module(package).__dict__
    finally:
        del sys.modules[command_line]
    for name in ("Server", "main", "run"):
        found.pop(name, None)
    found["__getattr__"] = lambda name: getattr(import_module(command_line), name)


if "uvicorn" not in sys.modules:
    _import_uvicorn()

from uvicorn.config import Config  # noqa: E402
from uvicorn.server import Server  # noqa: E402

GRACE_SECONDS = 10
"""After SIGTERM, how long open replies may go on before they are ended."""


def server(app: Any, *, host: str, port: int) -> Server:
    """Return a server, configured for streams: httptools parses (h11 costs twice), no access log, since
    the end of each reply is logged once with all that matters."""
    return Server(
        Config(
            app,
            host=host,
            port=port,
            http="httptools",
            ws="none",
            loop="asyncio",
            access_log=False,
            log_config=None,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
    )


def serve(app: Any) -> None:
    """Serve until SIGTERM on 127.0.0.1 and the port in ``PORT`` (8080, the adapter's default)."""
    server(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8080"))).run()
