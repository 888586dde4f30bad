"""What a thread hands over to the event loop: bounded, and closed from either side."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class HandoverClosed(Exception):
    """Raised in the thread: nobody takes what it has any more."""


class Handover(Generic[T]):
    """Made in the loop. ``put`` and ``end`` are the thread's, ``take`` and ``close`` the loop's; the loop may also
    ``end`` it. The thread waits while ``limit`` items wait to be taken."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._here = asyncio.Event()
        self._changed = threading.Condition()
        self._items: deque[T] = deque()
        self._ended = self._closed = False
        self._error: Exception | None = None

    def put(self, item: T) -> None:
        """Hand over, once there is room.

        Raises:
            HandoverClosed: nobody will take it.
        """
        with self._changed:
            while len(self._items) >= self._limit and not self._closed:
                self._changed.wait()  # no deadline: whoever takes closes this in the end, however that comes
            if self._closed:
                raise HandoverClosed
            self._items.append(item)
        self._wake()

    def end(self, error: Exception | None = None) -> None:
        """Nothing more comes. The first end counts; its ``error`` is raised once all items are taken."""
        with self._changed:
            if not self._ended:
                self._ended = True
                self._error = error
        self._wake()

    async def take(self) -> list[T]:
        """All that is here, or what comes next; empty at the end."""
        while True:
            self._here.clear()
            with self._changed:
                items = list(self._items)
                self._items.clear()
                self._changed.notify()
                ended = self._ended
            if items:
                return items
            if ended:
                if self._error is not None:
                    raise self._error
                return []
            await self._here.wait()

    def close(self) -> None:
        """Take no more."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify()

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._here.set)
        except RuntimeError:  # the loop is closed
            self.close()
