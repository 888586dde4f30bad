"""The management API of a WebSocket API on a real socket, whose connections behave as a test says."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote

import msgspec
from aiohttp import web

STUCK = -1
"""Instead of a status: no answer, until the test lets go."""


class Received(msgspec.Struct, frozen=True):
    """A request as it came: the path is not decoded."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class FakeManagement:
    """Answers each socket's requests with what ``answers`` has for it, one after the other; then with 200.

    Attributes:
        always: socket to the status that it answers once ``answers`` has no more.
        frames: socket to what it took.
        requests: everything that came.
        flights: socket to how many of its requests were answered at the same time, at most.
        let_go: lets the stuck ones end, with 200.
    """

    def __init__(self) -> None:
        self.answers: dict[str, deque[int]] = defaultdict(deque)
        self.always: dict[str, int] = {}
        self.frames: dict[str, list[bytes]] = defaultdict(list)
        self.requests: list[Received] = []
        self.flights: Counter[str] = Counter()
        self.let_go = asyncio.Event()
        self.url = ""
        self._flying: Counter[str] = Counter()
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[FakeManagement]:
        """Serve on a free port."""
        app = web.Application(client_max_size=1 << 20)
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        assert runner.addresses
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/live"
        try:
            yield self
        finally:
            self.let_go.set()
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        _, _, quoted = request.raw_path.rpartition("/")
        socket = unquote(quoted)
        self._flying[socket] += 1
        self.flights[socket] = max(self.flights[socket], self._flying[socket])
        try:
            async with self._changed:
                self.requests.append(Received(request.method, request.raw_path, dict(request.headers), body))
                self._changed.notify_all()
            planned = self.answers[socket]
            status = planned.popleft() if planned else self.always.get(socket, 200)
            if status == STUCK:
                await self.let_go.wait()
                status = 200
            if status == 200:
                async with self._changed:
                    self.frames[socket].append(body)
                    self._changed.notify_all()
            return web.json_response({"message": "as planned"}, status=status)
        finally:
            self._flying[socket] -= 1

    def events(self, socket: str) -> list[dict[str, Any]]:
        """Return the frames that a socket took."""
        return [msgspec.json.decode(frame) for frame in self.frames[socket]]

    def text(self, socket: str) -> str:
        """Return the chunks that a socket took, joined; a reset voids what was before it."""
        text = ""
        for event in self.events(socket):
            if event["event"].endswith("MessageChunkReceived"):
                text = "" if event["data"].get("reset") else text + event["data"]["chunk"]
        return text

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds; it is looked at after each request."""
        async with asyncio.timeout(20), self._changed:
            await self._changed.wait_for(condition)
