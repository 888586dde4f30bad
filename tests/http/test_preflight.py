"""What a browser asks before it sends the request of another origin's page.

A function URL with CORS answers that itself and never calls us, and a REST API hands it on, where we know which origins
may call (tests/real/built_rest_api.py); without any the answer must not be a yes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tailrace.backend import Backend
from tailrace.clock import SystemClock
from tailrace.http.api_app import create_api_app
from tailrace.http.requests import Message
from tailrace.http.stream_app import create_stream_app
from tailrace.settings import Settings
from tailrace.store import DynamoDB, Store

pytestmark = pytest.mark.anyio

ASKED = [
    (b"origin", b"https://elsewhere.example"),
    (b"access-control-request-method", b"POST"),
    (b"access-control-request-headers", b"authorization,content-type"),
]


async def answer(app: Any, method: str, path: str, headers: list[tuple[bytes, bytes]]) -> Message:
    """Return the start of an application's response."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "https",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
    await app(scope, receive, send)
    return sent[0]


@pytest.mark.parametrize("create", [create_api_app, create_stream_app])
@pytest.mark.parametrize("path", ["/conversations/some-id/stream", "/messages/some-id/stream"])
async def test_it_is_no_yes(create: Callable[[Backend], Any], path: str) -> None:
    """It is answered before anybody is asked who they are, and with nothing that a browser takes for leave."""
    backend = Backend(Settings(auth="jwt", jwt_secret="x" * 32))
    found = await answer(create(backend), "OPTIONS", path, ASKED)
    assert found["status"] == 405
    assert not [name for name, _ in found["headers"] if name.lower().startswith(b"access-control")]


def drawn(count: int) -> bytes:
    """Fail: this is called when randomness is asked for."""
    raise AssertionError


async def test_nothing_is_opened_or_drawn_before_the_first_request() -> None:
    """A snapshot of the stream function (SnapStart) is taken when /health has been answered. Whatever it held would be
    shared by all environments that start from it: connections, random numbers."""
    dynamodb = DynamoDB(region="us-east-1", endpoint_url=None, clock=SystemClock())
    store = Store(dynamodb, "table", clock=SystemClock(), random_bytes=drawn)
    backend = Backend(Settings(auth="jwt", jwt_secret="x" * 32), store=store, random_bytes=drawn)
    app = create_stream_app(backend)
    assert (await answer(app, "GET", "/health", []))["status"] == 200
    assert not backend._sessions._sessions._made
    assert not dynamodb._calls._exchanges._made
    await backend.close()
