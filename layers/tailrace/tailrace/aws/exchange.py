"""HTTP/1.1 to one host, for small calls by the thousand: a request is one write, and its answer one future.

A client library does for each call what none of these needs: cookies, redirects, compression, an object for every part
of it. Through aiohttp a segment's write costs more than twice as much (``benchmarks/segment_write.py``), and a reply
makes up to ten of them a second. What comes is read by httptools, which serves our own routes.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from collections import deque
from collections.abc import Mapping
from functools import cache
from typing import Final, NamedTuple, cast

import httptools
from yarl import URL

KEPT_SECONDS: Final = 60.0
"""How long a connection is kept that nobody uses."""

RESOLVED_SECONDS: Final = 60.0
"""How long a host's addresses are used before they are asked for again."""


class Answer(NamedTuple):
    """What a service answers. The headers' names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class BrokenOff(OSError):
    """The connection ended, or what came was not HTTP, before the answer was whole."""


class Exchange:
    """Connections to one host, in one event loop.

    Args:
        url: any of that host.
        limit: connections open at once; who finds none free waits.
    """

    def __init__(self, url: URL, limit: int) -> None:
        self._host = url.raw_host or ""
        self._port = url.port or 443
        self._is_encrypted = url.scheme == "https"
        self._room = asyncio.Semaphore(limit)
        self._free: deque[_Connection] = deque()  # the one used last is the last
        self._addresses: list[str] = []
        self._resolved = 0.0
        self._resolving = asyncio.Lock()
        self._is_closed = False

    async def call(self, request: bytes) -> Answer:
        """Send a request, head and body, and return its answer. Whoever is cancelled closes the connection.

        Raises:
            OSError: there is no connection, or it broke off.
        """
        async with self._room:
            connection = self._take() or await self._connect()
            try:
                answer = await connection.call(request)
            except BaseException:
                connection.close()
                raise
            self._give_back(connection)
            return answer

    async def connect(self) -> None:
        """Open a connection ahead of the first call, unless one is free.

        Raises:
            OSError: there is none to be had.
        """
        async with self._room:
            self._give_back(self._take() or await self._connect())

    def close(self) -> None:
        """Close the connections: those that nobody uses at once, the others after their calls."""
        self._is_closed = True
        while self._free:
            self._free.pop().close()

    def _take(self) -> _Connection | None:
        while self._free:
            connection = self._free.pop()
            if connection.is_open:
                return connection
        return None

    def _give_back(self, connection: _Connection) -> None:
        connection.used = asyncio.get_running_loop().time()
        if self._is_closed:
            connection.close()
        elif connection.is_open:
            self._free.append(connection)
        while self._free and connection.used - self._free[0].used > KEPT_SECONDS:
            self._free.popleft().close()

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        failure = OSError("no address")
        for address in await self._resolve():
            try:
                _, connection = await loop.create_connection(
                    _Connection,
                    address,
                    self._port,
                    ssl=verified() if self._is_encrypted else None,
                    server_hostname=self._host if self._is_encrypted else None,
                )
            except OSError as error:
                failure = error
            else:
                return connection
        self._resolved = 0.0  # it may have moved
        raise failure

    async def _resolve(self) -> list[str]:
        """Return the host's addresses, which all that open a connection now ask for once."""
        loop = asyncio.get_running_loop()
        async with self._resolving:
            if not self._resolved or loop.time() - self._resolved > RESOLVED_SECONDS:
                found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
                self._addresses = [str(address[0]) for *_, address in found]
                self._resolved = loop.time()
        return self._addresses


class _Connection(asyncio.Protocol):
    """One connection, on which one request is under way at a time."""

    def __init__(self) -> None:
        self.used = 0.0
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[Answer] | None = None
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []

    @property
    def is_open(self) -> bool:
        """Whether another request may be sent."""
        return self._transport is not None and not self._transport.is_closing()

    async def call(self, request: bytes) -> Answer:
        """Send a request and return its answer.

        Raises:
            BrokenOff: it ended before the answer was whole.
        """
        transport = self._transport
        if transport is None:
            raise BrokenOff("closed")
        self._answer = asyncio.get_running_loop().create_future()
        transport.write(request)
        try:
            return await self._answer
        finally:
            self._answer = None

    def close(self) -> None:
        """Close it at once."""
        if self._transport is not None:
            self._transport.abort()

    # ---- what the event loop calls ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none, though it does what one does

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail("not HTTP")

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._fail("connection lost")

    def _fail(self, why: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(BrokenOff(why))
        self.close()

    # ---- what the parser calls ----

    def on_message_begin(self) -> None:
        self._headers = {}
        self._body = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        parser, answer = self._parser, self._answer
        if answer is None or answer.done() or not parser.should_keep_alive():
            self.close()  # what nobody asked for is not kept for the next one either
        if answer is not None and not answer.done():
            answer.set_result(Answer(parser.get_status_code(), self._headers, b"".join(self._body)))


@cache
def verified() -> ssl.SSLContext:
    """Return the TLS context. Making one reads the system's certificates, 60 ms, so where aiohttp was imported the one
    that it has made is used; its name there is private, and without it nothing but the time is lost."""
    made = getattr(sys.modules.get("aiohttp.connector"), "_SSL_CONTEXT_VERIFIED", None)
    return made if isinstance(made, ssl.SSLContext) else ssl.create_default_context()
