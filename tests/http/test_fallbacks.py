"""Providers that fail, as a client sees it: who answers in the end, and that a stop reaches the provider."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec
import pytest
from tailrace.settings import Settings

from tests.http.conftest import Client, Json, Serve, events, script
from tests.http.test_start import chat_chunk, openai_settings
from tests.providers.fake_server import FakeServer, Reply

pytestmark = pytest.mark.anyio

DOWN = Reply(
    status=529, headers={"Content-Type": "application/json"}, pieces=[b'{"error":{"message":"internal words"}}']
)
DONE = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
SECOND = {"provider": "scripted", "model": "fast"}


def start(**more: Any) -> Json:
    """Return the body of a start whose second provider is the scripted one."""
    return {"input": "hi", "fallbacks": [SECOND], "options": {"retries": 0}, **more}


async def replayed(client: Client, message_id: str) -> bytes:
    """Return the reply as somebody else gets it, from its beginning."""
    async with client.session.get(f"/messages/{message_id}/stream?after=0") as response:
        return bare(await response.read())


def bare(body: bytes) -> bytes:
    """Return a stream without its keep-alives, which come when they come."""
    return body.replace(b":\n", b"")


async def test_the_next_provider_answers(serve: Serve, settings: Settings, caplog: Any) -> None:
    """The reader sees one answer; the message says who gave it, and who was asked before."""
    upstream = FakeServer(DOWN)
    caplog.set_level(logging.DEBUG)
    async with upstream.serving(), serve(openai_settings(settings, upstream)) as client:
        response, body = await client.start(start())
        *chunks, done = events(body)
        message = done["message"]
        assert "".join(chunk["chunk"] for chunk in chunks) == message["content"] != ""
        assert (message["provider"], message["model"]) == ("scripted", "fast")
        assert message["metadata"]["attempts"] == [
            {"provider": "openai", "model": "m", "error_type": "api_error", "status_code": 529}
        ]
        assert message["metadata"]["model"] == "fast"
        assert message["usage"]["source"] == "provider"
        assert await replayed(client, message["id"]) == bare(body)
        stored = await client.backend.store.messages.peek(message["id"])
        assert "internal words" in stored.private["attempt_details"][0]
        assert (await client.json("GET", f"/messages/{message['id']}"))[1] == message
    assert "provider failed, asking again" in caplog.text
    for seen in (body.decode(), caplog.text, repr(message)):
        assert "internal words" not in seen
    assert response.status == 200


async def test_a_provider_that_recovers(serve: Serve, settings: Settings) -> None:
    """It is asked again, after as long as it said."""
    busy = msgspec.structs.replace(DOWN, status=429, headers={"Retry-After": "0.05"})
    upstream = FakeServer(busy, busy, Reply(pieces=[chat_chunk("at last"), DONE]))
    async with upstream.serving(), serve(openai_settings(settings, upstream)) as client:
        _, body = await client.start({"input": "hi"})
        *chunks, done = events(body)
    assert [chunk["chunk"] for chunk in chunks] == ["at last"]
    assert [attempt["status_code"] for attempt in done["message"]["metadata"]["attempts"]] == [429, 429]
    assert len(upstream.requests) == 3


@pytest.mark.parametrize("fallback", ["before_first_chunk", "reset"])
async def test_a_provider_that_breaks_off(serve: Serve, settings: Settings, fallback: str) -> None:
    """The honest failure with the text so far, or a reset and the whole of another answer: as the start asked, and
    the same for whoever reads it later."""
    upstream = FakeServer(Reply(pieces=[chat_chunk("half an ans")]))
    async with upstream.serving(), serve(openai_settings(settings, upstream)) as client:
        response, body = await client.start(start(fallback=fallback))
        first, *others, last = events(body)
        assert first["chunk"] == "half an ans"
        message_id = response.headers["X-Message-Id"]
        message = (await client.json("GET", f"/messages/{message_id}"))[1]
        assert await replayed(client, message_id) == bare(body)
        polled = (await client.json("GET", f"/messages/{message_id}/events?after=0"))[1]
        assert [msgspec.json.encode(event) for event in polled] == [
            msgspec.json.encode(event) for event in events(body)
        ]
    if fallback == "before_first_chunk":
        assert others == []
        assert (last["error"], message["content"], message["status"]) == (True, "half an ans", "failed")
        return
    reset, *chunks = others
    assert reset == {"reset": True, "message_id": message_id, "id": reset["id"]}
    assert "".join(chunk["chunk"] for chunk in chunks) == last["message"]["content"] == message["content"]
    assert message["content"].startswith("Once upon")
    assert (message["provider"], message["metadata"]["attempts"][0]["provider"]) == ("scripted", "openai")


async def test_a_resume_from_before_the_reset(serve: Serve, settings: Settings) -> None:
    """Whoever has the first half is told that it is void."""
    upstream = FakeServer(Reply(pieces=[chat_chunk("half"), chat_chunk(" an ans")]))
    async with upstream.serving(), serve(openai_settings(settings, upstream)) as client:
        _, body = await client.start(start(fallback="reset"))
        first, *rest = events(body)
        path = f"/messages/{first['message_id']}/stream"
        async with client.session.get(path, headers={"Last-Event-ID": first["id"]}) as response:
            assert events(await response.read()) == rest


async def test_the_last_resort(serve: Serve, settings: Settings) -> None:
    """A provider whose streams do not come through is asked for one body; the message says that it was not streamed."""
    said = {"message": {"content": "whole"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 1}
    answer = msgspec.json.encode({"model": "m-1", "choices": [said], "usage": usage})
    upstream = FakeServer(
        Reply(headers={"Content-Type": "text/html"}, pieces=[b"<html>"]),
        whole=Reply(headers={"Content-Type": "application/json"}, pieces=[answer]),
    )
    async with upstream.serving(), serve(openai_settings(settings, upstream)) as client:
        _, body = await client.start({"input": "hi", "options": {"retries": 0}})
        chunk, done = events(body)
    message = done["message"]
    assert chunk["chunk"] == message["content"] == "whole"
    assert message["metadata"]["streamed"] is False
    assert (message["model"], message["usage"]) == ("m-1", {**usage, "source": "provider"})


async def test_a_cancel_reaches_a_silent_provider_within_a_second(serve: Serve, settings: Settings) -> None:
    """Its connection is closed, as it sees itself, although it says nothing and the cancel came from elsewhere."""
    upstream = FakeServer(Reply(pieces=[chat_chunk("first")], ending="stall"))
    async with upstream.serving(), serve(openai_settings(settings, upstream)) as client:
        path = f"/conversations/{await client.conversation()}/stream"
        async with asyncio.timeout(30), client.session.post(path, json={"input": "hi"}) as response:
            await response.content.readuntil(b"\n\n")
            message_id = response.headers["X-Message-Id"]
            await client.until(message_id, lambda message: message.content == "first")
            assert not upstream.left.is_set()
            status, cancelled = await client.json("POST", f"/messages/{message_id}/cancel")
            async with asyncio.timeout(1.0):
                await upstream.left.wait()
            last = events(b"data" + (await response.content.read()).split(b"data")[-1])[-1]
    assert (status, cancelled["status"], cancelled["content"]) == (200, "cancelled", "first")
    assert last["error_type"] == "cancelled"


async def test_a_cancel_between_two_attempts(serve: Serve, settings: Settings) -> None:
    """Who waits to ask again does not."""
    busy = msgspec.structs.replace(DOWN, headers={"Retry-After": "50"})
    upstream = FakeServer(busy)
    async with upstream.serving(), serve(openai_settings(settings, upstream)) as client:
        path = f"/conversations/{await client.conversation()}/stream"
        async with asyncio.timeout(30), client.session.post(path, json={"input": "hi"}) as response:
            message_id = response.headers["X-Message-Id"]
            await client.until(message_id, lambda message: message.seq == 1)  # the attempt is in the log
            await client.json("POST", f"/messages/{message_id}/cancel")
            assert b'"error_type":"cancelled"' in await response.read()
        message = await client.backend.store.messages.get(message_id)
    assert len(upstream.requests) == 1
    assert len(message.metadata["attempts"]) == 1
    assert message.usage is not None
    assert (message.usage.completion_tokens, message.usage.source) == (0, "estimate")


@pytest.mark.parametrize(
    ("timeouts", "kind"), [({"first_chunk": 0.1}, "timeout_first_chunk"), ({"total": 0.1}, "timeout")]
)
async def test_a_time_out_of_a_whole_reply(
    serve: Serve, settings: Settings, timeouts: dict[str, float], kind: str
) -> None:
    """504, whichever limit it was."""
    upstream = FakeServer(Reply(ending="stall"))
    async with upstream.serving(), serve(openai_settings(settings, upstream)) as client:
        path = f"/conversations/{await client.conversation()}/stream"
        body = {"input": "hi", "options": {"timeouts": timeouts}}
        status, content = await client.json("POST", path, body, headers={"Accept": "application/json"})
    assert (status, content["error"]["type"]) == (504, kind)


async def test_a_filter_stops_the_answer(serve: Serve, settings: Settings) -> None:
    """It has an error type of its own, and what came before it stays."""
    stop = b'data: {"choices":[{"delta":{},"finish_reason":"content_filter"}]}\n\ndata: [DONE]\n\n'
    upstream = FakeServer(Reply(pieces=[chat_chunk("Well, "), stop]))
    async with upstream.serving(), serve(openai_settings(settings, upstream)) as client:
        response, body = await client.start({"input": "hi"})
        message = await client.backend.store.messages.get(response.headers["X-Message-Id"])
    assert events(body)[-1]["error_type"] == "content_filter"
    assert (message.status, message.content, message.finish_reason) == ("failed", "Well, ", "content_filter")
    assert message.metadata["retryable"] is False
    assert len(upstream.requests) == 1


async def test_too_many_providers(client: Client) -> None:
    """A list that nobody would wait for is refused."""
    path = f"/conversations/{await client.conversation()}/stream"
    status, content = await client.json("POST", path, {**script("a"), "fallbacks": [SECOND] * 8})
    assert (status, content["error"]["message"]) == (422, "A reply may name 8 providers at most.")
