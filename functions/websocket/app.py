"""The WebSocket function: every route of the WebSocket API, ``$connect``, ``$disconnect`` and ``$default``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from tailrace.aws.event_loop import run
from tailrace.backend import Backend
from tailrace.broadcast.socket import Sockets
from tailrace.telemetry import logger

backend = Backend()


def handler(event: Mapping[str, Any], context: object) -> dict[str, int]:
    """Answer an event of API Gateway. A client is never refused: it would only come back, and not alone."""
    if not backend.broadcast.on:
        logger.error("not configured", extra={"missing": "TAILRACE_WEBSOCKET_URL, or TAILRACE_BROADCAST is off"})
        return {"statusCode": 200}
    return run(_answer(event))


async def _answer(event: Mapping[str, Any]) -> dict[str, int]:
    owner = None
    if event["requestContext"]["eventType"] == "CONNECT":  # what is seen then holds for all that the connection sends
        owner = await backend.auth.connection_owner(event)
    return await _sockets().handle(event, owner)


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
