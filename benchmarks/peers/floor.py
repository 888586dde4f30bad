"""The floor: the least that a relay by aiohttp does that gives its events ids. It stores nothing.

    python -m benchmarks.peers.floor <the provider's root>

It parses the provider's chunks and writes them as server-sent events with ids: one send for what one read brought.
"""

from __future__ import annotations

import asyncio
import sys

import aiohttp
from aiohttp import web

from benchmarks.peers.chunks import Events


class Relay:
    """The one route."""

    def __init__(self, url: str) -> None:
        self._url = url + "/chat/completions"
        self._session: aiohttp.ClientSession | None = None

    async def open(self, app: web.Application) -> None:
        """Open the client in the server's event loop."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=1024), timeout=aiohttp.ClientTimeout(total=None)
        )

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Relay one reply."""
        assert self._session is not None
        asked = await request.read()
        headers = {"Content-Type": "application/json", "Authorization": "Bearer none"}
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        async with self._session.post(self._url, data=asked, headers=headers) as answer:
            await response.prepare(request)
            events = Events()
            async for data in answer.content.iter_any():
                if blocks := events.feed(data):
                    await response.write(blocks)
        await response.write_eof()
        return response


async def health(request: web.Request) -> web.Response:
    """Say that requests are served."""
    return web.Response()


async def serve(url: str) -> None:
    """Serve on a free port, which is printed."""
    relay = Relay(url)
    app = web.Application()
    app.on_startup.append(relay.open)
    app.router.add_post("/stream", relay.answer)
    app.router.add_get("/health", health)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
