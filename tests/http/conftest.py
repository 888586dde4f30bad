"""The whole application on a real socket, and a client."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest
from tailrace.backend import Backend
from tailrace.conversation.conversation import Conversation
from tailrace.events import TERMINAL, Message
from tailrace.http.api_app import create_api_app
from tailrace.http.server import server
from tailrace.reply.stream import MessageStream
from tailrace.settings import Settings
from tailrace.store import DynamoDB, Store

from tests.faults import FaultyCalls

Json = dict[str, Any]


class Client:
    """Calls the application as an HTTP client does."""

    def __init__(self, session: aiohttp.ClientSession, backend: Backend, calls: FaultyCalls) -> None:
        self.session = session
        self.backend = backend
        self.calls = calls

    async def json(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
        """Return the status and the JSON body of a call."""
        async with self.session.request(method, path, json=body, **options) as response:
            text = await response.read()
            return response.status, msgspec.json.decode(text) if text else None

    async def conversation(self, **body: Any) -> str:
        """Return the id of a new conversation."""
        status, content = await self.json("POST", "/conversations", body)
        assert status == 201, content
        return str(content["id"])

    async def start(self, body: Json, conversation: str | None = None) -> tuple[aiohttp.ClientResponse, bytes]:
        """Start a reply and return the whole of its stream."""
        path = f"/conversations/{conversation or await self.conversation()}/stream"
        async with asyncio.timeout(30), self.session.post(path, json=body) as response:
            return response, await response.read()

    async def until(self, message_id: str, condition: Callable[[Message], bool]) -> Message:
        """Return a message once a condition holds."""
        async with asyncio.timeout(20):
            while not condition(message := await self.backend.store.messages.get(message_id)):
                pass
        return message

    async def ended(self, message_id: str) -> Message:
        """Return a message once it has ended."""
        return await self.until(message_id, lambda message: message.status in TERMINAL)

    async def open_stream(self) -> MessageStream:
        """Return a stream that the test itself writes."""
        conversation = await Conversation.load(await self.conversation(), backend=self.backend)
        return await conversation.stream_response("question")

    async def flushed(self, stream: MessageStream) -> None:
        """Wait until all of a stream is in its log."""
        await self.until(stream.id, lambda message: message.seq == stream.seq)

    def abandon(self, stream: MessageStream) -> None:
        """Let a writer die: it neither writes nor shows a sign of life from now on."""
        stream._writer._closed = True


def events(body: bytes) -> list[Json]:
    """Return the data of a stream's blocks; everything else in the body must be keep-alives."""
    found = []
    for block in body.replace(b":\n", b"").decode().split("\n\n"):
        if block:
            data, identity = block.split("\n")
            assert data.startswith("data: ")
            assert identity.startswith("id: ")
            found.append({**msgspec.json.decode(data[6:].encode()), "id": identity[4:]})
    return found


def script(*chunks: str, **more: Any) -> Json:
    """Return the body of a start that the scripted provider answers with these chunks."""
    return {"input": "hello", "model": "fast", "options": {"script": {"chunks": list(chunks), **more}}}


Serve = Callable[[Settings], Any]


@pytest.fixture
def serve() -> Serve:
    """Serve the application with other settings."""

    @asynccontextmanager
    async def serving(settings: Settings) -> AsyncIterator[Client]:
        backend = Backend(settings)
        dynamodb = DynamoDB(
            region=settings.region,
            endpoint_url=settings.dynamodb_endpoint,
            clock=backend.clock,
            attempt_timeout=1.0,
            deadline=2.0,
        )
        calls = FaultyCalls(dynamodb)
        backend.store = Store(calls, settings.table, clock=backend.clock)
        backend.on_close(dynamodb.close)
        uvicorn = server(create_api_app(backend), host="127.0.0.1", port=0)
        listening = socket.create_server(("127.0.0.1", 0))
        running = asyncio.create_task(uvicorn.serve(sockets=[listening]))
        # Whoever connects before it has started simply waits in the socket's backlog.
        port = listening.getsockname()[1]
        try:
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
                yield Client(session, backend, calls)
        finally:
            uvicorn.should_exit = True
            uvicorn.force_exit = True
            await running
            await backend.close()  # forced, the server does not say that it ends

    return serving


@pytest.fixture
async def client(settings: Settings, serve: Serve) -> AsyncIterator[Client]:
    """A client of the application as on one machine."""
    async with serve(settings) as client:
        yield client
