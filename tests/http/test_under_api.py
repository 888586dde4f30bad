"""The same routes under ``/api``."""

from __future__ import annotations

import asyncio

import pytest
from tailrace.http.requests import Message, Scope
from tailrace.http.stream_app import create_stream_app
from tailrace.http.under_api import UnderApi

from tests.http.conftest import Client, events, script

pytestmark = pytest.mark.anyio


async def test_a_conversation_under_the_prefix(client: Client) -> None:
    """JSON routes and streaming ones, and it is the same conversation as without the prefix."""
    status, created = await client.json("POST", "/api/conversations", {"title": "T"})
    assert status == 201
    path = f"/conversations/{created['id']}"
    assert await client.json("GET", f"/api{path}") == await client.json("GET", path) == (200, created)
    async with client.session.post(f"/api{path}/stream", json=script("Hel", "lo")) as response:
        started = await response.read()
    async with client.session.get(f"/api{path}/stream") as response:
        assert await response.read() == started
    assert [event["message"]["content"] for event in events(started) if "done" in event] == ["Hello"]


async def test_the_stream_function_has_them_too(client: Client) -> None:
    """Its application is another one than that of the buffered function."""
    status: list[int] = []

    async def request() -> Message:
        return await asyncio.Future()  # a GET has no body, and this client stays

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            status.append(message["status"])

    app = create_stream_app(client.backend)
    conversation = await client.conversation()
    stored = (await client.start(script("a"), conversation))[0].headers["X-Message-Id"]
    for path in ("/health", f"/conversations/{conversation}/stream", f"/messages/{stored}/events", "/nothing"):
        scope: Scope = {"type": "http", "method": "GET", "path": f"/api{path}", "query_string": b"", "headers": []}
        await app(scope, request, send)
    assert status == [200, 200, 200, 404]


@pytest.mark.parametrize(
    ("path", "mounted"),
    [
        ("/api/conversations", True),
        ("/api/chats", True),
        ("/api/chat", False),
        ("/api/chat/42/stream", False),
        ("/api", False),
        ("/apis/conversations", False),
        ("/conversations/api/stream", False),
    ],
)
async def test_whose_prefix_it_is(path: str, mounted: bool) -> None:
    """What only looks like it is left alone, and so are the AI SDK's routes, whose own name it is part of."""
    seen: list[Scope] = []

    async def app(scope: Scope, receive: object, send: object) -> None:
        seen.append(scope)

    async def receive() -> Message:
        raise AssertionError("nothing is read here")

    async def send(message: Message) -> None:
        raise AssertionError("nothing is sent here")

    scope = {"type": "http", "path": path}
    await UnderApi(app)(scope, receive, send)
    assert seen == [{**scope, "root_path": "/api"} if mounted else scope]


async def test_a_missing_route_under_the_prefix(client: Client) -> None:
    """Is a 404 of ours, as without it."""
    without = await client.json("GET", "/nothing")
    assert without[0] == 404
    assert await client.json("GET", "/api/nothing") == without == await client.json("GET", "/api")
