"""Connections that are opened ahead: the next request takes them, and nothing was sent on them before."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
from tailrace import Conversation
from tailrace.aws.sessions import open_connection
from tailrace.backend import Backend
from tailrace.clock import SystemClock
from tailrace.conversation.additions import NewMessage
from tailrace.errors import Unprocessable
from tailrace.http.begin import Ask, begin, connecting, store_start
from tailrace.http.live import Started
from tailrace.settings import Settings
from tailrace.store import Store
from tailrace.store.dynamodb import Payload

from tests.memory_calls import MemoryCalls
from tests.providers.fake_server import FakeServer, Reply
from tests.providers.helpers import KEY, fixture

pytestmark = pytest.mark.anyio


async def test_the_next_request_takes_it() -> None:
    """One connection, and one request on it; a free one is not doubled."""
    server = FakeServer(Reply(headers={"Content-Type": "application/json"}, pieces=[b"{}"]))
    async with server.serving(), aiohttp.ClientSession() as session:
        await open_connection(session, server.url + "/some/path")
        await open_connection(session, server.url)
        assert server.requests == []
        async with session.post(server.url + "/x", json={}) as response:
            assert await response.json() == {}
        assert (server.connections, len(server.requests)) == (1, 1)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://nowhere.invalid/", "https://127.0.0.1:1/", "nonsense"])
async def test_what_cannot_be_opened_is_no_error(url: str) -> None:
    """Whoever asks finds out, and says it."""
    async with aiohttp.ClientSession() as session:
        await open_connection(session, url)


class Slow(MemoryCalls):
    """A table whose transactions wait."""

    def __init__(self, server: FakeServer) -> None:
        super().__init__()
        self._server = server
        self.connected: list[int] = []
        self.asked: list[int] = []

    async def call(self, operation: str, payload: Payload) -> Payload:
        if operation == "TransactWriteItems":
            async with asyncio.timeout(10):
                await self._server.connected.wait()
            self.connected.append(self._server.connections)
            self.asked.append(len(self._server.requests))
        return await super().call(operation, payload)


def scope(conversation: str) -> dict[str, Any]:
    return {"type": "http", "headers": [], "query_string": b"", "path_params": {"conversation_id": conversation}}


async def test_a_start_opens_its_provider_s_while_it_is_stored() -> None:
    """Before the transaction has succeeded there is a connection, and no request on it; after it the one request."""
    server = FakeServer(Reply(pieces=[fixture("openai")]))
    async with server.serving():
        calls = Slow(server)
        environment = {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": KEY}
        settings = Settings(table="t", provider="openai", model="m", broadcast=False, environment=environment)
        backend = Backend(settings, store=Store(calls, "t", clock=SystemClock()))
        conversation = await Conversation.create(backend=backend)
        started = await start(backend, conversation.id, Ask(additions=[NewMessage("user", "Hello")]))
        assert (calls.connected, calls.asked) == ([1], [0])
        async for _ in started.source:
            pass
        assert (server.connections, len(server.requests)) == (1, 1)
        await started.stream.complete()
        with pytest.raises(Unprocessable):  # refused: nothing is left running
            await start(backend, conversation.id, Ask(options={"tools": 1}))
        await backend.close()


async def start(backend: Backend, conversation_id: str, ask: Ask) -> Started:
    """Store a start as the routes do, and wait for the connection."""
    async with connecting(backend, None) as opening:
        begun = await begin(backend, "anonymous", conversation_id, arrived=0.0)
        started = await store_start(backend, scope(conversation_id), begun, ask)
        await opening
        return started


async def test_the_table_s_is_opened_while_the_function_starts() -> None:
    """Nothing is asked of it."""
    server = FakeServer(Reply())
    async with server.serving():
        backend = Backend(Settings(dynamodb_endpoint=server.url, broadcast=False))
        async with backend.open(), asyncio.timeout(10):
            await server.connected.wait()
        assert server.requests == []
