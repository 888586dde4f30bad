"""What clients send that is odd: refused in words, on every route alike, and nothing of it is stored."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import msgspec
import pytest
from tailrace.settings import Settings

from tests.http.conftest import Client, Serve, script

pytestmark = pytest.mark.anyio

JSON = {"Content-Type": "application/json"}

NOT_UNICODE = "The body has text that is not Unicode: half a surrogate pair."
TOO_DEEP = "The body nests deeper than 64 objects and arrays."
NO_NUMBER = "The body has a number that cannot be kept: NaN, infinite, or beyond 64 bits."

ODD = [
    (rb'{"content":"a\ud83d b"}', NOT_UNICODE),
    (rb'{"metadata":{"\ude00":1}}', NOT_UNICODE),
    (rb'{"title":"\ude00\ud83d"}', NOT_UNICODE),
    (b'{"metadata":{"a":NaN}}', NO_NUMBER),
    (b'{"metadata":{"a":-Infinity}}', NO_NUMBER),
    (b'{"metadata":{"a":1e400}}', NO_NUMBER),
    (b'{"metadata":{"a":' + b"9" * 30 + b"}}", NO_NUMBER),
    (b'{"metadata":{"a":' + b"9" * 5_000 + b"}}", NO_NUMBER),
    (b'{"metadata":' + b'{"a":' * 64 + b"1" + b"}" * 65, TOO_DEEP),
    (b"[" * 100_000, TOO_DEEP),
    (b'{"metadata":{"a":[' + b"0," * 50_000 + b"0]}}", "The body has more than 50000 values."),
]


async def routes(client: Client) -> list[tuple[str, str]]:
    """Return each route that reads JSON."""
    conversation = await client.conversation()
    return [
        ("POST", "/conversations"),
        ("PATCH", f"/conversations/{conversation}"),
        ("POST", f"/conversations/{conversation}/messages"),
        ("POST", f"/conversations/{conversation}/stream"),
        ("POST", f"/api/conversations/{conversation}/stream"),
        ("POST", "/broadcasting/auth"),
    ]


async def send(client: Client, method: str, path: str, body: bytes, **headers: str) -> tuple[int, Any]:
    """Return the status and the error of a call."""
    async with client.session.request(method, path, data=body, headers={**JSON, **headers}) as response:
        return response.status, (await response.json()).get("error")


async def test_json_that_cannot_be_kept(client: Client) -> None:
    """One answer on all routes."""
    for method, path in await routes(client):
        for body, said in ODD:
            refused = {"type": "unprocessable", "message": said}
            assert await send(client, method, path, body) == (422, refused), (path, body[:40])


async def test_what_is_at_the_bounds_is_kept(client: Client) -> None:
    """A pair of surrogates, an escaped backslash before a u, the largest numbers, 64 levels."""
    deep: Any = 1
    for _ in range(62):
        deep = [deep]
    kept = {"a": "\N{GRINNING FACE}", "b": "\\ud83d", "c": [2**64 - 1, -(2**63), 1.7e308], "d": deep}
    body = msgspec.json.encode({"metadata": kept}).replace("\N{GRINNING FACE}".encode(), rb"\ud83d\ude00")
    async with client.session.post("/conversations", data=body, headers=JSON) as response:
        assert response.status == 201, await response.text()
        assert (await response.json())["metadata"] == kept


async def test_a_body_that_does_not_say_that_it_is_json(client: Client) -> None:
    """415 that names the type; a body of none needs none."""
    refused = {"type": "unsupported_type", "message": "The Content-Type of the body must be application/json."}
    for method, path in await routes(client):
        for kind in ("text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""):
            if path.startswith("/broadcasting") and "form" in kind:
                continue
            assert await send(client, method, path, b"{}", **{"Content-Type": kind}) == (415, refused), (path, kind)
    status, _ = await send(
        client, "POST", "/conversations", b"{}", **{"Content-Type": "application/json; charset=utf-8"}
    )
    assert status == 201


async def test_a_field_that_there_is_not(client: Client) -> None:
    """It is named, wherever it is, and nothing is stored."""
    create, change, add, start, _, auth = await routes(client)
    cases: list[tuple[tuple[str, str], dict[str, Any], str]] = [
        (create, {"titel": "x"}, "titel"),
        (change, {"titel": "x"}, "titel"),
        (add, {"role": "user", "content": "x", "meta": {}}, "meta"),
        (start, {"input": "hi", "modle": "x"}, "modle"),
        (start, {"input": "hi", "delivery": {"intervall": 1}}, "intervall"),
        (start, {"input": "hi", "fallbacks": [{"provider": "scripted", "modle": "x"}]}, "modle"),
        (start, {"input": [{"type": "text", "txt": "hi", "text": "hi"}]}, "txt"),
        (auth, {"socket_id": "1.1", "channel_name": "private-a", "chanel": "x"}, "chanel"),
    ]
    for (method, path), body, name in cases:
        status, error = await send(client, method, path, msgspec.json.encode(body))
        assert (status, error["type"]) == (422, "unprocessable"), (path, body)
        assert name in error["message"]
    _, listed = await client.json("GET", add[1])
    assert listed["messages"] == []


async def test_names_have_a_length_and_a_refused_start_stores_nothing(client: Client) -> None:
    """Its idempotency key is free for the start that is right."""
    conversation = await client.conversation()
    path, key = f"/conversations/{conversation}/stream", {"Idempotency-Key": "k"}
    for body in ({"model": "m" * 150_000}, {"provider": "p" * 5_000}, {"metadata": {"a": "x" * 200_000}}):
        status, content = await client.json("POST", path, {"input": "hi", **body}, headers=key)
        assert (status, content["error"]["type"]) == (422, "unprocessable"), body
        assert len(content["error"]["message"]) < 300
    _, listed = await client.json("GET", f"/conversations/{conversation}/messages")
    assert listed["messages"] == []
    async with client.session.post(path, json=script("a"), headers=key) as response:
        assert response.status == 200
        await response.read()


async def test_numbers_in_a_query(client: Client) -> None:
    """Of any length: a 4xx in words."""
    response, _ = await client.start(script("a"))
    message = response.headers["X-Message-Id"]
    digits = "9" * 5_000
    paths = (
        f"/messages/{message}/events?wait={digits}",
        f"/messages/{message}/events?after={digits}",
        f"/messages/{message}/stream?interval_ms={digits}",
        f"/conversations?limit={digits}",
    )
    for path in paths:
        status, content = await client.json("GET", path)
        assert status in (400, 422), path
        assert content["error"]["message"]


async def test_head_is_get_without_a_body(client: Client) -> None:
    """Of a stream too, whose connection is not kept; and a look starts nothing."""
    conversation = await client.conversation()
    response, _ = await client.start(script("a"), conversation)
    message = response.headers["X-Message-Id"]
    waiting = await client.open_stream()
    paths = (
        "/health",
        "/conversations",
        f"/conversations/{conversation}",
        f"/conversations/{conversation}/messages",
        f"/conversations/{conversation}/stream",
        f"/conversations/{conversation}/stream?message=hello",
        f"/messages/{message}",
        f"/messages/{message}/events",
        f"/messages/{message}/stream",
        f"/messages/{waiting.id}/stream",
        "/conversations/nonsense",
    )
    for path in paths:
        async with asyncio.timeout(10), client.session.head(path) as head:
            assert await head.read() == b""
        if "message=" in path or waiting.id in path:
            assert (head.status, head.content_type) == (200, "text/event-stream")
            continue
        async with asyncio.timeout(10), client.session.get(path) as get:
            assert (head.status, head.content_type) == (get.status, get.content_type), path
    _, listed = await client.json("GET", f"/conversations/{conversation}/messages")
    assert len(listed["messages"]) == 2
    await waiting.complete()


@pytest.mark.parametrize(
    ("origins", "origin", "allowed"),
    [
        (("loopback",), "http://localhost:3000", True),
        (("loopback",), "http://127.0.0.1:5173", True),
        (("loopback",), "http://[::1]:8080", True),
        (("loopback",), "https://app.example.com", False),
        (("loopback",), "http://localhost.example.com", False),
        (("loopback",), "http://localhost:3000.example.com", False),
        (("https://app.example.com",), "https://app.example.com", True),
        (("https://app.example.com",), "http://localhost:3000", False),
        ((), "http://localhost:3000", False),
    ],
)
async def test_pages_of_other_origins(
    settings: Settings, serve: Serve, origins: tuple[str, ...], origin: str, allowed: bool
) -> None:
    """The preflight, the answer, and an answer that refuses: all say whether the page may read them."""
    async with serve(msgspec.structs.replace(settings, cors_origins=origins)) as client:
        path = f"/conversations/{await client.conversation()}/stream"
        asking = {
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type,idempotency-key",
        }
        async with client.session.options(path, headers=asking) as response:
            assert (response.headers.get("Access-Control-Allow-Origin") == origin) is allowed
            assert (response.status == 200) is allowed
        for body in (script("a"), {"modle": "x"}):
            async with client.session.post(path, json=body, headers={"Origin": origin}) as response:
                await response.read()
                assert (response.headers.get("Access-Control-Allow-Origin") == origin) is allowed


async def test_deleting_a_conversation_cancels_its_open_replies(client: Client) -> None:
    """They are paid for no longer, keep their text, and are there again after a restore."""
    conversation = await client.conversation()
    path = f"/conversations/{conversation}/stream"
    body = {"input": "hi", "options": {"script": {"chunks": ["a"] * 500, "every": 0.02}}}
    async with asyncio.timeout(20), client.session.post(path, json=body) as response:
        message = response.headers["X-Message-Id"]
        await client.until(message, lambda found: found.seq > 3)
        assert (await client.json("DELETE", f"/conversations/{conversation}"))[0] == 204
        assert b'"error_type":"cancelled"' in await response.read()
    assert (await client.json("GET", f"/messages/{message}"))[0] == 404
    assert (await client.json("POST", f"/conversations/{conversation}/restore"))[0] == 200
    status, restored = await client.json("GET", f"/messages/{message}")
    assert (status, restored["status"]) == (200, "cancelled")
    assert re.fullmatch("a+", restored["content"])
