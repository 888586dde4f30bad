"""What a thread hands over to the loop."""

from __future__ import annotations

import asyncio
import threading

import pytest
from tailrace.providers.handover import Handover, HandoverClosed

from .helpers import run


def test_in_order_and_bounded() -> None:
    """Everything arrives in order, and never more waits than may."""

    async def test() -> None:
        handover: Handover[int] = Handover(8)

        def give() -> None:
            for number in range(1000):
                handover.put(number)
            handover.end()

        thread = threading.Thread(target=give)
        thread.start()
        taken: list[int] = []
        while items := await handover.take():
            assert len(items) <= 8
            taken += items
        assert taken == list(range(1000))
        await asyncio.to_thread(thread.join)

    run(test())


def test_the_error_comes_after_the_items() -> None:
    """What was handed over before it is kept; only the first end counts."""

    async def test() -> None:
        handover: Handover[int] = Handover(8)
        handover.put(1)
        handover.end(ValueError("first"))
        handover.end(ValueError("second"))
        assert await handover.take() == [1]
        with pytest.raises(ValueError, match="first"):
            await handover.take()

    run(test())


def test_closing_frees_the_thread() -> None:
    """One that waits for room is told that nobody will make any."""

    async def test() -> None:
        handover: Handover[int] = Handover(1)
        freed: list[bool] = []
        full = threading.Event()

        def give() -> None:
            handover.put(1)
            full.set()
            try:
                handover.put(2)
            except HandoverClosed:
                freed.append(True)

        thread = threading.Thread(target=give)
        thread.start()
        await asyncio.to_thread(full.wait, 5)
        handover.close()
        await asyncio.to_thread(thread.join, 5)
        assert freed == [True]

    run(test())


def test_a_loop_that_is_gone() -> None:
    """A thread that outlives it ends at its next word."""
    handover: Handover[int]

    async def test() -> None:
        nonlocal handover
        handover = Handover(1)

    run(test())
    handover.put(1)
    with pytest.raises(HandoverClosed):
        handover.put(2)
