"""A semaphore for posts: so many at a time, so that many subscribers are no queue in which healthy sockets time out."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

from tailrace.clock import Clock, Timer

AT_ONCE: Final = 64
"""Subscribers that one fan-out posts to at a time."""

AT_A_TURN: Final = 4
"""Posts that are begun in one turn of the event loop. Each is some 0.2 ms, and the reply's own stream waits for all of
them (benchmarks/stuck_subscriber.py)."""

SLOW_SECONDS: Final = 0.5
"""After which a post no longer counts: many that do not read must not keep the others waiting."""


class PostSemaphore:
    """Lets so many posts run at a time; the others wait for their turn. A post's patience begins with the post, not
    with the waiting. Without it five hundred posts at once are a queue of our own in which healthy sockets time out.

    It is callbacks, as its user is, ``feed.py``.

    Args:
        at_once: how many may be under way; those that take longer than ``SLOW_SECONDS`` do not count. A post is
            all that is given to one subscriber together, nearly always one frame.
        at_a_turn: how many begin before the event loop does something else.
    """

    def __init__(self, clock: Clock, *, at_once: int = AT_ONCE, at_a_turn: int = AT_A_TURN) -> None:
        self._clock = clock
        self._free = at_once
        self._at_a_turn = at_a_turn
        self._waiting: deque[Callable[[], asyncio.Task[None] | None]] = deque()
        self._under_way: dict[asyncio.Task[None], Timer | None] = {}  # the timer of those that count
        self._turn: asyncio.Handle | None = None

    def run(self, begin: Callable[[], asyncio.Task[None] | None]) -> None:
        """Call ``begin`` when it is its turn; it returns the post's task, or None when there is nothing to post."""
        self._waiting.append(begin)
        self._go_on()

    def _go_on(self) -> None:
        if self._turn is None and self._waiting and self._free:
            self._turn = asyncio.get_running_loop().call_soon(self._begin_some)

    def _begin_some(self) -> None:
        self._turn = None
        begun = 0
        while self._waiting and self._free and begun < self._at_a_turn:
            task = self._waiting.popleft()()
            if task is None:
                continue
            begun += 1
            self._free -= 1
            self._under_way[task] = self._clock.call_later(SLOW_SECONDS, partial(self._stop_counting, task))
            task.add_done_callback(self._ended)
        self._go_on()

    def _stop_counting(self, task: asyncio.Task[None]) -> None:
        timer = self._under_way[task]
        if timer is not None:
            timer.cancel()
            self._under_way[task] = None
            self._free += 1
            self._go_on()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._stop_counting(task)
        del self._under_way[task]

    async def all_done(self) -> None:
        """Wait until nobody waits and no post is under way."""
        while self._waiting or self._under_way:
            if self._under_way:
                await asyncio.wait(self._under_way)
            else:
                await asyncio.sleep(0)  # the next begin in this very turn

    def close(self) -> None:
        """Begin no post any more, and break off the posts that are under way."""
        self._waiting.clear()
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        for task in self._under_way:
            task.cancel()
