"""Two things at the same time: neither is left behind."""

from __future__ import annotations

import asyncio

import pytest
from tailrace import Backend, Conversation
from tailrace.errors import StoreError
from tailrace.settings import Settings
from tailrace.store import Store
from tailrace.store.dynamodb import Payload
from tailrace.store.together import both

from tests.memory_calls import MemoryCalls

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("place", [0, 1])
async def test_of_two_at_the_same_time_one_fails(place: int) -> None:
    """The other has stopped when the failure is raised."""
    steps: list[str] = []

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            steps.append("stopped")

    async def fails() -> None:
        await asyncio.sleep(0)
        raise StoreError("no")

    pair = [waits(), waits()]
    pair.pop(place).close()
    pair.insert(place, fails())
    with pytest.raises(StoreError, match="no"):
        await both(*pair)
    assert steps == ["stopped"]


async def test_both_are_cancelled_together() -> None:
    """With whoever waits for them."""
    stopped: list[int] = []

    async def waits(number: int) -> int:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append(number)
        return number

    task = asyncio.ensure_future(both(waits(1), waits(2)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stopped == [1, 2]


async def test_system_messages_that_cannot_be_read() -> None:
    """The window is not read on behind the failure's back."""

    class Refusing(MemoryCalls):
        refusing = False
        reading = 0

        async def call(self, operation: str, payload: Payload) -> Payload:
            if self.refusing and operation == "BatchGetItem":
                raise StoreError("The store is not available. Please try again.")
            if self.refusing and operation == "Query":
                self.reading += 1
                try:
                    await asyncio.Event().wait()
                finally:
                    self.reading -= 1
            return await super().call(operation, payload)

    calls = Refusing()
    conversation = await Conversation.create(backend=Backend(Settings(broadcast=False), store=Store(calls, "t")))
    await conversation.add_system_message("Be brief.")
    calls.refusing = True
    before = asyncio.all_tasks()
    with pytest.raises(StoreError, match="not available"):
        await conversation.to_messages()
    assert calls.reading == 0
    assert asyncio.all_tasks() == before
