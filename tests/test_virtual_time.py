"""virtual_time.py: what waits is woken in its order and at its time, and no real time passes."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import virtual_time
from tests.virtual_time import START, LoopClock, NothingLeft


@given(st.lists(st.floats(0.0, 1e5), min_size=1, max_size=20))
def test_sleepers_wake_at_their_time_and_in_order(seconds: list[float]) -> None:
    """However long each sleeps, and however these sum up."""
    woken: list[tuple[float, float]] = []

    async def sleeper(asked: float) -> None:
        await asyncio.sleep(asked)
        woken.append((asked, asyncio.get_running_loop().time()))

    async def main() -> None:
        await asyncio.gather(*map(sleeper, seconds))

    virtual_time.run(main())
    assert [asked for asked, _ in woken] == sorted(seconds)
    for asked, when in woken:
        assert when == pytest.approx(asked, abs=1e-8)


def test_a_day_passes_at_once() -> None:
    """Also one longer than the longest wait of asyncio, which is a day; and time-outs come in it."""

    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(30 * 3600):
                await asyncio.Event().wait()
        return LoopClock().monotonic()

    before = time.monotonic()
    assert virtual_time.run(main()) == pytest.approx(30 * 3600)
    assert time.monotonic() - before < 60


def test_what_is_ready_comes_before_time_passes() -> None:
    """A thousand turns of the loop take no time at all."""

    async def main() -> float:
        timer = asyncio.create_task(asyncio.sleep(0.001))
        for _ in range(1000):
            await asyncio.sleep(0)
        assert not timer.done()
        return LoopClock().monotonic()

    assert virtual_time.run(main()) == 0.0


def test_waiting_for_what_never_comes() -> None:
    """Is an error, and not a test that hangs."""

    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(NothingLeft):
        virtual_time.run(main())


def test_the_clock_is_that_of_the_loop() -> None:
    """All four of its methods."""

    async def main() -> None:
        clock, rung = LoopClock(), asyncio.Event()
        assert (clock.now(), clock.monotonic()) == (START, 0.0)
        clock.call_later(2.5, rung.set)
        await rung.wait()
        assert clock.monotonic() == pytest.approx(2.5)
        await clock.sleep(0.5)
        assert clock.now() == START + 3_000_000
        forgotten = clock.call_later(1, lambda: pytest.fail("it was cancelled"))
        forgotten.cancel()
        await clock.sleep(2)

    virtual_time.run(main())


def test_what_is_left_is_ended() -> None:
    """Tasks that nobody waited for are cancelled, and may say so."""
    said: list[str] = []

    async def forgotten() -> None:
        try:
            await asyncio.sleep(1e9)
        finally:
            said.append("ended")

    async def main() -> asyncio.Task[None]:
        task = asyncio.create_task(forgotten())
        await asyncio.sleep(1)
        return task

    task = virtual_time.run(main())
    assert (task.cancelled(), said) == (True, ["ended"])
