"""The vendors' own SDKs as judges: the same bytes from the same server must mean the same to them and to us."""

from __future__ import annotations

import msgspec
import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from tailrace.events import ToolCall, Usage

from .fake_server import STREAM, FakeServer, Reply
from .helpers import KEY, REQUEST_ID, WIRES, Answer, collect, cuts, fixture, opened, prompt, run


async def ask_anthropic(url: str) -> Answer:
    """Ask with Anthropic's SDK."""
    async with AsyncAnthropic(api_key=KEY, base_url=url, max_retries=0) as client:
        messages = [{"role": "user", "content": "Tell."}]
        async with client.messages.stream(model="some-model", max_tokens=9, messages=messages) as stream:  # type: ignore[arg-type]  # a plain dict will do
            said = [text async for text in stream.text_stream]
            message = await stream.get_final_message()
            return Answer(
                text="".join(said),
                reasoning="".join(block.thinking for block in message.content if block.type == "thinking"),
                tools=[
                    ToolCall(block.id, block.name, msgspec.json.encode(block.input).decode())
                    for block in message.content
                    if block.type == "tool_use"
                ],
                usage=Usage(message.usage.input_tokens, message.usage.output_tokens),
                model=message.model,
                finish_reason=message.stop_reason,
                request_id=stream.response.headers["request-id"],
            )


async def ask_openai(url: str) -> Answer:
    """Ask with OpenAI's SDK."""
    async with AsyncOpenAI(api_key=KEY, base_url=url, max_retries=0) as client:
        stream = await client.chat.completions.create(
            model="some-model", messages=[{"role": "user", "content": "Tell."}], stream=True
        )
        answer = Answer(request_id=stream.response.headers["x-request-id"])
        tools: dict[int, list[str]] = {}
        async for chunk in stream:
            answer.model = chunk.model
            if chunk.usage is not None:
                answer.usage = Usage(chunk.usage.prompt_tokens, chunk.usage.completion_tokens)
            for choice in chunk.choices:
                answer.text += choice.delta.content or ""
                answer.reasoning += (choice.delta.model_extra or {}).get("reasoning_content", "")
                answer.finish_reason = choice.finish_reason or answer.finish_reason
                for call in choice.delta.tool_calls or []:
                    assert call.function is not None
                    parts = tools.setdefault(call.index, [call.id or "", call.function.name or "", ""])
                    parts[2] += call.function.arguments or ""
        answer.tools = [ToolCall(*tools[index]) for index in sorted(tools)]
        await stream.close()
        return answer


def plain(answer: Answer) -> Answer:
    """The answer with its tool calls' JSON in one spelling."""
    for index, call in enumerate(answer.tools):
        arguments = msgspec.json.encode(msgspec.json.decode(call.arguments)).decode()
        answer.tools[index] = ToolCall(call.id, call.name, arguments)
    return answer


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("wire", WIRES)
def test_the_vendors_sdk_reads_the_same(wire: str, line_end: bytes) -> None:
    """Text, reasoning, tools, usage, model, finish reason and request id, whole, byte by byte and at random cuts."""
    stream = fixture(wire).replace(b"\n", line_end)

    async def test() -> None:
        server = FakeServer(Reply())
        async with server.serving():
            for pieces in cuts(stream):
                server.reply = Reply(pieces=pieces, headers={**STREAM, REQUEST_ID[wire]: "req_42"})
                theirs = await (ask_anthropic if wire == "anthropic" else ask_openai)(server.url)
                async with opened(wire, server.url) as provider:
                    ours = await collect(provider.stream(prompt()))
                assert plain(ours) == plain(theirs)
                assert ours.request_id == "req_42"
                assert ours.text
                assert len(ours.tools) == 2

    run(test())


@pytest.mark.parametrize("wire", WIRES)
def test_we_ask_as_the_vendors_sdk_does(wire: str) -> None:
    """The same path, model, stream flag and content type; the key and the version are known to differ."""

    async def test() -> None:
        server = FakeServer(Reply(pieces=[fixture(wire)], headers={**STREAM, REQUEST_ID[wire]: "req_42"}))
        async with server.serving(), opened(wire, server.url + "/") as provider:
            await (ask_anthropic if wire == "anthropic" else ask_openai)(server.url)
            await collect(provider.stream(prompt()))
        theirs, ours = server.requests
        assert ours.path == theirs.path
        assert ours.body["stream"] is theirs.body["stream"] is True
        assert ours.body["model"] == theirs.body["model"]
        assert ours.headers["content-type"] == theirs.headers["content-type"]
        if wire == "openai":
            assert ours.headers["authorization"] == theirs.headers["authorization"] == f"Bearer {KEY}"
        else:
            # anthropic 2.x speaks the newer version, and sends the key as a bearer token (see VERSION).
            assert ours.headers["x-api-key"] == KEY
            assert ours.headers["anthropic-version"] == "2023-06-01"
            assert theirs.headers["anthropic-version"] == "2026-10-21"
            assert theirs.headers["authorization"] == f"Bearer {KEY}"

    run(test())
