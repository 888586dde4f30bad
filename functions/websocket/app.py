"""The WebSocket function: every route of the WebSocket API, ``$connect``, ``$disconnect`` and ``$default``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from tailrace.auth import connection_owner
from tailrace.backend import Backend
from tailrace.broadcast.socket import Sockets
from tailrace.event_loop import run
from tailrace.telemetry import logger

backend = Backend()


def handler(event: Mapping[str, Any], context: object) -> dict[str, int]:
    """Answer an event of API Gateway. A client is never refused: it would only come back, and not alone."""
    if not backend.broadcast.on:
        logger.error("not configured", extra={"missing": "TAILRACE_WEBSOCKET_URL, or TAILRACE_BROADCAST is off"})
        return {"statusCode": 200}
    return run(_sockets().handle(event, connection_owner(event, backend.settings)))


@cache
def _sockets() -> Sockets:
    broadcast = backend.broadcast
    return Sockets(
        backend.store,
        broadcast.fan_out,
        broadcast.frames,
        backend.clock,
        secret=broadcast.secret,
        open_to_all=backend.settings.auth == "none",
    )
