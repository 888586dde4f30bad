"""What the tests of all frameworks ask, and how they hear the answer. Each has a model of its own; all say the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final

from tailrace.events import (
    ProviderEvent,
    Reasoning,
    StepEnd,
    Text,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
    ToolResult,
)
from tailrace.providers import FilePart, ImagePart, PromptMessage, ProviderRequest
from tailrace.providers.own import OwnProvider

Answering = Callable[[ProviderRequest], AsyncIterator[Sequence[ProviderEvent]]]

SYSTEM: Final = "Speak of Bern only."

CALL: Final = ToolCall("c1", "weather", '{"city":"Bern"}')

ROUND: Final = (
    Reasoning("Hm. "),
    Text("Let me see. "),
    ToolCallStart("c1", "weather"),
    ToolCallDelta("c1", '{"city":"Bern"}'),
    CALL,
    ToolResult("c1", "weather", '"clear"'),
    StepEnd(),
    Text("It is sunny."),
)
"""What each model says and its tool returns, in two steps."""

TURNS: Final = (
    PromptMessage("user", "How is Bern?"),
    PromptMessage("assistant", "I look.", tool_calls=[ToolCall("k1", "weather", '{"city":"Bern"}')]),
    PromptMessage("tool_result", "", tool_results=[ToolResult("k1", "weather", "rain", is_error=True)]),
    PromptMessage("assistant", "It rains."),
    PromptMessage(
        "user",
        "And in this picture?",
        parts=[
            ImagePart(media_type="image/png", data="aGVsbG8="),
            FilePart(media_type="application/pdf", data="aGVsbG8=", name="map.pdf"),
        ],
    ),
)
"""A conversation's third turn: a round of tools lies behind it, whose tool failed, and its question has parts."""


async def weather(city: str) -> str:
    """Say how the weather is.

    Args:
        city: where.
    """
    if city == "Nowhere":
        raise ValueError("secret")
    return "clear"


class Waiting:
    """A tool that never returns, and who hears of it."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()

    async def weather(self, city: str) -> str:
        """Say how the weather is.

        Args:
            city: where.
        """
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()
        return "clear"


class VendorFailed(Exception):
    """What the package of a model's vendor raises."""

    status_code = 529


class PolicyContentFilterError(Exception):
    """The same, where a filter refused the prompt."""


def ask(*messages: PromptMessage, **more: Any) -> ProviderRequest:
    """Return what a provider is asked; without messages one question."""
    return ProviderRequest(model=None, messages=messages or [PromptMessage("user", "How is Bern?")], **more)


async def said(answer: Answering, request: ProviderRequest) -> list[ProviderEvent]:
    """Return all that an answer says, its text and its arguments in one piece where several come."""
    events: list[ProviderEvent] = []
    async for some in answer(request):
        for event in some:
            last = events[-1] if events else None
            if isinstance(event, Text) and isinstance(last, Text):
                events[-1] = Text(last.text + event.text)
            elif isinstance(event, ToolCallDelta) and isinstance(last, ToolCallDelta) and last.id == event.id:
                events[-1] = ToolCallDelta(event.id, last.arguments + event.arguments)
            else:
                events.append(event)
    return events


async def stopped(answer: Answering, closed: asyncio.Event) -> None:
    """Stop an answer that has begun, in all three ways: its reader is gone, its task is cancelled, the reply is. Each
    time its model hears of it, and no task is left."""
    for stop in (_close, _cancel, _cancel_reply):
        closed.clear()
        before = asyncio.all_tasks()
        async with asyncio.timeout(10):
            await stop(answer)
            await closed.wait()
            while left := asyncio.all_tasks() - before:
                await asyncio.wait(left)


async def stopped_in_a_tool(answer: Answering, tool: Waiting) -> None:
    """Cancel a reply while its agent's tool runs: the tool hears of it, and no task is left."""
    before = asyncio.all_tasks()

    async def read() -> None:
        async for _ in OwnProvider("helper", answer).stream(ask()):
            pass

    async with asyncio.timeout(10):
        task = asyncio.create_task(read())
        await tool.begun.wait()
        task.cancel()
        await tool.ended.wait()
        while left := asyncio.all_tasks() - before:
            await asyncio.wait(left)


async def _close(answer: Answering) -> None:
    events: Any = answer(ask())
    async for _ in events:
        break
    await events.aclose()


async def _cancel(answer: Answering) -> None:
    begun = asyncio.Event()

    async def read() -> None:
        async for _ in answer(ask()):
            begun.set()

    task = asyncio.create_task(read())
    await begun.wait()
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()


async def _cancel_reply(answer: Answering) -> None:
    events = OwnProvider("helper", answer).stream(ask())
    async for _ in events:
        break
    await events.aclose()
