"""HTTP connections that are kept, for each event loop its own: the buffered function may run each request in
another loop, and a connection belongs to the loop it was made in."""

from __future__ import annotations

import asyncio
from typing import Final

import aiohttp
from yarl import URL

OPEN_SECONDS: Final = 2.0
"""How long a connection may take that is opened ahead of its first request."""


class Sessions:
    """One aiohttp session for each event loop, made when first asked for.

    Args:
        limit: connections open at once, in one loop.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._sessions: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession] = {}

    def current(self) -> aiohttp.ClientSession:
        """Return the running loop's session."""
        loop = asyncio.get_running_loop()
        session = self._sessions.get(loop)
        if session is None or session.closed:
            for old in [old for old in self._sessions if old.is_closed()]:
                del self._sessions[old]
            connector = aiohttp.TCPConnector(limit=self._limit, keepalive_timeout=60, ttl_dns_cache=60)
            session = self._sessions[loop] = aiohttp.ClientSession(connector=connector)
        return session

    async def close(self) -> None:
        """Close the running loop's session."""
        session = self._sessions.pop(asyncio.get_running_loop(), None)
        if session is not None:
            await session.close()


async def open_connection(session: aiohttp.ClientSession, url: str | URL) -> None:
    """Open a connection, TCP and TLS, for whoever asks that host next, unless one is free. Nothing is sent. One that
    cannot be opened is no error here: who asks finds out."""
    connector = session.connector
    if connector is None:
        return
    try:
        request = aiohttp.ClientRequest("POST", URL(url), loop=asyncio.get_running_loop(), session=session)
        async with asyncio.timeout(OPEN_SECONDS):
            connection = await connector.connect(request, [], aiohttp.ClientTimeout(connect=OPEN_SECONDS))
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        return
    connection.release()
