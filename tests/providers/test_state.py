"""Thoughts go round: what a provider signed or encrypted comes back to it where it stood, and to nobody else.

Two rounds of thinking, a call and an answer on each wire, through the whole engine: from the conversation over a real
socket to the stored message and back into the next prompt. The judges refuse what the vendors refuse, and what their
SDKs' types do not know; Bedrock's requests have been checked by botocore itself.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from anthropic import types as anthropic_types
from google.genai import types as google_types
from openai.types.chat import ChatCompletionMessageParam
from openai.types.responses import ResponseInputItemParam
from pydantic import TypeAdapter
from tailrace.backend import Backend
from tailrace.clock import SystemClock
from tailrace.conversation.conversation import Conversation
from tailrace.conversation.prompt import prompt_messages
from tailrace.events import ProviderState, Reasoning, Text, ToolCall
from tailrace.providers import PromptMessage, variables
from tailrace.providers.openai_parser import ChatParser
from tailrace.providers.state import Kept, arranged, pieces_of
from tailrace.reply.totals import LONGEST_REASONING
from tailrace.settings import Settings
from tailrace.store import Store

from tests.memory_calls import MemoryCalls

from . import event_stream
from .fake_server import STREAM, FakeServer, Reply
from .helpers import KEY, run
from .test_in_the_wild import block, messages, sse

TOOLS = [{"name": "weather", "description": "Now.", "input_schema": {"type": "object"}}]
EVENT_STREAM = {"Content-Type": "application/vnd.amazon.eventstream"}


def anthropic(number: int, *, call: bool) -> bytes:
    """Thinking with its signature, redacted thinking, text, and a call."""
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
        block({"type": "thinking_delta", "thinking": f"Hm {number}"}),
        block({"type": "thinking_delta", "thinking": "."}),
        block({"type": "signature_delta", "signature": f"signed {number}"}),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "content_block_start",
            "index": 1,
            "content_block": {"type": "redacted_thinking", "data": f"r{number}"},
        },
        {"type": "content_block_stop", "index": 1},
        {"type": "content_block_start", "index": 2, "content_block": {"type": "text", "text": ""}},
        block({"type": "text_delta", "text": f"Text {number}."}, 2),
        {"type": "content_block_stop", "index": 2},
    ]
    if call:
        use = {"type": "tool_use", "id": f"call{number}", "name": "weather", "input": {}}
        events += [
            {"type": "content_block_start", "index": 3, "content_block": use},
            {"type": "content_block_stop", "index": 3},
        ]
    reason = "tool_use" if call else "end_turn"
    return messages(*events, {"type": "message_delta", "delta": {"stop_reason": reason}}, {"type": "message_stop"})


def judge_anthropic(body: Any, numbers: list[int]) -> None:
    TypeAdapter(list[anthropic_types.MessageParam]).validate_python(body["messages"])
    answers = [message["content"] for message in body["messages"] if message["role"] == "assistant"]
    assert answers == [
        [
            {"type": "thinking", "thinking": f"Hm {number}.", "signature": f"signed {number}"},
            {"type": "redacted_thinking", "data": f"r{number}"},
            {"type": "text", "text": f"Text {number}."},
            *([{"type": "tool_use", "id": f"call{number}", "name": "weather", "input": {}}] if number % 2 else []),
        ]
        for number in numbers
    ]


def bedrock(number: int, *, call: bool) -> bytes:
    """The same in Bedrock's words."""

    def delta(value: dict[str, Any], index: int) -> bytes:
        return event_stream.event("contentBlockDelta", {"delta": value, "contentBlockIndex": index})

    redacted = b64encode(f"r{number}".encode()).decode()
    found = [
        event_stream.event("messageStart", {"role": "assistant"}),
        delta({"reasoningContent": {"text": f"Hm {number}"}}, 0),
        delta({"reasoningContent": {"text": "."}}, 0),
        delta({"reasoningContent": {"signature": f"signed {number}"}}, 0),
        event_stream.event("contentBlockStop", {"contentBlockIndex": 0}),
        delta({"reasoningContent": {"redactedContent": redacted}}, 1),
        event_stream.event("contentBlockStop", {"contentBlockIndex": 1}),
        delta({"text": f"Text {number}."}, 2),
        event_stream.event("contentBlockStop", {"contentBlockIndex": 2}),
    ]
    if call:
        use = {"toolUse": {"toolUseId": f"call{number}", "name": "weather"}}
        found += [
            event_stream.event("contentBlockStart", {"start": use, "contentBlockIndex": 3}),
            delta({"toolUse": {"input": "{}"}}, 3),
            event_stream.event("contentBlockStop", {"contentBlockIndex": 3}),
        ]
    found.append(event_stream.event("messageStop", {"stopReason": "tool_use" if call else "end_turn"}))
    return b"".join(found)


def judge_bedrock(body: Any, numbers: list[int]) -> None:
    answers = [message["content"] for message in body["messages"] if message["role"] == "assistant"]
    assert answers == [
        [
            {"reasoningContent": {"reasoningText": {"text": f"Hm {number}.", "signature": f"signed {number}"}}},
            {"reasoningContent": {"redactedContent": b64encode(f"r{number}".encode()).decode()}},
            {"text": f"Text {number}."},
            *([{"toolUse": {"toolUseId": f"call{number}", "name": "weather", "input": {}}}] if number % 2 else []),
        ]
        for number in numbers
    ]


def signed(number: int) -> str:
    return b64encode(f"signed {number}".encode()).decode()


def gemini(number: int, *, call: bool) -> bytes:
    """A thought, text, and a call with its signature; an answer's last text is signed."""
    parts: list[dict[str, Any]] = [
        {"text": f"Hm {number}.", "thought": True},
        {"text": "Text "},
        {"text": f"{number}.", **({} if call else {"thoughtSignature": signed(number)})},
    ]
    if call:
        asked = {"id": f"call{number}", "name": "weather", "args": {}}
        parts.append({"functionCall": asked, "thoughtSignature": signed(number)})
    events = [{"candidates": [{"content": {"parts": [part]}}], "modelVersion": "m"} for part in parts]
    return sse(*events, {"candidates": [{"content": {"parts": []}, "finishReason": "STOP"}]})


def judge_gemini(body: Any, numbers: list[int]) -> None:
    TypeAdapter(list[google_types.Content]).validate_python(body["contents"])
    answers = [content["parts"] for content in body["contents"] if content["role"] == "model"]
    for number, parts in zip(numbers, answers, strict=True):
        if number % 2:
            asked = {"id": f"call{number}", "name": "weather", "args": {}}
            call = {"functionCall": asked, "thoughtSignature": signed(number)}
            assert parts == [{"text": f"Text {number}."}, call]
        else:
            assert parts == [{"text": "Text "}, {"text": f"{number}.", "thoughtSignature": signed(number)}]


def responses(number: int, *, call: bool) -> bytes:
    """A reasoning item, a message, and a call."""
    thought = {
        "type": "reasoning",
        "id": f"rs_{number}",
        "summary": [{"type": "summary_text", "text": f"Hm {number}."}],
        "encrypted_content": f"encrypted {number}",
        "status": "completed",
    }
    message = {"type": "message", "content": [{"type": "output_text", "text": f"Text {number}."}]}
    asked = {"type": "function_call", "call_id": f"call{number}", "name": "weather", "arguments": "{}"}
    output = [thought, message, *([asked] if call else [])]
    return sse(
        {"type": "response.created", "response": {"model": "m"}},
        {"type": "response.output_item.added", "output_index": 0, "item": {**thought, "encrypted_content": ""}},
        {"type": "response.output_item.done", "output_index": 0, "item": thought},
        {"type": "response.output_text.delta", "output_index": 1, "delta": f"Text {number}."},
        {"type": "response.output_item.done", "output_index": 1, "item": message},
        *(
            [{"type": kind, "output_index": 2, "item": asked} for kind in ("response.output_item.added", DONE)]
            if call
            else []
        ),
        {"type": "response.completed", "response": {"status": "completed", "output": output}},
    )


DONE = "response.output_item.done"


def judge_responses(body: Any, numbers: list[int]) -> None:
    TypeAdapter(list[ResponseInputItemParam]).validate_python(body["input"])
    assert body["store"] is False
    assert "reasoning.encrypted_content" in body["include"]
    found = [
        item for item in body["input"] if item.get("role") != "user" and item.get("type") != "function_call_output"
    ]
    expected: list[dict[str, Any]] = []
    for number in numbers:
        summary = [{"type": "summary_text", "text": f"Hm {number}."}]
        thought = {"type": "reasoning", "id": f"rs_{number}", "summary": summary}
        expected += [
            {**thought, "encrypted_content": f"encrypted {number}"},
            {"role": "assistant", "content": f"Text {number}."},
        ]
        if number % 2:
            asked = {"call_id": f"call{number}", "name": "weather", "arguments": "{}"}
            expected.append({"type": "function_call", **asked})
    assert found == expected


def chat_of(extra: Callable[[int], dict[str, Any]]) -> Callable[..., bytes]:
    """Return what makes an answer of the chat completions wire, with further members of its delta or its call."""

    def made(number: int, *, call: bool) -> bytes:
        more = extra(number)
        signed = {"extra_content": more.pop("extra_content")} if "extra_content" in more else {}
        events = [
            {"model": "m", "choices": [{"delta": {**more, "content": ""}}]},
            {"choices": [{"delta": {"content": f"Text {number}."}}]},
        ]
        if call:
            function = {"name": "weather", "arguments": "{}"}
            asked = {"index": 0, "id": f"call{number}", "function": function, **signed}
            events.append({"choices": [{"delta": {"tool_calls": [asked]}}]})
        return sse(*events, {"choices": [{"delta": {}, "finish_reason": "tool_calls" if call else "stop"}]}, "[DONE]")

    return made


def judge_chat(body: Any) -> None:
    TypeAdapter(list[ChatCompletionMessageParam]).validate_python(body["messages"])


def judge_google(body: Any, numbers: list[int]) -> None:
    """Gemini by OpenAI's wire: each call has its signature."""
    judge_chat(body)
    calls = [call for message in body["messages"] for call in message.get("tool_calls", ())]
    signed = [{"google": {"thought_signature": f"signed {number}"}} for number in numbers if number % 2]
    assert [call["extra_content"] for call in calls] == signed


def judge_deepseek(body: Any, numbers: list[int]) -> None:
    """Its reasoning is wanted after the last question, and only there."""
    judge_chat(body)
    asked = max(at for at, message in enumerate(body["messages"]) if message["role"] == "user")
    for at, message in enumerate(body["messages"]):
        if message["role"] == "assistant":
            number = int(message["content"].split()[1][:-1]) if message["content"] else 0
            assert message.get("reasoning_content") == (f"Hm {number}." if at > asked else None)
            assert number in numbers


def judge_openrouter(body: Any, numbers: list[int]) -> None:
    judge_chat(body)
    answers = [message for message in body["messages"] if message["role"] == "assistant"]
    assert [answer["reasoning_details"] for answer in answers] == [
        [
            {"type": "reasoning.text", "text": f"Hm {number}.", "signature": f"signed {number}", "index": 0},
            {"type": "reasoning.encrypted", "data": "x", "index": 1},
        ]
        for number in numbers
    ]


def details(number: int) -> dict[str, Any]:
    pieces = [
        {"type": "reasoning.text", "text": "Hm ", "signature": None, "index": 0},
        {"type": "reasoning.text", "text": f"{number}.", "signature": f"signed {number}", "index": 0},
        {"type": "reasoning.encrypted", "data": "x", "index": 1},
    ]
    return {"reasoning": f"Hm {number}.", "reasoning_details": pieces}


Made = Callable[..., bytes]
Judge = Callable[[Any, list[int]], None]

WIRES: Mapping[str, tuple[str, Made, Judge]] = {
    "anthropic": ("anthropic", anthropic, judge_anthropic),
    "bedrock": ("bedrock", bedrock, judge_bedrock),
    "gemini": ("gemini", gemini, judge_gemini),
    "openai-responses": ("openai-responses", responses, judge_responses),
    "openai": (
        "openai",
        chat_of(lambda n: {"extra_content": {"google": {"thought_signature": f"signed {n}"}}}),
        judge_google,
    ),
    "deepseek": ("deepseek", chat_of(lambda n: {"reasoning_content": f"Hm {n}."}), judge_deepseek),
    "openrouter": ("openrouter", chat_of(details), judge_openrouter),
}


def backend_of(wire: str, url: str, **more: Any) -> Backend:
    """Return a backend on a table in memory, with one provider at the fake server."""
    read = variables(wire)
    environment = {read.base_url: url, **dict.fromkeys(read.keys, KEY)}
    settings = Settings(
        table="t", region="us-east-1", provider=wire, model="gpt-5", broadcast=False, environment=environment, **more
    )
    clock = SystemClock()
    return Backend(settings, store=Store(MemoryCalls(), "t", clock=clock), clock=clock)


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials for Bedrock's own client."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")


@pytest.mark.parametrize("name", WIRES)
def test_two_rounds_of_thinking_and_a_tool(name: str) -> None:
    """Each prompt has all thoughts so far in their places; no reader is shown any of what is not text."""
    wire, made, judge = WIRES[name]
    headers = EVENT_STREAM if wire == "bedrock" else STREAM

    async def test() -> None:
        answers = [made(number, call=bool(number % 2)) for number in (1, 2, 3, 4)]
        server = FakeServer(*[Reply(headers=headers, pieces=[answer]) for answer in answers])
        async with server.serving():
            backend = backend_of(wire, server.url)
            conversation = await Conversation.create(backend=backend)
            for number in (1, 2, 3, 4):
                if number % 2:
                    await conversation.add_user_message(f"Question {number}?")
                else:
                    await conversation.add_tool_result_message(
                        json.dumps([{"id": f"call{number - 1}", "result": "sun"}])
                    )
                again = await Conversation.load(conversation.id, backend=backend)
                stream = await again.stream_response(provider=wire)
                response = again.to_request().using(wire).options(tools=TOOLS).stream()
                async for event in response:
                    await stream.append(event)
                message = await stream.complete(response)
                assert message.content == f"Text {number}."
                assert "signed" not in repr(message)
                assert "encrypted" not in repr(message)
                if name != "openai":
                    assert message.metadata["reasoning"] == f"Hm {number}."
                stored = await backend.store.messages.get(message.id)
                assert stored == message
                judge(server.requests[-1].body, list(range(1, number)))
            await backend.close()

    run(test(), seconds=30)


def test_nobody_else_gets_it() -> None:
    """Another provider is sent text and calls alone, and its own thoughts when it is asked again."""

    async def test() -> None:
        server = FakeServer(
            Reply(pieces=[anthropic(1, call=True)]), Reply(pieces=[chat_of(lambda n: {})(2, call=False)])
        )
        async with server.serving():
            backend = backend_of("anthropic", server.url)
            backend.settings.environment["OPENAI_BASE_URL"] = server.url  # type: ignore[index]  # a dict in fact
            backend.settings.environment["OPENAI_API_KEY"] = KEY  # type: ignore[index]
            conversation = await Conversation.create(backend=backend)
            await conversation.add_user_message("Question?")
            for provider in ("anthropic", "openai"):
                stream = await conversation.stream_response(provider=provider)
                response = conversation.to_request().using(provider, "m").options(tools=TOOLS).stream()
                async for event in response:
                    await stream.append(event)
                await stream.complete(response)
                await conversation.add_tool_result_message('[{"id": "call1", "result": "sun"}]')
            body = server.requests[-1].body
            assert "Hm" not in repr(body)
            assert "signed" not in repr(body)
            await backend.close()

    run(test())


def test_reasoning_is_kept_or_not() -> None:
    """Bounded; a setting switches it off."""

    async def test(*, keep: bool) -> Any:
        backend = backend_of("scripted", "", keep_reasoning=keep)
        conversation = await Conversation.create(backend=backend)
        stream = await conversation.stream_response("Question?")
        await stream.append(Reasoning("x" * LONGEST_REASONING))
        await stream.append(Reasoning("y"))
        return (await stream.complete()).metadata.get("reasoning")

    assert run(test(keep=True)) == "x" * LONGEST_REASONING
    assert run(test(keep=False)) is None


def test_what_is_long_lies_in_items_of_its_own() -> None:
    """A state of a quarter of a megabyte goes round; a larger one is left out, and the reply ends all the same."""

    async def test(size: int) -> list[PromptMessage]:
        backend = backend_of("scripted", "")
        conversation = await Conversation.create(backend=backend)
        stream = await conversation.stream_response("Question?")
        await stream.append(Text("Answer."))
        await stream.append(ProviderState("anthropic", json.dumps([{"at": 0, "block": {"x": "y" * size}}])))
        assert (await stream.complete()).status == "completed"
        past = await conversation._past(None, include_unfinished=False)
        return prompt_messages(past.messages, past.steps)

    short = run(test(250_000))[-1]
    pieces = pieces_of(short, "anthropic")
    assert pieces is not None
    assert pieces[0].block == {"x": "y" * 250_000}
    assert pieces_of(short, "bedrock") is None
    assert pieces_of(run(test(400_000))[-1], "anthropic") is None


def test_order() -> None:
    """Text, calls and blocks in their places; a call that nobody answered is left out, an unknown one comes last."""
    kept = Kept()
    kept.block({"a": 1})
    kept.characters += 3
    kept.call("one")
    kept.call("gone")
    kept.characters += 2
    kept.text(1, "signed")
    (state,) = kept.state("p")
    calls = [ToolCall("one", "x", "{}"), ToolCall("two", "x", "{}")]
    message = PromptMessage("assistant", "abcdefg", tool_calls=calls, state=state)
    pieces = pieces_of(message, "p")
    assert pieces is not None
    assert list(arranged(message, pieces)) == [
        ({"a": 1}, None),
        ("abc", None),
        (calls[0], None),
        ("d", None),
        ("e", "signed"),
        ("fg", None),
        (calls[1], None),
    ]
    assert Kept().state("p") == []


def test_nothing_is_kept_where_nothing_is_wanted() -> None:
    """An ordinary answer has no state, and costs none."""
    parser, out = ChatParser(), []  # type: ignore[var-annotated]
    parser.read(b'{"choices":[{"message":{"content":"x","reasoning_content":"y"},"finish_reason":"stop"}]}', out)
    assert not any(isinstance(event, ProviderState) for event in out)
