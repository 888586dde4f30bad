"""The branches of one reply's feed: opened for those who ask, fed together, closed when nobody reads them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final

from tailrace.broadcast.backlog import CREATED, Backlog, Entry
from tailrace.broadcast.branch import Branch, BranchReader
from tailrace.broadcast.frames import Frames
from tailrace.broadcast.piece_frames import delivery_of
from tailrace.clock import Clock
from tailrace.events import Message
from tailrace.store import Log

MOST_BRANCHES: Final = 16
"""Deliveries of one reply that differ. Who asks for another one gets every chunk: what a branch costs, it costs the
relay."""


class Branches:
    """All branches of one reply.

    Args:
        message: the reply as it was created.
        log: where a branch finds what came before it was asked for.
        released: called with a branch that has more to read.
    """

    def __init__(
        self,
        frames: Frames,
        channel: str,
        message: Message,
        backlog: Backlog,
        log: Log,
        clock: Clock,
        released: Callable[[Branch], None],
    ) -> None:
        self._frames = frames
        self._channel = channel
        self._id = message.id
        self._begun = datetime.fromisoformat(message.created_at).timestamp()
        self._backlog = backlog
        self._log = log
        self._clock = clock
        self._released = released
        self._open: dict[str, Branch] = {}

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._open)

    async def prepare(self, asked: Iterable[str | None], upto: int) -> None:
        """Open what is asked for, and bring the segments up to a number to all that are open.

        Raises:
            StoreError: the log cannot be read.
        """
        for text in asked:
            if text is not None and text not in self._open and len(self._open) < MOST_BRANCHES:
                self._open[text] = self._branch(text)
        for branch in list(self._open.values()):
            kept = self._backlog.entries(branch.seq, upto)
            branch.waiting = deque(await self._read(branch.seq, upto) if kept is None else kept)

    def reader(self, text: str, after: int) -> BranchReader | None:
        """Return the place of somebody who wants this delivery; None when there is no branch for it.

        Args:
            after: the last segment that it has all of; -2 when it does not know of the reply. Who has more is asked
                for later.
        """
        branch = self._open.get(text)
        if branch is None:
            return None
        branch.feed(after)
        return BranchReader(branch, self._backlog.created if after < CREATED else None)

    def feed(self, upto: int) -> None:
        """Feed what ``prepare`` brought, up to a segment."""
        for branch in self._open.values():
            branch.feed(upto)

    def flush(self) -> None:
        """Release all that waits."""
        for branch in self._open.values():
            branch.flush()

    def forget(self, readers: Iterable[object]) -> None:
        """Drop what all of these have."""
        behind: dict[Branch, int] = {}
        for reader in readers:
            if isinstance(reader, BranchReader):
                behind[reader.branch] = min(behind.get(reader.branch, reader.number), reader.number)
        for branch, number in behind.items():
            branch.forget(number)

    def keep(self, readers: Iterable[object]) -> None:
        """Close the branches that none of these reads."""
        used = {reader.branch for reader in readers if isinstance(reader, BranchReader)}
        for text, branch in list(self._open.items()):
            if branch not in used:
                branch.close()
                del self._open[text]

    def _branch(self, text: str) -> Branch:
        return Branch(
            delivery_of(text),
            self._frames,
            self._channel,
            self._id,
            begun=self._begun,
            clock=self._clock,
            released=self._released,
        )

    async def _read(self, seq: int, upto: int) -> list[Entry]:
        """Return what follows an entry, from the log: it came before somebody asked, or was too much to keep."""
        found: list[Entry] = []
        async for segment in self._log.read(self._id):
            if segment.number > upto:
                break
            if segment.first_seq > seq and segment.events:
                found.append(Entry(segment.number, segment.first_seq, segment.events))
        return found
