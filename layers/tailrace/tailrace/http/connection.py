"""One SSE connection: takes bytes without ever blocking, and sends them as fast as the client reads."""

from __future__ import annotations

import asyncio
from typing import Final

from tailrace.clock import Clock, Timer
from tailrace.http.requests import Send
from tailrace.http.responses import Headers
from tailrace.protocols.sse import KEEP_ALIVE

LARGEST_BACKLOG: Final = 4 * 1024 * 1024
"""Bytes that may wait for a client. One that is further behind is dropped, without a terminal event, and
resumes from its cursor; it must neither hold up the relay nor fill the memory."""

DRAIN_SECONDS: Final = 30.0
"""How long after its end a reply's connection may take to send the rest."""


class Connection:
    """Sends what is written to it.

    Args:
        send: the ASGI send of a request whose response has not started.
        headers: of the response.
        keep_alive: seconds of silence after which a comment is sent.
    """

    def __init__(self, send: Send, headers: Headers, *, clock: Clock, keep_alive: float) -> None:
        self._send = send
        self._headers = headers
        self._clock = clock
        self._keep_alive = keep_alive
        self._backlog: list[bytes] = []
        self._size = 0
        self._closed = False
        self._dropped = False
        self._wake: asyncio.Future[None] | None = None
        self._timer: Timer | None = None
        self._last_sent = clock.monotonic()

    def write(self, data: bytes) -> None:
        """Take bytes to send; what a client that fell too far behind would get is discarded."""
        if self._dropped or self._closed or not data:
            return
        self._size += len(data)
        if self._size > LARGEST_BACKLOG:
            self._dropped = True
            self._backlog.clear()
        else:
            self._backlog.append(data)
        self._notify()

    def close(self) -> None:
        """No more is written; ``run`` returns when all is sent."""
        self._closed = True
        self._notify()

    async def run(self) -> None:
        """Send the headers, and what is written until it is closed; then end the response."""
        self._timer = self._clock.call_later(self._keep_alive, self._tick)
        try:
            await self._send({"type": "http.response.start", "status": 200, "headers": list(self._headers)})
            while True:
                if self._backlog:
                    # All that has come meanwhile leaves in one send.
                    data = b"".join(self._backlog)
                    self._backlog.clear()
                    self._last_sent = self._clock.monotonic()
                    await self._send({"type": "http.response.body", "body": data, "more_body": True})
                    self._size -= len(data)
                elif self._closed or self._dropped:
                    break
                else:
                    self._wake = asyncio.get_running_loop().create_future()
                    await self._wake
                    self._wake = None
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._timer.cancel()

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _tick(self) -> None:
        # One timer for the whole connection; re-arming it for each chunk would cost more than the chunk.
        wait = self._last_sent + self._keep_alive - self._clock.monotonic()
        if wait < 0.001:  # a timer may be early by a rounding
            wait = self._keep_alive
            if not self._backlog:
                self.write(KEEP_ALIVE)
        self._timer = self._clock.call_later(wait, self._tick)
