"""The other end of a measurement: an HTTP server that costs as little as one can in Python."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

Write = Callable[[int, bytes], None]
"""Answers with a status and a body, at once or later."""

Subject = Callable[[bytes, bytes, Write], None]
"""Takes a request's head and body, and what answers it."""


class Server(asyncio.Protocol):
    """Reads requests of a declared length, and lets a subject answer them."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = self._data[:end]
            length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            whole = end + 4 + int(length or 0)
            if len(self._data) < whole:
                return
            body, self._data = self._data[end + 4 : whole], self._data[whole:]
            self._subject(head, body, self._write)

    def _write(self, status: int, body: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))


async def listen(subject: Subject) -> asyncio.Server:
    """Serve on a free port, which is printed for whoever started this process."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(partial(Server, subject), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    return server
