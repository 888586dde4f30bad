"""What a user's own module has: answers, right and wrong ones. The tests name them as a setting does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from tailrace.errors import ProviderError, Unprocessable
from tailrace.events import Citation, ProviderEvent, Reasoning, Text, ToolCall, ToolResult, Usage
from tailrace.providers import ProviderRequest

closed = asyncio.Event()
"""Set when ``endless`` is closed."""

let_go = asyncio.Event()
"""What ``stubborn`` waits for."""


async def text(request: ProviderRequest) -> AsyncIterator[str]:
    """Say the last message back, word by word; empty texts are nothing."""
    yield ""
    for word in request.messages[-1].content.split(" "):
        yield f"{word} "


async def everything(request: ProviderRequest) -> AsyncIterator[ProviderEvent | Sequence[ProviderEvent]]:
    """Yield events of all kinds, alone and together."""
    yield Reasoning("Hm. ")
    yield [ToolCall("c1", "search", '{"q":"tailrace"}'), ToolResult("c1", "search", '["a wheel"]')]
    yield (Text("It is "), Text("a channel."))
    yield Citation(url="https://example.com", title="Wheels")
    yield Usage(prompt_tokens=7, completion_tokens=3)


async def later(request: ProviderRequest) -> AsyncIterator[str]:
    """Return an iterator, once something was waited for."""
    return text(request)


class Provider:
    """A class of the protocol."""

    name = "anything"

    async def stream(self, request: ProviderRequest) -> AsyncIterator[str]:
        """Name the model."""
        yield f"I am {request.model}."


async def raising(request: ProviderRequest) -> AsyncIterator[str]:
    """Say something, then fail in words that nobody may read."""
    yield "Well, "
    raise ValueError("the prompt was: secret")


async def refusing(request: ProviderRequest) -> AsyncIterator[str]:
    """Fail in words that are meant for the reader."""
    raise ProviderError("The library is closed on Sundays.", provider="mine", status_code=503)
    yield ""


async def unprocessable(request: ProviderRequest) -> AsyncIterator[str]:
    """Find out late that it cannot be done."""
    yield "Well, "
    raise Unprocessable("Only questions about mills are answered.")


async def options(request: ProviderRequest) -> AsyncIterator[str]:
    """Name the options that it is asked with."""
    yield str(sorted(request.options))


async def odd(request: ProviderRequest) -> AsyncIterator[object]:
    """Yield what is nothing."""
    yield 42


async def endless(request: ProviderRequest) -> AsyncIterator[str]:
    """Say one word, and then nothing for ever."""
    closed.clear()
    try:
        yield "Wait "
        await asyncio.Event().wait()
    finally:
        closed.set()


async def stubborn(request: ProviderRequest) -> AsyncIterator[str]:
    """Do not want to be closed."""
    try:
        yield "No "
        await asyncio.Event().wait()
    finally:
        await let_go.wait()


NOT_ONE = 42
