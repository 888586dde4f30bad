"""A server that shuts down ends its open replies honestly."""

from __future__ import annotations

import asyncio
import socket

import aiohttp
import pytest
from tailrace.backend import Backend
from tailrace.http.api_app import create_api_app
from tailrace.http.server import server
from tailrace.settings import Settings

from tests.http.conftest import events, script

pytestmark = pytest.mark.anyio


async def test_an_open_reply_ends_as_interrupted_and_its_reader_is_told(settings: Settings) -> None:
    """After the grace the reply is ended and stored with its text, the reader gets the terminal event, and the
    connections are closed only then."""
    uvicorn = server(create_api_app(Backend(settings)), host="127.0.0.1", port=0)
    uvicorn.config.timeout_graceful_shutdown = 0
    listening = socket.create_server(("127.0.0.1", 0))
    serving = asyncio.create_task(uvicorn.serve(sockets=[listening]))
    async with (
        asyncio.timeout(30),
        aiohttp.ClientSession(f"http://127.0.0.1:{listening.getsockname()[1]}") as session,
    ):
        async with session.post("/conversations", json={}) as response:
            conversation = (await response.json())["id"]
        body = script("partial", "never", stall_after=1)
        async with session.post(f"/conversations/{conversation}/stream", json=body) as response:
            first = await response.content.readuntil(b"\n\n")
            uvicorn.should_exit = True
            rest = await response.content.read()
        await serving
    (chunk,) = events(first)
    (last,) = events(rest)
    assert (last["error_type"], last["message"]) == ("interrupted", "The reply was interrupted.")
    backend = Backend(settings)
    message = await backend.store.messages.get(chunk["message_id"])
    await backend.close()
    assert (message.status, message.content) == ("interrupted", "partial")
