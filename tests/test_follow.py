"""Following costs little: reads back off while nothing comes, and a whole reply costs a bounded number of units."""

from __future__ import annotations

import asyncio

import pytest
from tailrace.backend import Backend
from tailrace.conversation.conversation import Conversation
from tailrace.events import Event, Text
from tailrace.reply.follow import Follower
from tailrace.reply.stream import MessageStream
from tailrace.settings import Settings
from tailrace.store import Store
from tailrace.store.dynamodb import Payload
from tailrace.testing import ManualClock

from tests.memory_calls import MemoryCalls

pytestmark = pytest.mark.anyio


class Reads:
    """Counts read units: half a unit for each started 4 KB of an eventually consistent query, at least one half
    (https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html)."""

    def __init__(self, inner: MemoryCalls) -> None:
        self.inner = inner
        self.units = 0.0
        self.queries = 0

    async def call(self, operation: str, payload: Payload) -> Payload:
        """Make one call."""
        answer = await self.inner.call(operation, payload)
        if operation == "Query":
            size = sum(len(str(item)) for item in answer["Items"])  # more than DynamoDB counts
            self.units += max(1, -(-size // 4096)) * (1.0 if payload.get("ConsistentRead") else 0.5)
            self.queries += 1
        elif operation == "GetItem":
            self.units += 1.0
        return answer


async def started() -> tuple[Backend, ManualClock, Reads, MessageStream, Follower]:
    """Return a reply that is being written and somebody who follows it."""
    clock = ManualClock()
    memory = MemoryCalls()
    backend = Backend(Settings(), store=Store(memory, "t", clock=clock), clock=clock)
    stream = await (await Conversation.create(backend=backend)).stream_response("question")
    reads = Reads(memory)
    follower = Follower(Store(reads, "t", clock=clock), backend.open_replies, stream.id, 0, clock=clock, lease=30)
    return backend, clock, reads, stream, follower


async def collect(follower: Follower) -> list[Event]:
    """Follow to the end; every seq comes once and in order."""
    events: list[Event] = []
    await follower.open()
    async for batches in follower.follow():
        for first_seq, batch in batches:
            assert first_seq == len(events) + 1
            events += batch
    return events


async def test_a_reply_of_a_minute_costs_two_units_a_second() -> None:
    """At 50 chunks a second; everything arrives in order."""
    backend, clock, reads, stream, follower = await started()
    following = asyncio.create_task(collect(follower))
    for number in range(3000):
        stream.push([_chunk(number)])
        await clock.advance(0.02)
    message = await stream.complete()
    await clock.advance(1)
    events = await asyncio.wait_for(following, 10)
    assert events == [_chunk(number) for number in range(3000)]
    assert (await follower.message()).content == message.content
    # The figure is printed with -s.
    print(f"a follower of a 60 s reply: {reads.queries} queries, {reads.units} read units")  # noqa: T201
    assert reads.units <= 2 * 60
    await backend.close()


async def test_a_silent_minute_costs_less() -> None:
    """While nothing comes but heartbeats, a look every two seconds is enough; then text is seen within that."""
    backend, clock, reads, stream, follower = await started()
    following = asyncio.create_task(collect(follower))
    await clock.advance(60)
    assert reads.units <= 60
    stream.push([_chunk(0)])
    await stream.complete()
    await clock.advance(2.1)
    assert await asyncio.wait_for(following, 10) == [_chunk(0)]
    await backend.close()


def _chunk(number: int) -> Text:
    return Text(f"{number:04d}")
