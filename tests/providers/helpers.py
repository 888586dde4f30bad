"""What the providers' tests share."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import msgspec
from tailrace.errors import ProviderError
from tailrace.events import (
    Citation,
    ProviderEvent,
    Reasoning,
    ResponseInfo,
    Text,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
    ToolResult,
    Usage,
)
from tailrace.providers import PromptMessage, Provider, ProviderConfig, ProviderRequest, open_provider

from .event_stream import encoded

FIXTURES = Path(__file__).parent / "fixtures"
KEY = "sk-secret-0123456789"
WIRES = ("anthropic", "gemini", "openai", "openai-responses")
"""Those of server-sent events. Bedrock's is another."""
ALL_WIRES = (*WIRES, "bedrock")
REQUEST_ID = {
    "anthropic": "request-id",
    "openai": "x-request-id",
    "openai-responses": "x-request-id",
    "bedrock": "x-amzn-requestid",
}
"""The header with the request's id. Gemini's is in the body."""

T = TypeVar("T")


def run(test: Coroutine[Any, Any, T], seconds: float = 10) -> T:
    """Run a test's coroutine, for so long at most."""

    async def limited() -> T:
        async with asyncio.timeout(seconds):
            return await test

    return asyncio.run(limited())


def fixture(name: str) -> bytes:
    """A recorded body."""
    if name.startswith("bedrock"):
        return encoded((FIXTURES / f"{name}.jsonl").read_bytes())
    return (FIXTURES / f"{name}.sse").read_bytes()


def cuts(stream: bytes, seed: int = 0) -> list[list[bytes]]:
    """The stream whole, byte by byte, and cut at random three times."""
    result = [[stream], [stream[i : i + 1] for i in range(len(stream))]]
    for number in range(3):
        points = sorted(random.Random(seed + number).choices(range(len(stream) + 1), k=9))
        result.append([stream[a:b] for a, b in zip([0, *points], [*points, len(stream)], strict=True)])
    return [[piece for piece in pieces if piece] for pieces in result]


class Answer(msgspec.Struct):
    """All that an answer brought, and how it failed."""

    text: str = ""
    reasoning: str = ""
    tools: list[ToolCall] = []
    results: list[ToolResult] = []
    citations: list[Citation] = []
    usage: Usage = Usage()
    model: str | None = None
    finish_reason: str | None = None
    request_id: str | None = None
    error: ProviderError | None = None
    writing: dict[str, list[str]] = {}

    def add(self, events: Sequence[ProviderEvent]) -> None:
        """Take in some events, a later one's fields winning."""
        for event in events:
            match event:
                case Text(text):
                    assert text
                    self.text += text
                case Reasoning(text):
                    assert text
                    self.reasoning += text
                case ToolCallStart(call_id, name):
                    assert call_id not in self.writing
                    self.writing[call_id] = [name]
                case ToolCallDelta(call_id, piece):
                    assert piece
                    self.writing[call_id].append(piece)
                case ToolCall(call_id, name, arguments):
                    assert call_id
                    begun, *pieces = self.writing.pop(call_id)
                    assert begun == name
                    assert not pieces or "".join(pieces) == arguments
                    self.tools.append(event)
                case ToolResult():
                    self.results.append(event)
                case Citation():
                    self.citations.append(event)
                case Usage(prompt, completion):
                    self.usage = Usage(
                        self.usage.prompt_tokens if prompt is None else prompt,
                        self.usage.completion_tokens if completion is None else completion,
                    )
                case ResponseInfo(model, finish_reason, request_id):
                    self.model = model or self.model
                    self.finish_reason = finish_reason or self.finish_reason
                    self.request_id = request_id or self.request_id


async def collect(stream: AsyncGenerator[Sequence[ProviderEvent], None]) -> Answer:
    """Read to the end, whichever it is."""
    answer = Answer()
    try:
        async for events in stream:
            assert events
            answer.add(events)
    except ProviderError as error:
        answer.error = error
    return answer


@asynccontextmanager
async def opened(wire: str, url: str, key: str | None = KEY) -> AsyncIterator[Provider]:
    """The provider, with a session of its own, at a server that may not be the vendor's."""
    async with aiohttp.ClientSession() as session:
        config = ProviderConfig(api_key=key, base_url=url, default_model="some-model", region="us-east-1")
        yield open_provider(wire, config, session)


def prompt(**options: Any) -> ProviderRequest:
    """A short prompt."""
    messages = [PromptMessage("user", "Tell."), PromptMessage("assistant", "Of?"), PromptMessage("user", "Wheels.")]
    return ProviderRequest(model=None, messages=messages, system=["Be brief."], cache=False, options=options)
