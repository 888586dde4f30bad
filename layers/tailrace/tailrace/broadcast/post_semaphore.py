"""A semaphore for posts. It limits how many run at a time, so that no post times out while it waits for the CPU."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from tailrace.clock import Clock

AT_ONCE: Final = 64
"""Subscribers that one fan-out posts to at a time."""

AT_A_TURN: Final = 4
"""Posts that are begun in one turn of the event loop. Each is some 0.2 ms, and the reply's own stream waits for all of
them (benchmarks/stuck_subscriber.py)."""

SLOW_SECONDS: Final = 0.5
"""After which a post no longer counts: many that do not read must not keep the others waiting."""


class PostSemaphore:
    """Lets ``AT_ONCE`` posts run at a time, and ``AT_A_TURN`` begin; the others wait for their turn. A post is all that
    is given to one subscriber together, nearly always one frame; its patience begins with it, not with the waiting.

    Attributes:
        waiting: what begins the posts that wait for their turn.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._free = AT_ONCE
        self.waiting: deque[Callable[[], asyncio.Task[None] | None]] = deque()
        self._turn: asyncio.Handle | None = None

    def run(self, begin: Callable[[], asyncio.Task[None] | None]) -> None:
        """Call ``begin`` when it is its turn; it returns the post's task, or None when there is nothing to post."""
        self.waiting.append(begin)
        self._go_on()

    def _go_on(self) -> None:
        if self._turn is None and self.waiting and self._free:
            self._turn = asyncio.get_running_loop().call_soon(self._begin_some)

    def _begin_some(self) -> None:
        self._turn = None
        begun = 0
        while self.waiting and self._free and begun < AT_A_TURN:
            task = self.waiting.popleft()()
            if task is not None:
                begun += 1
                self._count(task)
        self._go_on()

    def _count(self, task: asyncio.Task[None]) -> None:
        self._free -= 1
        counts = True

        def stop_counting(*_: object) -> None:
            nonlocal counts
            timer.cancel()
            self._free += counts
            counts = False
            self._go_on()

        timer = self._clock.call_later(SLOW_SECONDS, stop_counting)
        task.add_done_callback(stop_counting)
