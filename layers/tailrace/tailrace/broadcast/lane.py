"""A lane: one subscription that a feed serves, at its own pace."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Final, Protocol

from tailrace.broadcast.backlog import CREATED, Backlog
from tailrace.broadcast.frames import Frames
from tailrace.events import Event
from tailrace.store import Log, Subscription


class Reader(Protocol):
    """A subscriber's place in what was stored."""

    def take(self, upto: int) -> list[bytes]:
        """Return the frames of what it has not had yet, up to a segment's number, and move on."""
        ...


PAGE_SEGMENTS: Final = 16
"""Segments that one query brings."""

PAGE_BYTES: Final = 256 * 1024
"""Bytes of segments, as they are packed, that are read from the log before they are posted."""


class EveryChunk:
    """Reads the segments as they were stored.

    Attributes:
        after: the last segment that was given to it.
    """

    def __init__(self, backlog: Backlog, after: int) -> None:
        self.after = after
        self._backlog = backlog

    @property
    def is_behind(self) -> bool:
        """Whether what comes next has been forgotten, and has to be read from the log."""
        return self.after < self._backlog.forgotten

    async def read(self, log: Log, frames: Frames, channel: str, message_id: str) -> list[bytes]:
        """Return the frames of what has been forgotten, a page of them, and move on. What is not in the log either is
        passed over: the next frame shows the gap.

        Raises:
            StoreError: the log cannot be read.
        """
        found = [self._backlog.created] if self.after < CREATED else []
        first_seq = size = 0
        events: list[Event] = []
        upto = self._backlog.forgotten
        async with aclosing(log.read(message_id, max(self.after, CREATED), at_once=PAGE_SEGMENTS)) as segments:
            async for segment in segments:
                first_seq = first_seq or segment.first_seq
                events += segment.events
                size += segment.size
                self.after = segment.number
                if size >= PAGE_BYTES or segment.number >= upto:
                    break
        if not events:
            self.after = upto
            return found
        return found + frames.chunks(channel, message_id, first_seq, events, whole=True)

    def skip(self) -> None:
        """Pass over what has been forgotten."""
        self.after = max(self.after, self._backlog.forgotten)

    def take(self, upto: int) -> list[bytes]:
        """Return the frames of the segments up to a number."""
        self.after, frames = self._backlog.cut(self.after, upto)
        return frames


class Lane:
    """One subscription that is being served.

    Args:
        before: a post for the same socket's earlier subscription, which ends first.

    Attributes:
        task: the post that is under way.
        waits: whether it waits for room.
        open: whether it gets anything more.
    """

    def __init__(self, subscription: Subscription, reader: Reader, before: asyncio.Task[None] | None) -> None:
        self.socket = subscription.socket
        self.since = subscription.since
        self.reader = reader
        self.before = before
        self.task: asyncio.Task[None] | None = None
        self.waits = False
        self.open = True
