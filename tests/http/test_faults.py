"""What goes wrong at the provider or at the table: the reader is told, nothing is half written, and nothing
says ``streaming``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tailrace.settings import Settings
from tailrace.store.dynamodb import Payload

from tests.faults import Fault, is_append, is_end, is_start
from tests.http.conftest import Client, Serve, events, script
from tests.http.test_start import chat_chunk, openai_settings
from tests.providers.fake_server import FakeServer, Reply

pytestmark = pytest.mark.anyio

REFUSAL = b'{"error":{"type":"x","message":"internal words about <the prompt>"}}'


def refused(status: int) -> Reply:
    """Return a provider's refusal."""
    return Reply(status=status, headers={"Content-Type": "application/json"}, pieces=[REFUSAL])


ANSWERS: dict[str, tuple[Reply, str, int | None, bool]] = {
    "refuses the key": (refused(401), "", 401, False),
    "has too much to do": (refused(429), "", 429, True),
    "is overloaded": (refused(529), "", 529, True),
    "ends early": (Reply(pieces=[chat_chunk("part")]), "part", None, True),
    "breaks off": (Reply(pieces=[chat_chunk("part")], ending="reset"), "part", None, True),
    "sends garbage": (Reply(pieces=[chat_chunk("part"), b"data: {<html>\n\n"]), "part", None, False),
    "is no provider": (Reply(headers={"Content-Type": "text/html"}, pieces=[b"<html>"]), "", None, False),
}


@pytest.mark.parametrize("accept", ["text/event-stream", "application/json"])
@pytest.mark.parametrize("fault", ANSWERS)
async def test_a_provider_that(serve: Serve, settings: Settings, fault: str, accept: str, caplog: Any) -> None:
    """One terminal event (or a 502), the partial text kept, the provider's words kept to ourselves."""
    reply, text, status_code, _ = ANSWERS[fault]
    upstream = FakeServer(reply)
    caplog.set_level(logging.DEBUG)
    async with upstream.serving(), serve(openai_settings(settings, upstream)) as client:
        path = f"/conversations/{await client.conversation()}/stream"
        body = {"input": "the secret prompt", "options": {"retries": 0}}
        async with client.session.post(path, json=body, headers={"Accept": accept}) as response:
            raw = await response.read()
            content = None if accept == "text/event-stream" else await response.json()
        message = await client.backend.store.messages.get(response.headers["X-Message-Id"])
    if content is None:
        *chunks, last = events(raw)
        assert response.status == 200
        assert "".join(chunk["chunk"] for chunk in chunks) == text
        assert last == {
            "error": True,
            "message": message.error["message"],
            "error_type": "api_error",
            "message_id": message.id,
            "id": f"{message.id}:{message.seq}",
        }
    else:
        assert response.status == 502
        assert content["error"] == message.error
        assert content["message"]["content"] == text
        assert content["streamed"] is False
    assert (message.status, message.content) == ("failed", text)
    assert message.metadata["provider"] == "openai"
    assert message.metadata.get("status_code") == status_code
    # What is no stream may still be an answer: it is asked for once more, in one body.
    assert len(upstream.requests) == (2 if fault == "is no provider" else 1)
    for seen in (raw.decode(), repr(message), caplog.text):
        assert "internal words" not in seen
    assert "the secret prompt" not in caplog.text


async def test_nobody_at_the_provider_s_address(serve: Serve, settings: Settings, unused_port: int) -> None:
    """A connection refused is a provider's failure like any other."""
    upstream = FakeServer(refused(500))
    upstream.url = f"http://127.0.0.1:{unused_port}"
    async with serve(openai_settings(settings, upstream)) as client:
        response, body = await client.start({"input": "x", "options": {"retries": 0}})
        (last,) = events(body)
        assert last["error"] is True
        assert (await client.backend.store.messages.get(response.headers["X-Message-Id"])).status == "failed"


@pytest.mark.parametrize("accept", ["text/event-stream", "application/json"])
async def test_no_table_at_the_start(serve: Serve, settings: Settings, accept: str) -> None:
    """503 and when to come again, nothing written, and the provider is not called."""
    upstream = FakeServer(Reply(pieces=[chat_chunk("never"), b"data: [DONE]\n\n"]))
    async with upstream.serving(), serve(openai_settings(settings, upstream)) as client:
        conversation = await client.conversation()
        for broken in (
            lambda operation, payload: "refused",
            lambda operation, payload: "refused" if is_start(operation, payload) else None,
        ):
            client.calls.choose = broken
            path = f"/conversations/{conversation}/stream"
            async with client.session.post(path, json={"input": "x"}, headers={"Accept": accept}) as response:
                content = await response.json()
            assert (response.status, response.headers["Retry-After"]) == (503, "1")
            assert content == {
                "error": {
                    "type": "store_unavailable",
                    "message": "The store is not available. Please try again.",
                }
            }
        client.calls.choose = lambda operation, payload: None
        _, history = await client.json("GET", f"/conversations/{conversation}/messages")
        assert history["messages"] == []
        assert upstream.requests == []  # a connection may have been opened; nothing was asked


@pytest.mark.parametrize("lost", ["refused", "applied, answer lost"])
@pytest.mark.parametrize("accept", ["text/event-stream", "application/json"])
async def test_the_table_goes_away_in_the_middle(client: Client, accept: str, lost: Fault) -> None:
    """The reader gets an honest terminal error; once the table is back, the message has its end."""
    faults = iter([lost] * 2)

    def choose(operation: str, payload: Payload) -> Fault | None:
        return next(faults, None) if is_append(operation, payload) or is_end(operation, payload) else None

    client.calls.choose = choose
    path = f"/conversations/{await client.conversation()}/stream"
    body = script(*"abcdefgh", every=0.05)
    async with asyncio.timeout(30), client.session.post(path, json=body, headers={"Accept": accept}) as response:
        raw = await response.read()
    conversation = path.split("/")[2]
    _, history = await client.json("GET", f"/conversations/{conversation}/messages")
    message = history["messages"][-1]
    assert message["status"] == "failed"
    assert message["error"] == {"type": "store_unavailable", "message": "The reply could not be stored."}
    if accept == "application/json":
        assert response.status == 503
        assert b'"store_unavailable"' in raw
        return
    *chunks, last = events(raw)
    assert (last["error"], last["error_type"]) == (True, "store_unavailable")
    assert message["content"].startswith("".join(chunk["chunk"] for chunk in chunks))


async def test_a_bug_is_masked_and_ends_the_reply(client: Client, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """The reader gets a terminal event, the log the place and never the text of the exception."""

    async def broken(*args: object) -> AsyncIterator[None]:
        raise RuntimeError("with <the prompt> in it")
        yield

    monkeypatch.setattr("tailrace.providers.scripted.Scripted._tell", broken)
    response, body = await client.start(script("a"))
    (last,) = events(body)
    assert (last["message"], last["error_type"]) == ("The reply failed.", "general_error")
    assert (await client.backend.store.messages.get(response.headers["X-Message-Id"])).status == "failed"
    assert "<the prompt>" not in caplog.text + body.decode()


async def test_a_bug_before_the_start_is_masked(client: Client, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """500 and a sentence, nothing of the inside."""

    async def broken(*args: object) -> None:
        raise RuntimeError("with <the prompt> in it")

    monkeypatch.setattr(client.backend, "identify", broken)
    conversation = "0zB3M7plLMljp-s7GlCmFQ"
    status, content = await client.json("GET", f"/conversations/{conversation}")
    assert (status, content["error"]["message"]) == (500, "Something went wrong on our side.")
    response, body = await client.start(script("a"), conversation)
    assert response.status == 500
    assert body == b'{"error":{"type":"general_error","message":"Something went wrong on our side."}}'
    assert "<the prompt>" not in caplog.text
