"""`python -m local` with WebSocket clients, as processes of their own and over real sockets."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from local.client import Client
from tests.local.test_stack import ready, running

pytestmark = pytest.mark.anyio

DEADLINE = 60.0
SCRIPT = {"chunks": 40, "every": 0.02}


@asynccontextmanager
async def subscribers(url: str, channel: str, count: int) -> AsyncIterator[list[ClientConnection]]:
    """Clients that are subscribed to a channel."""
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(connect(f"ws{url.removeprefix('http')}/ws", open_timeout=DEADLINE))
            for _ in range(count)
        ]
        for client in clients:
            await client.send(json.dumps({"event": "subscribe", "data": {"channel": channel}}))
        for client in clients:
            assert json.loads(await client.recv())["event"] == "subscription_succeeded"
        yield clients


async def heard(client: ClientConnection) -> tuple[str, dict[str, Any]]:
    """Return the text of all chunks until the end, and the end; no chunk is missing or comes twice."""
    text, seq = "", 0
    async with asyncio.timeout(DEADLINE):
        while (frame := json.loads(await client.recv()))["event"] != "App\\Events\\MessageCompleted":
            if frame["event"] == "App\\Events\\MessageChunkReceived":
                assert frame["data"]["first_seq"] == seq + 1
                seq = frame["data"]["seq"]
                text += frame["data"]["chunk"]
    return text, frame["data"]


async def write(client: Client, conversation: dict[str, Any]) -> dict[str, Any]:
    """Have a reply written, and return its message."""
    body = {"input": "hi", "options": {"script": SCRIPT}}
    path = f"/conversations/{conversation['id']}/stream"
    message: dict[str, Any] = (await asyncio.to_thread(client.json, "POST", path, body))["message"]
    return message


@pytest.mark.parametrize("limit", ["100", "2"])
async def test_every_subscriber_gets_every_byte(limit: str) -> None:
    """By the relay itself, and, when they are more than the limit, through the broadcast function."""
    with running(TAILRACE_FAN_OUT_LIMIT=limit) as process:
        url = await asyncio.to_thread(ready, process)
        client = Client(url)
        conversation = await asyncio.to_thread(client.json, "POST", "/conversations", {})
        async with subscribers(url, f"conversation.{conversation['id']}", 5) as sockets:
            message = await write(client, conversation)
            for text, end in await asyncio.gather(*map(heard, sockets)):
                assert text == message["content"]
                assert end["message"] == message
            # With clients that are there the end is as clean, and tells them to come again.
            process.send_signal(signal.SIGTERM)
            for socket in sockets:
                async with asyncio.timeout(DEADLINE):
                    await socket.wait_closed()
                assert socket.close_code == 1012
        _, errors = await asyncio.to_thread(process.communicate, timeout=DEADLINE)
        assert errors == ""
        assert process.returncode == 0


async def test_on_a_database_that_was_given(dynamodb_url: str) -> None:
    """Its stream is read from where it ended; what was written before is not told."""
    environment = {"AWS_ENDPOINT_URL_DYNAMODB": dynamodb_url, "TAILRACE_TABLE": "given"}
    with running(**environment) as process:
        client = Client(await asyncio.to_thread(ready, process))
        conversation = await asyncio.to_thread(client.json, "POST", "/conversations", {})
        await write(client, conversation)
        process.kill()
        await asyncio.to_thread(process.communicate, timeout=DEADLINE)
    with running(**environment) as process:
        url = await asyncio.to_thread(ready, process)
        async with subscribers(url, f"conversation.{conversation['id']}", 1) as (socket,):
            message = await write(Client(url), conversation)
            text, end = await heard(socket)
            assert text == message["content"]
            assert end["message_id"] == message["id"]


async def test_an_idle_client() -> None:
    """It is closed as API Gateway does, after as long as the setting says."""
    with running(TAILRACE_LOCAL_IDLE_S="1") as process:
        url = await asyncio.to_thread(ready, process)
        async with connect(f"ws{url.removeprefix('http')}/ws") as socket, asyncio.timeout(DEADLINE):
            await socket.wait_closed()
            assert (socket.close_code, socket.close_reason) == (1001, "Going away")


async def test_switched_off() -> None:
    """Nothing listens for WebSockets, the line says so, and a reply goes as ever."""
    with running(TAILRACE_BROADCAST="off") as process:
        url = await asyncio.to_thread(ready, process)
        assert process.stdout is not None
        while not (line := process.stdout.readline()).strip().startswith("websocket"):
            assert line
        assert "off (TAILRACE_BROADCAST)" in line
        with pytest.raises(InvalidStatus) as caught:
            await connect(f"ws{url.removeprefix('http')}/ws")
        assert caught.value.response.status_code == 403
        client = Client(url)
        conversation = await asyncio.to_thread(client.json, "POST", "/conversations", {})
        assert (await write(client, conversation))["status"] == "completed"
