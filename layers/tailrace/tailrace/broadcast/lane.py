"""A lane: one subscription that a feed serves, at its own pace."""

from __future__ import annotations

import asyncio
from typing import Protocol

from tailrace.broadcast.backlog import Backlog
from tailrace.store import Subscription


class Reader(Protocol):
    """A subscriber's place in what was stored."""

    def take(self, upto: int) -> list[bytes]:
        """Return the frames of what it has not had yet, up to a segment's number, and move on."""
        ...


class EveryChunk:
    """Reads the segments as they were stored.

    Attributes:
        after: the last segment that was given to it.
    """

    def __init__(self, backlog: Backlog, after: int) -> None:
        self.after = after
        self._backlog = backlog

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
