"""The other end of a measurement: an HTTP server that costs as little as one can in Python."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

Write = Callable[[int, bytes], None]
"""Answers with a status and a body, at once or later."""

Subject = Callable[[bytes, bytes, Write], None]
"""Takes a request's head and body, and what answers it."""


class Requests(asyncio.Protocol):
    """Reads requests of a declared length; ``answer`` is a subclass's."""

    def __init__(self) -> None:
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def answer(self, head: bytes, body: bytes) -> None:
        """Answer one request."""
        raise NotImplementedError

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = self._data[:end]
            length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            whole = end + 4 + int(length or 0)
            if len(self._data) < whole:
                return
            body, self._data = self._data[end + 4 : whole], self._data[whole:]
            self.answer(head, body)


class Server(Requests):
    """Lets a subject answer them."""

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self._subject = subject

    def answer(self, head: bytes, body: bytes) -> None:
        """See ``Requests.answer``."""
        self._subject(head, body, self._write)

    def _write(self, status: int, body: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))


async def listen(subject: Subject) -> asyncio.Server:
    """Serve on a free port, which is printed for whoever started this process."""
    return await listen_by(partial(Server, subject))


async def listen_by(protocol: Callable[[], asyncio.Protocol]) -> asyncio.Server:
    """Serve on a free port, which is printed, each connection by a protocol of its own."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    return server
