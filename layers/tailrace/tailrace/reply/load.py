"""How busy this process is with replies, and what it says to one more that it has no time for.

In Lambda a process writes one reply at a time, and none of this ever says a word. In a container, or in an environment
that serves many at once, one core ends somewhere; a server that takes every start would then be late with every chunk,
and its calls to the table would run out of time. So starts go through a gate, a few at once, and while the event loop
comes round late they are refused: the replies that are open have what is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from tailrace.clock import Clock, Timer
from tailrace.errors import RateLimited

AT_ONCE: Final = 16
"""Starts under way. Each has a few ms of CPU and waits for the table in between, so that more of them at once make each
slower and none of them sooner."""

PATIENCE: Final = 5.0
"""Seconds that a start waits for its turn."""

MOST_WAITING: Final = 1_000
"""Starts that wait for their turn."""

TICK: Final = 0.1
"""Seconds between two looks at how late the event loop is, while replies are written."""

LATE: Final = 0.2
"""Seconds, on average of about the last ten looks, above which nothing is started."""

WEIGHT: Final = 0.2
"""Of the newest look in that average: one pause, such as an import, refuses nobody."""


class Load:
    """What replies ask of this process.

    Args:
        at_once: starts under way at the same time.
        patience: seconds that a start waits for its turn.
    """

    def __init__(self, clock: Clock, *, at_once: int = AT_ONCE, patience: float = PATIENCE) -> None:
        self._clock = clock
        self._room = at_once
        self._patience = patience
        self._turns: asyncio.Semaphore | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting = 0
        self._open = 0
        self._late = 0.0
        self._due = 0.0
        self._timer: Timer | None = None

    @property
    def late(self) -> float:
        """Seconds by which the event loop comes round late, on average of the last looks."""
        return self._late

    @asynccontextmanager
    async def starting(self) -> AsyncIterator[None]:
        """Start a reply in the block.

        Raises:
            RateLimited: there is no time for one more now.
        """
        turns = self._gate()
        if self._late > LATE or self._waiting >= MOST_WAITING:
            raise _busy()
        self._waiting += 1
        try:
            async with asyncio.timeout(self._patience):
                await turns.acquire()
        except TimeoutError:
            raise _busy() from None
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            turns.release()

    def opened(self) -> None:
        """A reply is being written."""
        self._open += 1
        if self._timer is None:
            self._late = 0.0
            self._look_later()

    def closed(self) -> None:
        """It is not any more."""
        self._open -= 1
        if not self._open and self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._late = 0.0

    def _gate(self) -> asyncio.Semaphore:
        # The buffered function may run each request in another loop, one after the other.
        loop = asyncio.get_running_loop()
        if self._turns is None or self._loop is not loop:
            self._turns, self._loop = asyncio.Semaphore(self._room), loop
        return self._turns

    def _look_later(self) -> None:
        self._due = self._clock.monotonic() + TICK
        self._timer = self._clock.call_later(TICK, self._look)

    def _look(self) -> None:
        late = max(self._clock.monotonic() - self._due, 0.0)
        self._late += WEIGHT * (late - self._late)
        self._look_later()


def _busy() -> RateLimited:
    return RateLimited("This server has as many replies as it can write. Please try again.", retry_after=1)
