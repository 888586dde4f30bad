"""A process that has no time for one more reply says so, and those that are open go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from tailrace.clock import SystemClock, Timer
from tailrace.errors import RateLimited
from tailrace.reply.load import LATE, TICK, Load
from tailrace.testing import ManualClock

pytestmark = pytest.mark.anyio

BUSY = r"^This server has as many replies as it can write\. Please try again\.$"


class LateClock(ManualClock):
    """Makes every call so much later than it was asked for."""

    late = 0.0

    def call_later(self, seconds: float, call: Callable[[], object]) -> Timer:
        return super().call_later(seconds + self.late, call)


async def test_starts_wait_for_their_turn_and_not_for_ever() -> None:
    """Two at once: the third waits, and is refused when its patience is over; the next finds room."""
    load = Load(SystemClock(), at_once=2, patience=0.02)
    async with load.starting(), load.starting():
        with pytest.raises(RateLimited, match=BUSY) as refused:
            async with load.starting():
                pass
    assert refused.value.retry_after == 1
    async with load.starting():
        pass


async def test_whoever_waits_has_its_turn() -> None:
    """In the order in which they came."""
    load = Load(SystemClock(), at_once=1, patience=5)
    order: list[int] = []

    async def start(number: int) -> None:
        async with load.starting():
            order.append(number)
            await asyncio.sleep(0)

    await asyncio.gather(*map(start, range(20)))
    assert order == [*range(20)]


async def test_a_queue_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes beyond it is refused at once; who is cancelled leaves it."""
    monkeypatch.setattr("tailrace.reply.load.MOST_WAITING", 3)
    load = Load(SystemClock(), at_once=1, patience=5)

    async def start() -> None:
        async with load.starting():
            pass

    async with load.starting():
        waiting = [asyncio.create_task(start()) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(RateLimited, match=BUSY):
            await start()
        waiting.pop().cancel()
        await asyncio.sleep(0)
        waiting.append(asyncio.create_task(start()))
        await asyncio.sleep(0)
    await asyncio.gather(*waiting)


async def test_a_loop_that_comes_round_late_starts_nothing() -> None:
    """One pause refuses nobody; when it is in time again, or everything is written, starts are taken."""
    clock = LateClock()
    load = Load(clock)
    load.opened()
    load.opened()
    await clock.advance(TICK)
    clock.late = 0.5
    await clock.advance(2 * TICK)
    clock.late = 0.0
    await clock.advance(0.5)
    assert 0 < load.late < LATE
    async with load.starting():
        pass
    clock.late = 2 * LATE
    await clock.advance(5)
    with pytest.raises(RateLimited, match=BUSY):
        async with load.starting():
            pass
    clock.late = 0.0
    await clock.advance(1.5)
    async with load.starting():
        pass
    clock.late = 2 * LATE
    await clock.advance(5)
    load.closed()
    with pytest.raises(RateLimited):
        async with load.starting():
            pass
    load.closed()
    assert load.late == 0
    async with load.starting():
        pass


async def test_it_looks_only_while_replies_are_written() -> None:
    """A function that is frozen between two calls would otherwise be late at each."""
    clock = ManualClock()
    load = Load(clock)
    load.opened()
    load.closed()
    await clock.advance(3600)
    load.opened()
    await clock.advance(TICK)
    assert load.late == 0
    load.closed()


def test_each_loop_has_its_own_gate() -> None:
    """The buffered function may run each request in another one; what broke off in one holds up none in the next."""
    load = Load(SystemClock(), at_once=1, patience=0.02)

    async def start() -> None:
        async with load.starting():
            pass

    async def broken_off() -> None:
        await load.starting().__aenter__()

    asyncio.run(broken_off())
    asyncio.run(start())
