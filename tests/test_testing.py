"""The clock that is turned by hand."""

from __future__ import annotations

import asyncio

from tailrace.clock import Clock
from tailrace.testing import START, ManualClock


def test_nothing_moves_by_itself() -> None:
    """Both clocks stand still until they are told to move, and then move by exactly that."""
    clock: Clock = ManualClock()
    assert (clock.now(), clock.monotonic()) == (START, 0.0)

    async def turn() -> None:
        manual = ManualClock(now=5)
        for _ in range(1000):
            await manual.advance(0.02)
        assert (manual.now(), manual.monotonic()) == (20_000_005, 20.0)

    asyncio.run(turn())


def test_calls_are_made_in_order_each_at_its_own_moment() -> None:
    """Timers fire by when they are due, equal ones as they were set, and none of them early."""

    async def turn() -> None:
        clock = ManualClock()
        made: list[tuple[str, float]] = []
        for name, seconds in (("late", 0.3), ("early", 0.1), ("late too", 0.3), ("never", 0.5)):
            clock.call_later(seconds, lambda name=name: made.append((name, clock.monotonic())))  # type: ignore[misc]
        await clock.advance(0.09)
        assert made == []
        await clock.advance(0.4)
        assert made == [("early", 0.1), ("late", 0.3), ("late too", 0.3)]
        assert clock.monotonic() == 0.49

    asyncio.run(turn())


def test_a_call_that_asks_for_another_gets_it() -> None:
    """A timer re-armed while time moves on fires as often as it falls due."""

    async def turn() -> None:
        clock = ManualClock()
        moments: list[float] = []

        def tick() -> None:
            moments.append(clock.monotonic())
            clock.call_later(0.1, tick)

        clock.call_later(0.1, tick)
        await clock.advance(0.35)
        assert moments == [0.1, 0.2, 0.3]

    asyncio.run(turn())


def test_a_cancelled_call_is_not_made() -> None:
    """Cancelling forgets the call; cancelling again, or after it was made, does nothing."""

    async def turn() -> None:
        clock = ManualClock()
        made: list[str] = []
        clock.call_later(0.1, lambda: made.append("kept"))
        timer = clock.call_later(0.1, lambda: made.append("cancelled"))
        timer.cancel()
        timer.cancel()
        await clock.advance(1)
        assert made == ["kept"]

    asyncio.run(turn())


def test_tasks_sleep_by_this_clock() -> None:
    """A task that sleeps wakes at its moment, what it wakes runs too, and one that was cancelled is gone."""

    async def turn() -> None:
        clock = ManualClock()
        moments: list[float] = []

        async def sleeper() -> None:
            await clock.sleep(0)
            for _ in range(3):
                await clock.sleep(0.25)
                moments.append(clock.monotonic())

        async def waits_for(task: asyncio.Task[None]) -> None:
            await task
            moments.append(-clock.monotonic())

        task = asyncio.create_task(sleeper())
        waiter = asyncio.create_task(waits_for(task))
        cancelled = asyncio.create_task(clock.sleep(0.1))
        await clock.advance(0)
        assert moments == []
        cancelled.cancel()
        await clock.advance(0.75)
        assert moments == [0.25, 0.5, 0.75, -0.75]
        assert task.done()
        assert waiter.done()
        assert cancelled.cancelled()

    asyncio.run(turn())
