"""The floor without aiohttp: asyncio's protocols and httptools, and no more HTTP than the two others here speak.

    python -m benchmarks.peers.floor_bare <the provider's root>

It is no server that could be used: it knows one request, and what goes wrong ends the connection.
"""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from typing import Final
from urllib.parse import urlsplit

import httptools

from benchmarks.peers.chunks import Events
from benchmarks.server import Requests, listen_by

HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
)


class Provider(asyncio.Protocol):
    """A connection to the provider, for one reply after the other."""

    def __init__(self, idle: list[Provider]) -> None:
        self._idle = idle
        self._reader: Client | None = None
        self._body: list[bytes] = []
        self._is_complete = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self in self._idle:
            self._idle.remove(self)
        if self._reader is not None:
            self._reader.transport.abort()

    def ask(self, request: bytes, reader: Client) -> None:
        """Ask for a reply."""
        self._reader = reader
        self._events = Events()
        self._parser = httptools.HttpResponseParser(self)
        self._is_complete = False
        self.transport.write(request)

    def on_body(self, body: bytes) -> None:
        """Take a part of the answer: httptools calls this."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Take the answer's end: httptools calls this."""
        self._is_complete = True

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)
        assert self._reader is not None
        if self._body:
            blocks = self._events.feed(b"".join(self._body))
            self._body.clear()
            if blocks:
                self._reader.transport.write(b"%x\r\n%b\r\n" % (len(blocks), blocks))
        if self._is_complete:
            reader, self._reader = self._reader, None
            self._idle.append(self)
            reader.end()


class Client(Requests):
    """A client's connection."""

    def __init__(self, host: str, port: int, idle: list[Provider]) -> None:
        super().__init__()
        self._host, self._port = host, port
        self._idle = idle
        self._provider: Provider | None = None

    def answer(self, head: bytes, body: bytes) -> None:
        """Relay one reply, or say that requests are served."""
        if head.startswith(b"GET"):
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            return
        request = (
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: %b:%d\r\nContent-Type: application/json\r\n"
            b"Authorization: Bearer none\r\nContent-Length: %d\r\n\r\n%b"
        ) % (self._host.encode(), self._port, len(body), body)
        self.transport.write(HEAD)
        if self._idle:
            self._ask(self._idle.pop(), request)
        else:
            self._opening = asyncio.ensure_future(self._open(request))

    async def _open(self, request: bytes) -> None:
        loop = asyncio.get_running_loop()
        _, provider = await loop.create_connection(partial(Provider, self._idle), self._host, self._port)
        self._ask(provider, request)

    def _ask(self, provider: Provider, request: bytes) -> None:
        self._provider = provider
        provider.ask(request, self)

    def pause_writing(self) -> None:
        """Read no more than the client does."""
        if self._provider is not None:
            self._provider.transport.pause_reading()

    def resume_writing(self) -> None:
        """Read on."""
        if self._provider is not None:
            self._provider.transport.resume_reading()

    def end(self) -> None:
        """End the answer."""
        if self._provider is not None:
            self._provider.transport.resume_reading()
            self._provider = None
        self.transport.write(b"0\r\n\r\n")
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._provider is not None:
            self._provider.transport.abort()


async def serve(url: str) -> None:
    """Serve on a free port, which is printed."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    idle: list[Provider] = []
    async with await listen_by(partial(Client, parts.hostname, parts.port, idle)) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
