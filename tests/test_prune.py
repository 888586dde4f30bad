"""Pruning: what it reads, how far it comes, and what it leaves to the next."""

from __future__ import annotations

import pytest
from tailrace.backend import Backend
from tailrace.conversation.conversation import Conversation
from tailrace.settings import Settings
from tailrace.store import Store
from tailrace.testing import ManualClock

from tests.faults import FaultyCalls
from tests.memory_calls import MemoryCalls

pytestmark = pytest.mark.anyio

MONTH = 30 * 24 * 3600


class Ticking(ManualClock):
    """A tenth of a second passes whenever somebody looks."""

    ticks = 0

    def monotonic(self) -> float:
        self.ticks += 1
        return super().monotonic() + self.ticks / 10


class World:
    """A backend in memory whose clock is turned by hand."""

    def __init__(self, clock: ManualClock | None = None) -> None:
        self.clock = clock or ManualClock()
        self.memory = MemoryCalls()
        self.calls = FaultyCalls(self.memory)
        store = Store(self.calls, "memory", clock=self.clock)
        self.backend = Backend(Settings(table="memory"), store=store, clock=self.clock)

    async def deleted(self, count: int) -> list[str]:
        """Return the ids of new messages that are deleted at once, each alone in its conversation."""
        ids = []
        for _ in range(count):
            conversation = await Conversation.create(backend=self.backend)
            (message,) = await conversation.add_messages({"role": "user", "content": "hello"})
            await conversation.delete_message(message.id)
            ids.append(message.id)
        return ids

    async def prune(self, **options: float) -> int:
        """Prune what was deleted a month ago, and return how many messages that were."""
        before = len(self.messages)
        await self.backend.store.prune(self.clock.now() - MONTH * 1_000_000, **options)
        return before - len(self.messages)

    @property
    def messages(self) -> list[str]:
        return [item["id"]["S"] for (_, sort), item in self.memory.items.items() if sort.startswith("M#")]

    def read(self) -> int:
        """Return how many items were read by their keys since this was asked last, by how many calls."""
        made = [request for operation, request in self.calls.made if operation == "BatchGetItem"]
        self.calls.made.clear()
        return sum(len(table["Keys"]) for request in made for table in request["RequestItems"].values())


async def test_what_was_deleted_lately_is_not_even_read() -> None:
    """Nothing is deleted before it is created, and the index is sorted by that: what a prune costs does not grow with
    what was deleted within the month."""
    world = World()
    old = await world.deleted(250)
    await world.clock.advance(MONTH + 1)
    new = await world.deleted(7)
    world.read()
    assert await world.prune() == 250
    assert world.read() == 250
    assert world.messages == new
    assert not set(old) & set(world.messages)
    assert (await world.prune(), world.read()) == (0, 0)


async def test_what_is_old_and_was_deleted_lately_stays() -> None:
    """It is read, and there is a month to restore it."""
    world = World()
    conversation = await Conversation.create(backend=world.backend)
    (message,) = await conversation.add_messages({"role": "user", "content": "hello"})
    await world.clock.advance(2 * MONTH)
    await conversation.delete_message(message.id)
    assert await world.prune() == 0
    await conversation.restore_message(message.id)
    await world.clock.advance(2 * MONTH)
    assert await world.prune() == 0
    await conversation.delete()
    await world.clock.advance(MONTH + 1)
    assert await world.prune() == 1
    assert world.memory.items == {}


async def test_one_that_has_no_time_leaves_the_rest_to_the_next() -> None:
    """It ends by itself, with what it has begun: Lambda would count one that it has to stop as an error."""
    world = World(Ticking())
    await world.deleted(40)
    await world.clock.advance(MONTH + 1)
    assert await world.prune(seconds=0.0) == 0
    left = 40
    while left:
        pruned = await world.prune(seconds=1.0)
        assert 0 < pruned <= 10
        left -= pruned
    assert world.messages == []
