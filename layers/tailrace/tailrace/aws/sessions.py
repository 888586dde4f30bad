"""HTTP connections that are kept, for each event loop its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from yarl import URL

from tailrace.aws.per_loop import PerLoop

if TYPE_CHECKING:  # a third of a cold start, and some functions ask nobody but AWS
    import aiohttp

OPEN_SECONDS: Final = 2.0
"""How long a connection may take that is opened ahead of its first request."""


class Sessions:
    """One aiohttp session for each event loop, made when first asked for.

    Args:
        limit: connections open at once, in one loop.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._sessions = PerLoop(self._open)

    def current(self) -> aiohttp.ClientSession:
        """Return the running loop's session."""
        session = self._sessions.current()
        if session.closed:
            self._sessions.take()
            session = self._sessions.current()
        return session

    async def close(self) -> None:
        """Close the running loop's session."""
        session = self._sessions.take()
        if session is not None:
            await session.close()

    def _open(self) -> aiohttp.ClientSession:
        import aiohttp

        connector = aiohttp.TCPConnector(limit=self._limit, keepalive_timeout=60, ttl_dns_cache=60)
        return aiohttp.ClientSession(connector=connector)


async def open_connection(session: aiohttp.ClientSession, url: str | URL) -> None:
    """Open a connection, TCP and TLS, for whoever asks that host next, unless one is free. Nothing is sent. One that
    cannot be opened is no error here: who asks finds out."""
    import aiohttp

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
