"""How often a log is written: ten times a second while somebody reads along, and otherwise twice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

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

from tests.faults import FaultyCalls
from tests.memory_calls import MemoryCalls

pytestmark = pytest.mark.anyio


class Heard:
    """A feed with subscribers, or without."""

    is_heard = True

    def stored(self, number: int, first_seq: int, events: Sequence[Event]) -> None:
        """Send nothing."""

    def ended(self) -> None:
        """Nor this."""

    def lost(self) -> None:
        """Nor this."""


def of_sign(wanted: str, operation: str, payload: Payload) -> bool:
    """Whether a call is one of a follower's sign."""
    return operation == wanted and (payload.get("Key") or payload["Item"])["sk"] == {"S": "F"}


class World:
    """A reply that comes at 50 chunks a second, whoever reads it."""

    def __init__(self, calls: FaultyCalls, clock: ManualClock, backend: Backend, stream: MessageStream) -> None:
        self.calls = calls
        self.clock = clock
        self.backend = backend
        self.stream = stream

    @classmethod
    async def begin(cls, flush_interval: float | None = None) -> World:
        clock, calls = ManualClock(), FaultyCalls(MemoryCalls())
        settings = Settings(flush_interval=flush_interval, broadcast=False)
        backend = Backend(settings, store=Store(calls, "t", clock=clock), clock=clock)
        stream = await (await Conversation.create(backend=backend)).stream_response("question")
        calls.made.clear()
        return cls(calls, clock, backend, stream)

    async def write(self, seconds: float) -> float:
        """Let the reply come for a while; return the segments that were put a second."""
        before = len(self.calls.appends)
        for _ in range(round(seconds * 50)):
            self.stream.push([Text("word")])
            await self.clock.advance(0.02)
        return (len(self.calls.appends) - before) / seconds

    def looks(self) -> int:
        """Return how often the writer has looked for followers."""
        return sum(of_sign("GetItem", *call) for call in self.calls.made)

    def signs(self) -> int:
        """Return how often followers have told that they read along."""
        return sum(of_sign("PutItem", *call) for call in self.calls.made)

    def follow(self) -> asyncio.Task[int]:
        """Begin to follow the reply; the task returns how many entries it was given."""
        follower = Follower(
            self.backend.store, self.backend.open_replies, self.stream.id, 0, clock=self.clock, lease=30
        )

        async def count() -> int:
            await follower.open()
            return sum([len(events) async for batches in follower.follow() for _, events in batches])

        return asyncio.create_task(count())


async def test_alone_it_is_written_twice_a_second() -> None:
    """And once a second, at half a read unit, the writer looks whether it still is."""
    world = await World.begin()
    assert await world.write(20) == pytest.approx(2, abs=0.2)
    assert 18 <= world.looks() <= 21
    assert (await world.stream.complete()).content == "word" * 1000


async def test_a_follower_makes_it_quick_within_a_second_and_a_half() -> None:
    """From any process: the two know of each other by the table alone. When it has gone it is slow again."""
    world = await World.begin()
    await world.write(5)
    following = world.follow()
    await world.write(1.5)
    assert await world.write(20) == pytest.approx(10, abs=0.5)
    assert world.signs() <= 1 + 21.5 / 4
    assert world.looks() <= 8 + 20 / 4  # seldom while a sign counts
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await world.write(11)
    assert await world.write(10) == pytest.approx(2, abs=0.3)
    await world.stream.complete()


async def test_a_follower_of_a_reply_that_has_ended_leaves_no_sign() -> None:
    """Nobody would see it."""
    world = await World.begin()
    await world.write(1)
    await world.stream.complete()
    assert await world.follow() == 50
    assert world.signs() == 0


async def test_neither_a_look_nor_a_sign_that_fails_harms_anybody() -> None:
    """The writer goes on as if nobody read along, and the follower gets everything."""
    world = await World.begin()
    world.calls.choose = lambda *call: "refused" if of_sign("GetItem", *call) or of_sign("PutItem", *call) else None
    following = world.follow()
    assert await world.write(10) == pytest.approx(2, abs=0.3)
    world.calls.choose = lambda *call: None
    await world.stream.complete()
    await world.clock.advance(2)
    assert await asyncio.wait_for(following, 10) == 500


async def test_subscribers_make_it_quick() -> None:
    """The feed knows of them; nobody has to look."""
    world = await World.begin()
    feed = world.stream._writer._feed = Heard()
    assert await world.write(10) == pytest.approx(10, abs=0.3)
    assert world.looks() == 0
    feed.is_heard = False
    assert await world.write(10) == pytest.approx(2, abs=0.3)
    await world.stream.complete()


async def test_an_interval_that_was_set_is_kept() -> None:
    """Whoever reads, and nobody looks."""
    world = await World.begin(0.25)
    following = world.follow()
    assert await world.write(10) == pytest.approx(4, abs=0.3)
    assert world.looks() == 0
    await world.stream.complete()
    await world.clock.advance(2)
    assert await asyncio.wait_for(following, 10) == 500


async def test_a_look_that_is_under_way_ends_with_the_reply() -> None:
    """Nothing is left running."""
    world = await World.begin()
    hung = asyncio.Event()

    class Hung(MemoryCalls):
        async def call(self, operation: str, payload: Payload) -> Payload:
            if of_sign("GetItem", operation, payload):
                await hung.wait()
            return await memory.call(operation, payload)

    memory, world.calls.inner = world.calls.inner, Hung()
    await world.write(1)
    look = world.stream._writer._look
    assert look is not None
    assert not look.done()
    async with asyncio.timeout(5):
        await world.stream.complete()
    assert look.cancelled()
