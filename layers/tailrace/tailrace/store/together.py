"""Things that are done at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

First = TypeVar("First")
Second = TypeVar("Second")
Thing = TypeVar("Thing")
Done = TypeVar("Done")


async def both(first: Awaitable[First], second: Awaitable[Second]) -> tuple[First, Second]:
    """Await both at the same time. Where one fails, the other is cancelled, and has stopped when this raises."""
    tasks = asyncio.ensure_future(first), asyncio.ensure_future(second)
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def for_each(things: AsyncIterator[Thing], do: Callable[[Thing], Awaitable[Done]], *, at_once: int) -> list[Done]:
    """Do something with each of many things, with so many at a time, and return what came of it, in no order.

    A thing is taken when there is room for it. Where one fails, no other is begun, and the rest has stopped when this
    raises.
    """
    taking = asyncio.Lock()
    done: list[Done] = []

    async def work() -> None:
        while True:
            async with taking:
                try:
                    thing = await anext(things)
                except StopAsyncIteration:
                    return
            done.append(await do(thing))

    tasks = [asyncio.ensure_future(work()) for _ in range(at_once)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return done
