"""What a reply has besides text, as a client sees it: in the log, in the message, and in the next prompt."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from tailrace.events import Attempt, Citation, Event, Reasoning, ToolCall, ToolCallDelta, ToolCallStart, ToolResult
from tailrace.settings import Settings

from tests.http.conftest import Client, Serve, events, script
from tests.http.test_start import chat_chunk, openai_settings
from tests.providers.fake_server import FakeServer, Reply

pytestmark = pytest.mark.anyio

CALL = {"id": "call_1", "name": "weather", "arguments": '{"city":"Ulm"}'}
FOUND = {"id": "search_1", "name": "web_search", "result": '[{"title":"Ulm"}]'}
SOURCE = {"url": "https://example.com/ulm", "title": "Ulm", "quote": "sunny"}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
DONE = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
IMAGE = {"type": "image", "media_type": "image/png", "data": "iVBORw0KGgo="}


async def log_of(client: Client, message_id: str) -> list[Event]:
    """Return the stored events."""
    return [event async for segment in client.backend.store.log.read(message_id) for event in segment.events]


async def test_all_kinds_are_in_the_log_and_in_the_message(client: Client) -> None:
    """A reader of the simple protocol sees text alone; everything else is logged as it came, and in the metadata."""
    body = script("It is ", reasoning=["hm"], tool_calls=[CALL], tool_results=[FOUND], citations=[SOURCE])
    *chunks, done = events((await client.start(body))[1])
    message = done["message"]
    assert [chunk["chunk"] for chunk in chunks] == ["It is "]
    assert message["metadata"]["tool_calls"] == [CALL]
    assert message["metadata"]["tool_results"] == [FOUND]
    assert message["metadata"]["citations"] == [SOURCE]
    kinds = [type(event) for event in await log_of(client, message["id"])]
    assert [kind for kind in kinds if kind in (Reasoning, ToolCall, ToolCallStart, ToolResult, Citation)] == [
        Reasoning,
        ToolCallStart,
        ToolCall,
        ToolResult,
        Citation,
    ]
    pieces = [event.arguments for event in await log_of(client, message["id"]) if isinstance(event, ToolCallDelta)]
    assert ("".join(pieces), len(pieces)) == (CALL["arguments"], 3)
    assert (await client.json("GET", f"/messages/{message['id']}"))[1] == message


async def test_more_than_a_message_can_hold(client: Client) -> None:
    """What a search found may be larger than the message's item: then its text is in the log alone, and the message
    says so."""
    found = [{**FOUND, "id": str(number), "result": "x" * 40_000} for number in range(5)]
    _, body = await client.start(script("a", tool_results=found))
    message = events(body)[-1]["message"]
    assert message["metadata"]["only_in_log"] == ["tool_results.result"]
    assert message["metadata"]["tool_results"][4] == {"id": "4", "name": "web_search"}
    results = [event.result for event in await log_of(client, message["id"]) if isinstance(event, ToolResult)]
    assert results == ["x" * 40_000] * 5


async def test_a_tool_s_round(serve: Serve, settings: Settings) -> None:
    """The model calls, the application adds the result, and the next reply's prompt has both; an image stays with its
    message; a call that was never answered is left out."""
    upstream = FakeServer(Reply(pieces=[chat_chunk("Sunny."), DONE]))
    async with upstream.serving(), serve(openai_settings(settings, upstream)) as client:
        conversation = await client.conversation()
        asked = [{"type": "text", "text": "Weather here?"}, IMAGE]
        calls = {"chunks": [], "tool_calls": [CALL, {**CALL, "id": "call_2"}]}
        body = {"input": asked, "provider": "scripted", "options": {"script": calls, "tools": [TOOL]}}
        (done,) = events((await client.start(body, conversation))[1])
        assert (done["message"]["content"], done["message"]["status"]) == ("", "completed")
        result = {"role": "tool_result", "content": '[{"id": "call_1", "result": {"sky": "blue"}}]'}
        assert (await client.json("POST", f"/conversations/{conversation}/messages", result))[0] == 201
        options = {"tools": [TOOL], "tool_choice": "auto"}
        _, raw = await client.start({"provider": "openai", "options": options}, conversation)
        assert events(raw)[-1]["message"]["content"] == "Sunny."
        history = (await client.json("GET", f"/conversations/{conversation}/messages"))[1]["messages"]
    assert history[0]["content"] == "Weather here?"
    assert history[0]["metadata"] == {"parts": [IMAGE]}
    sent = upstream.requests[0].body
    user, assistant, tool = sent["messages"]
    assert "data:image/png;base64,iVBORw0KGgo=" in msgspec.json.encode(user).decode()
    assert [call["id"] for call in assistant["tool_calls"]] == ["call_1"]
    assert (tool["role"], tool["tool_call_id"]) == ("tool", "call_1")
    assert "blue" in tool["content"]
    assert sent["tools"][0]["function"]["name"] == "weather"


SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
FORMAT = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}


@pytest.mark.parametrize(("chunks", "right"), [(['{"n"', ":1}"], True), (['{"n"', ':"one"}'], False)])
async def test_structured_output(client: Client, chunks: list[str], right: bool) -> None:
    """It streams as it comes; one that does not match fails at its end, and the text is kept."""
    body = script(*chunks)
    body["options"]["response_format"] = FORMAT
    *shown, last = events((await client.start(body))[1])
    assert [chunk["chunk"] for chunk in shown] == chunks
    if right:
        assert last["message"]["content"] == "".join(chunks)
        return
    assert (last["error_type"], last["message"]) == ("invalid_output", "The answer does not match its schema.")
    message = await client.backend.store.messages.get(last["message_id"])
    assert (message.status, message.content) == ("failed", "".join(chunks))
    assert "error_detail" in (await client.backend.store.messages.peek(message.id)).private


async def test_a_schema_that_is_none(client: Client) -> None:
    """422, and nothing is written."""
    body = script("a")
    body["options"]["response_format"] = {"type": "json_schema", "json_schema": {"schema": {"type": "thing"}}}
    status, content = await client.json("POST", f"/conversations/{await client.conversation()}/stream", body)
    assert status == 422
    assert content["error"]["message"].startswith("Bad options: response_format has no JSON schema")


@pytest.mark.parametrize("body", [{"role": "tool_result", "content": "x"}, {"role": "tool_call", "content": "{}"}])
async def test_tool_messages_are_checked(client: Client, body: dict[str, Any]) -> None:
    """422 for one that no prompt could take up."""
    path = f"/conversations/{await client.conversation()}/messages"
    status, content = await client.json("POST", path, body)
    assert (status, content["error"]["type"]) == (422, "unprocessable")


async def test_a_cancelled_reply_has_its_attempts_and_calls(client: Client) -> None:
    """Whoever ends a reply from its log tells the same as its writer would."""
    stream = await client.open_stream()
    attempt = Attempt("openai", "m", "api_error", 529, "scripted", "fast", detail="private")
    stream.push([attempt, ToolCallStart("1", "n"), ToolCallDelta("1", "{}"), ToolCall("1", "n", "{}")])
    await client.flushed(stream)
    _, message = await client.json("POST", f"/messages/{stream.id}/cancel")
    assert (message["provider"], message["model"]) == ("scripted", "fast")
    assert message["metadata"]["tool_calls"] == [{"id": "1", "name": "n", "arguments": "{}"}]
    assert message["metadata"]["attempts"] == [
        {"provider": "openai", "model": "m", "error_type": "api_error", "status_code": 529}
    ]
    assert "private" not in repr(message)
    assert msgspec.to_builtins(await stream.complete()) == message
