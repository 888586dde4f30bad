"""Sizes as they are stored: what is taken can be ended, by whoever ends it, and what could not be is refused."""

from __future__ import annotations

import random
from typing import Any

import pytest
from tailrace.backend import Backend
from tailrace.conversation.conversation import Conversation
from tailrace.errors import Unprocessable
from tailrace.events import (
    Attempt,
    Citation,
    Json,
    ProviderState,
    Reasoning,
    ResponseInfo,
    Text,
    ToolCall,
    ToolResult,
    Usage,
)
from tailrace.reply.stream import MessageStream
from tailrace.store.conversations import LARGEST
from tailrace.store.messages import LARGEST_OPEN_ITEM

pytestmark = pytest.mark.anyio

LONGEST_OF_JSON = "\x01"
"""Has six bytes as JSON."""


def of_size(size: int) -> str:
    """Return a text of so many bytes."""
    return "\N{SNOWMAN}" * (size // 3) + "x" * (size % 3)


async def fullest(conversation: Conversation) -> MessageStream:
    """Return an open reply with as much metadata as may be."""
    for short in range(0, 1_000, 10):
        try:
            return await conversation.stream_response(metadata={"a": of_size(LARGEST_OPEN_ITEM - short)})
        except Unprocessable:
            continue
    raise AssertionError


def everything(chance: random.Random) -> list[Any]:
    """Return events that an end keeps something of, each of some size."""

    def text(longest: int) -> str:
        return chance.choice(("x", "\N{SNOWMAN}", LONGEST_OF_JSON)) * chance.choice((0, 1, longest // 2, longest))

    attempts = [
        Attempt(
            provider="scripted",
            model=text(300),
            error_type="api_error",
            status_code=500,
            next_provider="scripted",
            next_model=text(300),
            streamed=True,
            detail=text(500),
        )
        for _ in range(chance.choice((0, 1, 88)))
    ]
    info = ResponseInfo(model=text(20_000), finish_reason=text(20_000), provider_request_id=text(20_000))
    return [
        *attempts,
        info,
        Text(text(9_000)),
        Reasoning(text(30_000) or "x"),
        ProviderState("scripted", text(40_000)),
        *(ToolCall(f"id-{number}", "look", text(30_000)) for number in range(chance.choice((0, 1, 5)))),
        *(ToolResult(f"id-{number}", "look", text(30_000)) for number in range(chance.choice((0, 1, 5)))),
        *(Citation(url="https://a.example", title="a", quote=text(9_000)) for _ in range(chance.choice((0, 1, 5)))),
        Usage(1, 2),
    ]


@pytest.mark.parametrize("seed", range(12))
async def test_what_is_taken_can_be_ended(backend: Backend, seed: int) -> None:
    """By its writer, in each way; by a cancel; and the message can be read."""
    chance = random.Random(seed)
    conversation = await Conversation.create(backend=backend)
    stream = await fullest(conversation)
    for event in everything(chance):
        stream.push([event])
    way = seed % 4
    about: Json = {"note": LONGEST_OF_JSON * chance.choice((1, 3_000, 30_000)), "error_type": "x" * 30_000}
    if way == 0:
        await stream.complete()
    elif way == 1:
        await stream.fail(LONGEST_OF_JSON * 50_000)
    elif way == 2:
        await stream.fail("why", about)
    else:
        await backend.open_replies.cancel(stream.id)
    message = await backend.store.messages.get(stream.id)
    assert message.status == ("completed", "failed", "failed", "cancelled")[way]


@pytest.mark.parametrize(
    "metadata",
    [
        {"a": of_size(LARGEST_OPEN_ITEM)},
        {"a": [1e15] * 21_298},
        {"private": {"a": of_size(LARGEST_OPEN_ITEM)}},
        {"a": LONGEST_OF_JSON * 30_000},
    ],
)
async def test_metadata_that_leave_no_room_for_an_end(backend: Backend, metadata: Json) -> None:
    """Refused by their size as stored, before anything is."""
    conversation = await Conversation.create(backend=backend)
    with pytest.raises(
        Unprocessable, match=r"^The metadata of the message are too long: \d+ bytes as stored, of at most"
    ):
        await conversation.stream_response("question", metadata=metadata)
    assert await conversation.messages() == []


async def test_a_conversation_of_each_size(backend: Backend) -> None:
    """The largest of each text together is taken; one byte more is refused and named."""
    largest: Json = {
        "title": of_size(LARGEST["title"]),
        "system": of_size(LARGEST["system"]),
        "metadata": {"a": of_size(LARGEST["metadata"] - len('{"a":""}'))},
    }
    conversation = await Conversation.create(**largest, backend=backend)
    await backend.store.conversations.update(
        conversation.id, now=1, title=largest["title"], metadata=largest["metadata"]
    )
    for name, more in {"title": "x", "system": "x", "metadata": {"b": "x"}}.items():
        longer = {**largest[name], **more} if isinstance(more, dict) else largest[name] + more
        with pytest.raises(Unprocessable, match=rf"^The {name} may have at most {LARGEST[name]} bytes as stored"):
            await Conversation.create(**{**largest, name: longer}, backend=backend)
