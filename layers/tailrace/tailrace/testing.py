"""For tests of code that uses Tailrace: time that is turned by hand.

clock = ManualClock()
backend = Backend(settings, store=store, clock=clock)
...
await clock.advance(0.1)  # one flush interval, in no time
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from itertools import count
from typing import Final

from tailrace.clock import Timer

START: Final = 1_767_225_600_000_000
"""What a ``ManualClock`` shows at first, in microseconds since 1970: 2026-01-01T00:00:00Z."""

ROUNDS: Final = 20
"""How often the event loop goes round for tasks to run: each round lets one task wake the next."""


class ManualClock:
    """A ``tailrace.clock.Clock`` that moves only when it is told to.

    Time is kept in whole microseconds, so that many small steps make exactly the sum of them.

    Args:
        now: what it shows at first, in microseconds since 1970.
    """

    def __init__(self, now: int = START) -> None:
        self._start = now
        self._elapsed = 0  # microseconds
        self._timers: list[_ManualTimer] = []
        self._order = count()

    def now(self) -> int:
        """Return the wall clock, in microseconds since 1970."""
        return self._start + self._elapsed

    def monotonic(self) -> float:
        """Return the seconds this clock was advanced by."""
        return self._elapsed / 1_000_000

    def call_later(self, seconds: float, call: Callable[[], object]) -> Timer:
        """Make ``call`` when the clock has been advanced by ``seconds``, never at once."""
        timer = _ManualTimer(self._elapsed + max(0, round(seconds * 1_000_000)), next(self._order), call)
        heapq.heappush(self._timers, timer)
        return timer

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock has been advanced by ``seconds``."""
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not woken.done():
                woken.set_result(None)

        timer = self.call_later(seconds, wake)
        try:
            await woken
        finally:
            timer.cancel()

    async def advance(self, seconds: float) -> None:
        """Move on, making the calls that fall due in their order, each at its own moment.

        Before the first call and after each, tasks get to run; calls that they ask for are made too if
        they fall due in time. A task that waits for anything but this clock and other tasks, such as a
        socket, is not waited for: await what it does.

        Args:
            seconds: 0 makes the calls that are due already.
        """
        until = self._elapsed + max(0, round(seconds * 1_000_000))
        await _let_tasks_run()
        while self._timers and self._timers[0].due <= until:
            timer = heapq.heappop(self._timers)
            if timer.call is None:
                continue
            call, timer.call = timer.call, None
            self._elapsed = max(self._elapsed, timer.due)
            call()
            await _let_tasks_run()
        self._elapsed = until


class _ManualTimer:
    def __init__(self, due: int, order: int, call: Callable[[], object]) -> None:
        self.due = due
        self.order = order
        self.call: Callable[[], object] | None = call  # None once it was made or cancelled

    def __lt__(self, other: _ManualTimer) -> bool:
        return (self.due, self.order) < (other.due, other.order)

    def cancel(self) -> None:
        self.call = None


async def _let_tasks_run() -> None:
    for _ in range(ROUNDS):
        await asyncio.sleep(0)
