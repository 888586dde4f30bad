"""Things that are done at the same time: none is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tailrace import Backend, Conversation
from tailrace.errors import StoreError
from tailrace.settings import Settings
from tailrace.store import Store
from tailrace.store.dynamodb import Payload
from tailrace.store.together import both, for_each

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


async def numbers(count: int) -> AsyncIterator[int]:
    """Yield the numbers below a count."""
    for number in range(count):
        await asyncio.sleep(0)
        yield number


async def test_so_many_at_a_time() -> None:
    """Never more, and as many as there is room for; each thing once."""
    under_way: set[int] = set()
    most = 0

    async def do(number: int) -> int:
        nonlocal most
        under_way.add(number)
        most = max(most, len(under_way))
        for _ in range(20 + number % 7):
            await asyncio.sleep(0)
        under_way.remove(number)
        return number

    assert sorted(await for_each(numbers(100), do, at_once=5)) == list(range(100))
    assert most == 5
    assert await for_each(numbers(0), do, at_once=5) == []


async def test_of_many_at_a_time_one_fails() -> None:
    """The others have stopped when the failure is raised, and none is begun after it."""
    begun: list[int] = []
    stopped: list[int] = []

    async def do(number: int) -> None:
        begun.append(number)
        if number == 2:
            raise StoreError("no")
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            stopped.append(number)

    with pytest.raises(StoreError, match="no"):
        await for_each(numbers(9), do, at_once=3)
    assert begun == [0, 1, 2]
    assert sorted(stopped) == [0, 1]
