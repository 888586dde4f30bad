"""The server that runs an application: in the stream function, in a container, on one machine."""

from __future__ import annotations

import os
from typing import Any

import uvicorn

GRACE_SECONDS = 10
"""After SIGTERM, how long open replies may go on before they are ended."""


def server(app: Any, *, host: str, port: int) -> uvicorn.Server:
    """Return a server, configured for streams: httptools parses (h11 costs twice), no access log, since
    the end of each reply is logged once with all that matters."""
    return uvicorn.Server(
        uvicorn.Config(
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
