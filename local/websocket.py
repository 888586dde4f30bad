"""WebSocket as API Gateway speaks it, on uvicorn: its limits of size, no pings, no compression.

https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import uvicorn
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

LARGEST_MESSAGE: Final = 128 * 1024
"""Bytes of a message, either way."""

LARGEST_FRAME: Final = 32 * 1024
"""Bytes of one frame from a client: a longer message comes in several."""

CUT_SECONDS: Final = 1.0
"""How long a client may take to read what was sent before its connection ended."""


class Protocol(WebSocketsSansIOProtocol):
    """uvicorn's implementation that waits in ``send`` while the client does not read.

    uvicorn would wait for such a client at the end too, for ever, and hold up the end of the server.
    """

    _cut: asyncio.TimerHandle | None = None

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        """Called when nobody serves the connection any more."""
        super().on_task_complete(task)
        if not self.disconnected:
            self._cut = self.loop.call_later(CUT_SECONDS, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called when it is over."""
        if self._cut is not None:
            self._cut.cancel()
        super().connection_lost(exc)


def speak_websocket(config: uvicorn.Config) -> None:
    """Have a server, which must not run yet, take WebSockets as API Gateway does."""
    config.ws = Protocol
    # What is beyond a limit closes the connection with 1009. uvicorn hands this to websockets, which takes a pair.
    limits: Any = (LARGEST_MESSAGE, LARGEST_FRAME)
    config.ws_max_size = limits
    config.ws_ping_interval = None  # only the client pings
    config.ws_per_message_deflate = False
