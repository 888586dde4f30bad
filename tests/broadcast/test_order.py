"""Two senders, one order: a relay's feed posts the chunks, the table's stream announces the rest, at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from tailrace.backend import Backend
from tailrace.broadcast.lifecycle import Announcer
from tailrace.clock import SystemClock
from tailrace.conversation.conversation import Conversation
from tailrace.reply.stream import MessageStream
from tailrace.settings import Settings
from tailrace.store import DynamoDB, Store

from local.event_source import read_event_source
from tests.broadcast.table_stream import records
from tests.faults import FaultyCalls
from tests.providers.fake_server import FakeServer, Reply

pytestmark = pytest.mark.anyio

WORDS = [f"word{number} " for number in range(60)]


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    """The management API."""
    async with FakeServer(Reply(headers={})).serving() as server:
        yield server


@pytest.fixture
async def broadcasting(settings: Settings, server: FakeServer) -> AsyncIterator[Backend]:
    """A backend that broadcasts, with segments of some words."""
    changed = msgspec.structs.replace(settings, websocket_url=f"{server.url}/live", flush_interval=0.02)
    backend = Backend(changed)
    yield backend
    await backend.close()


class TableStream:
    """Delivers what is written to the table to the announcer, again and again, as Lambda does."""

    def __init__(self, backend: Backend) -> None:
        self._settings = backend.settings
        broadcast = backend.broadcast
        self._announcer = Announcer(broadcast.fan_out, broadcast.frames, backend.store.messages, clock=backend.clock)
        self._source = read_event_source("BroadcastOnChanges")
        self._delivered = 0

    async def deliver(self) -> int:
        """Deliver what is new, and return how much that was."""
        new = (await asyncio.to_thread(records, self._settings))[self._delivered :]
        wanted = [found for found in new if self._source.takes(found)]
        assert (await self._announcer.announce(wanted, seconds=20)).again_from is None
        self._delivered += len(new)
        return len(new)

    async def follow(self, until: asyncio.Event) -> None:
        """Deliver again and again until that is set, and then what is left."""
        while not until.is_set():
            await self.deliver()
        while await self.deliver():
            pass


def told(server: FakeServer, message_id: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the events about a message in the order in which they came, without the namespace."""
    frames = [found.body for found in server.requests]
    return [
        (frame["event"].removeprefix("App\\Events\\"), frame["data"])
        for frame in frames
        if frame["data"].get("message_id") == message_id
    ]


async def write(stream: MessageStream) -> None:
    """Write a reply that takes a while."""
    for word in WORDS:
        await stream.append(word)
        await asyncio.sleep(0)  # let the others write


def check(server: FakeServer, message_id: str) -> str:
    """The beginning, then the chunks without a gap, then one end; return what the subscriber has put together."""
    (first, _), *middle, (last, _) = told(server, message_id)
    assert first == "MessageCreated"
    assert last in ("MessageCompleted", "MessageFailed")
    assert {name for name, _ in middle} <= {"MessageChunkReceived"}
    seq = 0
    for _, data in middle:
        assert data["first_seq"] == seq + 1
        seq = data["seq"]
    return "".join(data["chunk"] for _, data in middle)


async def test_the_end_comes_after_the_last_chunk(broadcasting: Backend, server: FakeServer) -> None:
    """Replies that complete and fail while the stream is delivered at the same time: created, chunks, one end, and
    the text is whole."""
    conversation = await Conversation.create(backend=broadcasting)
    await broadcasting.store.subscriptions.put(f"conversation.{conversation.id}", "reader")
    over = asyncio.Event()
    following = asyncio.create_task(TableStream(broadcasting).follow(over))
    replies = [await conversation.stream_response("hello") for _ in range(4)]
    await asyncio.gather(*map(write, replies))
    await asyncio.gather(*(reply.complete() if number % 2 else reply.fail("x") for number, reply in enumerate(replies)))
    over.set()
    await following
    for reply in replies:
        assert check(server, reply.id) == "".join(WORDS)
    created = [found.body["data"]["message"]["role"] for found in server.requests if "message" in found.body["data"]]
    assert created.count("user") == 4


async def test_an_end_from_elsewhere(broadcasting: Backend, server: FakeServer) -> None:
    """A cancel from another device is told at once and once, although the relay has not noticed yet."""
    conversation = await Conversation.create(backend=broadcasting)
    await broadcasting.store.subscriptions.put(f"conversation.{conversation.id}", "reader")
    stream = await conversation.stream_response()
    table_stream = TableStream(broadcasting)
    await broadcasting.open_replies.cancel(stream.id)
    await table_stream.deliver()
    assert [name for name, _ in told(server, stream.id)].count("MessageFailed") == 1
    assert (await stream.complete()).status == "cancelled"
    await table_stream.deliver()
    assert [name for name, _ in told(server, stream.id)].count("MessageFailed") == 1


async def test_a_relay_that_died_before_its_last_chunk_was_sent(settings: Settings, server: FakeServer) -> None:
    """The end is stored and held back for the chunks; the sweep finds that nobody sends them any more."""
    changed = msgspec.structs.replace(settings, websocket_url=f"{server.url}/live")
    dynamodb = DynamoDB(region=settings.region, endpoint_url=settings.dynamodb_endpoint, clock=SystemClock())
    calls = FaultyCalls(dynamodb)
    backend = Backend(changed, store=Store(calls, settings.table))
    backend.on_close(dynamodb.close)
    conversation = await Conversation.create(backend=backend)
    await backend.store.subscriptions.put(f"conversation.{conversation.id}", "reader")
    stream = await conversation.stream_response()
    calls.choose = lambda operation, payload: "refused" if operation == "UpdateItem" else None
    completed = await stream.complete()
    calls.choose = lambda operation, payload: None

    table_stream = TableStream(backend)
    await table_stream.deliver()
    assert [name for name, _ in told(server, stream.id)] == ["MessageCreated"]
    hasty = Backend(msgspec.structs.replace(changed, lease=0.001), store=backend.store)
    assert (await hasty.open_replies.sweep()).looked_at == 1
    assert (await hasty.open_replies.sweep()).looked_at == 0
    await table_stream.deliver()
    _, (end, data) = told(server, stream.id)
    assert (end, data["message"]) == ("MessageCompleted", msgspec.to_builtins(completed))
    await backend.close()
