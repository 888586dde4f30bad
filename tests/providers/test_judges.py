"""The vendors' own SDKs as judges: the same bytes from the same server must mean the same to them and to us."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import boto3
import msgspec
import pytest
from anthropic import AsyncAnthropic
from google import genai
from google.genai import types
from openai import AsyncOpenAI
from tailrace.events import Citation, ToolCall, Usage

from .fake_server import STREAM, FakeServer, Reply
from .helpers import ALL_WIRES, KEY, REQUEST_ID, Answer, collect, cuts, fixture, opened, prompt, run


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
                citations=[
                    Citation(
                        getattr(citation, "url", None),
                        getattr(citation, "title", None) or getattr(citation, "document_title", None),
                        citation.cited_text,
                    )
                    for block in message.content
                    if block.type == "text"
                    for citation in block.citations or []
                ],
                usage=Usage(
                    message.usage.input_tokens
                    + (message.usage.cache_read_input_tokens or 0)
                    + (message.usage.cache_creation_input_tokens or 0),
                    message.usage.output_tokens,
                ),
                model=message.model,
                finish_reason=message.stop_reason,
                request_id=stream.response.headers.get("request-id"),
            )


async def ask_openai(url: str) -> Answer:
    """Ask with OpenAI's SDK."""
    async with AsyncOpenAI(api_key=KEY, base_url=url, max_retries=0) as client:
        stream = await client.chat.completions.create(
            model="some-model", messages=[{"role": "user", "content": "Tell."}], stream=True
        )
        answer = Answer(request_id=stream.response.headers.get("x-request-id"))
        tools: dict[int, list[str]] = {}
        async for chunk in stream:
            answer.model = chunk.model
            if chunk.usage is not None:
                answer.usage = Usage(chunk.usage.prompt_tokens, chunk.usage.completion_tokens)
            for choice in chunk.choices:
                answer.text += choice.delta.content or ""
                answer.reasoning += (choice.delta.model_extra or {}).get("reasoning_content", "")
                answer.finish_reason = choice.finish_reason or answer.finish_reason
                for annotation in (choice.delta.model_extra or {}).get("annotations", []):
                    cited = annotation["url_citation"]
                    answer.citations.append(Citation(cited["url"], cited["title"]))
                for call in choice.delta.tool_calls or []:
                    assert call.function is not None
                    parts = tools.setdefault(call.index, [call.id or "", call.function.name or "", ""])
                    parts[2] += call.function.arguments or ""
        answer.tools = [ToolCall(*tools[index]) for index in sorted(tools)]
        await stream.close()
        return answer


async def ask_responses(url: str) -> Answer:
    """Ask with OpenAI's SDK, and read only the whole response that comes at the end."""
    async with AsyncOpenAI(api_key=KEY, base_url=url, max_retries=0) as client:
        stream = await client.responses.create(model="some-model", input="Tell.", stream=True, store=False)
        request_id = stream.response.headers.get("x-request-id")
        last: Any = None
        async for event in stream:
            last = event
        await stream.close()
    response = last.response
    parts = [part for item in response.output if item.type == "message" for part in item.content]
    return Answer(
        text=response.output_text,
        reasoning="\n\n".join(
            summary.text for item in response.output if item.type == "reasoning" for summary in item.summary
        ),
        tools=[
            ToolCall(item.call_id, item.name, item.arguments)
            for item in response.output
            if item.type == "function_call"
        ],
        citations=[
            Citation(getattr(annotation, "url", None), getattr(annotation, "title", None) or annotation.filename)
            for part in parts
            for annotation in part.annotations
        ],
        usage=Usage(response.usage.input_tokens, response.usage.output_tokens),
        model=response.model,
        finish_reason=response.status,
        request_id=request_id,
    )


async def ask_gemini(url: str) -> Answer:
    """Ask with Google's SDK, in a thread: with aiohttp it does what aiohttp warns of."""
    return await asyncio.to_thread(read_gemini, url)


def read_gemini(url: str) -> Answer:
    """Ask with Google's SDK."""
    client = genai.Client(api_key=KEY, http_options=types.HttpOptions(base_url=url))
    answer = Answer()
    cited: dict[Citation, None] = {}
    try:
        for chunk in client.models.generate_content_stream(model="some-model", contents="Tell."):
            assert chunk.candidates is not None
            candidate = chunk.candidates[0]
            answer.model, answer.request_id = chunk.model_version, chunk.response_id
            for part in (candidate.content.parts if candidate.content is not None else None) or []:
                if part.text and part.thought:
                    answer.reasoning += part.text
                elif part.text:
                    answer.text += part.text
                if (call := part.function_call) is not None:
                    arguments = msgspec.json.encode(call.args).decode()
                    answer.tools.append(ToolCall(call.id or "", call.name or "", arguments))
            if candidate.finish_reason is not None:
                answer.finish_reason = candidate.finish_reason.value.lower()
            if candidate.grounding_metadata is not None:
                for each in candidate.grounding_metadata.grounding_chunks or []:
                    if each.web is not None:
                        cited[Citation(each.web.uri, each.web.title)] = None
                    if (context := each.retrieved_context) is not None:
                        cited[Citation(context.uri, context.title, context.text)] = None
            if candidate.citation_metadata is not None:
                for source in candidate.citation_metadata.citations or []:
                    cited[Citation(source.uri, source.title)] = None
            usage = chunk.usage_metadata
            assert usage is not None
            answer.usage = Usage(
                usage.prompt_token_count, (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0)
            )
    finally:
        client.close()
    answer.citations = list(cited)
    return answer


async def ask_bedrock(url: str) -> Answer:
    """Ask with boto3, in a thread."""
    return await asyncio.to_thread(read_bedrock, url)


def read_bedrock(url: str) -> Answer:
    """Ask with boto3."""
    client: Any = boto3.client("bedrock-runtime", region_name="us-east-1", endpoint_url=url)
    response = client.converse_stream(modelId="some-model", messages=[{"role": "user", "content": [{"text": "Tell."}]}])
    answer = Answer(model="some-model", request_id=response["ResponseMetadata"]["RequestId"])
    tools: dict[int, list[str]] = {}
    for event in response["stream"]:
        match event:
            case {"contentBlockStart": {"start": {"toolUse": use}, "contentBlockIndex": index}}:
                if "type" not in use:
                    tools[index] = [use["toolUseId"], use["name"], ""]
            case {"contentBlockDelta": {"delta": {"toolUse": use}, "contentBlockIndex": index}} if index in tools:
                tools[index][2] += use["input"]
            case {"contentBlockDelta": {"delta": {"text": text}}}:
                answer.text += text
            case {"contentBlockDelta": {"delta": {"reasoningContent": {"text": text}}}}:
                answer.reasoning += text
            case {"contentBlockDelta": {"delta": {"citation": citation}}}:
                url = citation["location"].get("web", {}).get("url")
                quote = "".join(source["text"] for source in citation.get("sourceContent", []))
                answer.citations.append(Citation(url, citation["title"], quote or None))
            case {"messageStop": {"stopReason": reason}}:
                answer.finish_reason = reason
            case {"metadata": {"usage": usage}}:
                answer.usage = Usage(usage["inputTokens"], usage["outputTokens"])
    answer.tools = [ToolCall(call_id, name, arguments or "{}") for call_id, name, arguments in tools.values()]
    client.close()
    return answer


JUDGES: dict[str, Callable[[str], Awaitable[Answer]]] = {
    "anthropic": ask_anthropic,
    "bedrock": ask_bedrock,
    "gemini": ask_gemini,
    "openai": ask_openai,
    "openai-responses": ask_responses,
}


def headers_of(wire: str) -> dict[str, str]:
    """The response's headers, with the request's id where it is one."""
    headers = dict(STREAM)
    if wire == "bedrock":
        headers = {"Content-Type": "application/vnd.amazon.eventstream"}
    return {**headers, REQUEST_ID[wire]: "req_42"} if wire in REQUEST_ID else headers


def plain(answer: Answer) -> Answer:
    """The answer with its tool calls' JSON in one spelling."""
    for index, call in enumerate(answer.tools):
        arguments = msgspec.json.encode(msgspec.json.decode(call.arguments)).decode()
        answer.tools[index] = ToolCall(call.id, call.name, arguments)
    return answer


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("name", ["", "_search"])
@pytest.mark.parametrize("wire", ALL_WIRES)
def test_the_vendors_sdk_reads_the_same(wire: str, name: str, line_end: bytes) -> None:
    """Text, reasoning, tools, citations, usage, model, finish reason and request id, whole, byte by byte and at random
    cuts."""
    if wire == "bedrock" and line_end != b"\n":
        return  # it has no lines
    stream = fixture(wire + name).replace(b"\n", line_end) if wire != "bedrock" else fixture(wire + name)

    async def test() -> None:
        server = FakeServer(Reply())
        async with server.serving():
            for pieces in cuts(stream):
                server.reply = Reply(pieces=pieces, headers=headers_of(wire))
                theirs = await JUDGES[wire](server.url)
                async with opened(wire, server.url) as provider:
                    ours = await collect(provider.stream(prompt()))
                results, ours.results = ours.results, []
                assert plain(ours) == plain(theirs)
                assert ours.request_id == ("Il0taoSYJ5Cez7" if wire == "gemini" else "req_42")
                assert ours.text
                assert len(ours.tools) == (0 if name else 2)
                assert bool(results) == (name != "" and wire != "openai")
                assert bool(ours.citations) == (name != "")

    run(test(), seconds=60)


@pytest.mark.parametrize("wire", ALL_WIRES)
def test_we_ask_as_the_vendors_sdk_does(wire: str) -> None:
    """The same path, model, stream flag and content type; the key and the version are known to differ."""

    async def test() -> None:
        server = FakeServer(Reply(pieces=[fixture(wire)], headers=headers_of(wire)))
        async with server.serving(), opened(wire, server.url + "/") as provider:
            await JUDGES[wire](server.url)
            await collect(provider.stream(prompt()))
        theirs, ours = server.requests
        assert ours.path == theirs.path
        assert ours.body.get("stream") is theirs.body.get("stream")
        assert ours.body.get("model") == theirs.body.get("model")
        assert ours.headers["content-type"] == theirs.headers["content-type"]
        match wire:
            case "openai" | "openai-responses":
                assert ours.headers["authorization"] == theirs.headers["authorization"] == f"Bearer {KEY}"
            case "gemini":
                assert ours.headers["x-goog-api-key"] == theirs.headers["x-goog-api-key"] == KEY
            case "bedrock":
                assert ours.headers["authorization"].split("/")[2:4] == theirs.headers["authorization"].split("/")[2:4]
            case _:
                # anthropic 2.x speaks the newer version, and sends the key as a bearer token (see VERSION).
                assert ours.headers["x-api-key"] == KEY
                assert ours.headers["anthropic-version"] == "2023-06-01"
                assert theirs.headers["anthropic-version"] == "2026-10-21"
                assert theirs.headers["authorization"] == f"Bearer {KEY}"

    run(test())
