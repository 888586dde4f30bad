"""The queue of a reply's stored segments that not all of its subscribers have yet. It is bounded; a subscriber that
needs a segment which the queue has dropped gets it from the log."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from contextlib import aclosing
from typing import Final

import msgspec

from tailrace.broadcast.chunk_frames import ChunkFrames
from tailrace.broadcast.frames import LARGEST_FRAME
from tailrace.delivery.pieces import PART_EVENTS
from tailrace.errors import StoreError
from tailrace.events import Event, Reasoning, Reset, Text
from tailrace.store import Log, Segment

logger = logging.getLogger(__name__)

LARGEST_PENDING: Final = 4 * LARGEST_FRAME
"""Characters of text, with 64 for each event, that are kept for those who are behind."""

TELLING: Final = (Text, Reset, *(kind for kind in PART_EVENTS if kind is not Reasoning))
"""What is given to subscribers as soon as it is stored."""

CREATED: Final = -1
"""The number that stands for ``MessageCreated``, before the first segment."""

PAGE_SEGMENTS: Final = 16
"""Segments that one query brings."""


class PendingSegment(msgspec.Struct, frozen=True):
    """A segment with events.

    Attributes:
        tells: whether subscribers are given it now. What does not tell goes with what comes next.
        has_parts: whether there is anything in it for those who want what lies between the text.
    """

    number: int
    first_seq: int
    events: Sequence[Event]
    size: int
    tells: bool
    has_parts: bool = False


class Pending:
    """The segments of one reply, for one channel.

    Args:
        frames: of the reply, wherever in it.
        created: the frame that says that it was begun.
        log: where it finds what it had to forget.

    Attributes:
        forgotten: the newest segment that it had to forget, whoever had it.
        parts_are_wanted: whether somebody wants what lies between the text, so that reasoning is given as it comes.
            What happens to tools always is: it is little, and may be long before the next text.
    """

    def __init__(self, frames: ChunkFrames, created: bytes, log: Log) -> None:
        self.forgotten = CREATED - 1
        self.parts_are_wanted = False
        self.created: Final = created
        self.message_id: Final = frames.message_id
        self._frames = frames
        self._log = log
        self._entries = deque([PendingSegment(CREATED, 1, (), 0, True)])
        self._size = 0
        self._cut: dict[int, list[bytes]] = {}
        self._cut_upto = CREATED

    def add(self, number: int, first_seq: int, events: Sequence[Event]) -> bool:
        """Take a segment that was stored; return whether there is anything in it for a subscriber."""
        if not events:
            return False  # it only renewed the writer's lease
        has_parts = any(isinstance(event, PART_EVENTS) for event in events)
        tells = any(isinstance(event, TELLING) for event in events) or (has_parts and self.parts_are_wanted)
        size = sum(64 + _length(event) for event in events)
        self._entries.append(PendingSegment(number, first_seq, events, size, tells, has_parts))
        self._size += size
        while self._size > LARGEST_PENDING and len(self._entries) > 1:
            self.forgotten = self._entries[0].number
            self._drop_first()
        return tells

    def tells(self, after: int, upto: int) -> bool:
        """Return whether there is anything for a subscriber in the segments after one number, up to another."""
        return any(entry.tells for entry in self._entries if after < entry.number <= upto)

    def has_parts(self, after: int, upto: int) -> bool:
        """Return whether there is anything for those who want what lies between the text."""
        return any(entry.has_parts for entry in self._entries if after < entry.number <= upto)

    def entries(self, seq: int, upto: int) -> Sequence[PendingSegment | Segment] | None:
        """Return the segments after an entry of the log, up to a segment; None when not all of them are here."""
        found = [entry for entry in self._entries if CREATED < entry.number <= upto and entry.first_seq > seq]
        return found if not found or found[0].first_seq == seq + 1 else None

    def cut(self, after: int, upto: int) -> tuple[int, list[bytes]]:
        """Return up to which segment the frames tell, and the frames of those after one number, up to another.

        When there is nothing to tell, that is ``after``: what only takes numbers goes with what comes next, so that
        the numbers of frames follow on each other.
        """
        if not self.tells(after, upto):
            return after, []
        # Nearly always all subscribers are at the same place, and get the same bytes.
        if upto != self._cut_upto:
            self._cut.clear()
            self._cut_upto = upto
        if after not in self._cut:
            entries = [entry for entry in self._entries if after < entry.number <= upto]
            frames = [self.created] if entries[0].number == CREATED else []
            events = [event for entry in entries for event in entry.events]
            self._cut[after] = frames + self._frames.at(entries[0].first_seq - 1).run(events, whole=True)
        return upto, self._cut[after]

    async def read(self, after: int) -> tuple[int, list[bytes]]:
        """Return the same of what was forgotten, a page of it. What is not in the log either is passed over: the next
        frame shows the gap.

        Raises:
            StoreError: the log cannot be read.
        """
        found = [self.created] if after < CREATED else []
        upto = self.forgotten
        log = self._log.pages(self.message_id, max(after, CREATED), upto=upto, at_once=PAGE_SEGMENTS)
        async with aclosing(log) as pages:
            page = await anext(pages, None)
        if page is None:
            return upto, found
        events = [event for segment in page for event in segment.events]
        return page[-1].number, found + self._frames.at(page[0].first_seq - 1).run(events, whole=True)

    def forget(self, upto: int) -> None:
        """Drop the segments up to a number: everybody has them."""
        while self._entries and self._entries[0].number <= upto:
            self._drop_first()
            self._cut.clear()

    def _drop_first(self) -> None:
        self._size -= self._entries.popleft().size


def _length(event: Event) -> int:
    if isinstance(event, Text | Reasoning):
        return len(event.text)
    return sum(len(value) for value in msgspec.structs.astuple(event) if isinstance(value, str))


class EveryChunk:
    """One subscriber's place in what was stored, of one who reads the segments as they were stored.

    Attributes:
        after: the last segment that was given to it.
    """

    def __init__(self, pending: Pending, after: int) -> None:
        self.after = after
        self._pending = pending

    def has_more(self, upto: int) -> bool:
        """Return whether there is anything to take."""
        return self.after < self._pending.forgotten or self._pending.tells(self.after, upto)

    async def take(self, upto: int) -> list[bytes]:
        """Return the frames of the segments up to a number, and move on; of those that have been forgotten a page."""
        frames: list[bytes] = []
        while not frames and self.after < self._pending.forgotten:
            try:
                self.after, frames = await self._pending.read(self.after)
            except StoreError as error:  # it goes on with what is here; the subscriber sees the gap, and may catch up
                about = {"message_id": self._pending.message_id, "reason": error.message}
                logger.warning("segments not read", extra=about)
                self.after = self._pending.forgotten
        if not frames:
            self.after, frames = self._pending.cut(self.after, upto)
        return frames
