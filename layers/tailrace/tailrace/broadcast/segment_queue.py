"""The queue of a reply's stored segments that not all of its subscribers have yet. It is bounded; a subscriber that
needs a segment which the queue has dropped gets it from the log."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Final

import msgspec

from tailrace.broadcast.chunk_frames import EVERY_CHUNK, ChunkFrames
from tailrace.broadcast.frames import LARGEST_FRAME, Frames
from tailrace.clock import microseconds
from tailrace.delivery import Delivery
from tailrace.delivery.pieces import PART_EVENTS
from tailrace.errors import StoreError
from tailrace.events import Event, Message, Reasoning, Reset, Text, are_texts
from tailrace.store import Log, Segment

logger = logging.getLogger(__name__)

LARGEST_QUEUE: Final = 4 * LARGEST_FRAME
"""Characters of text, with 64 for each event, that are kept for those who are behind."""

TELLING: Final = (Text, Reset, *(kind for kind in PART_EVENTS if kind is not Reasoning))
"""What is given to subscribers as soon as it is stored."""

CREATED: Final = -1
"""The number that stands for ``MessageCreated``, before the first segment."""

PAGE_SEGMENTS: Final = 16
"""Segments that one query brings."""


class QueuedSegment(msgspec.Struct, frozen=True):
    """A segment with events.

    Attributes:
        tells: whether it is given to subscribers at once. What does not tell goes with what comes next.
        has_parts: whether it has anything for those who want what lies between the text.
    """

    number: int
    first_seq: int
    events: Sequence[Event]
    size: int
    tells: bool
    has_parts: bool


Stored = QueuedSegment | Segment


class SegmentQueue:
    """The segments of one reply, for one channel.

    Args:
        message: the reply as it was created.
        log: where the queue finds what it had to drop.

    Attributes:
        created: the frame that says that the reply was begun.
        begun: when that was, microseconds since 1970.
        dropped: the newest segment that was too much to keep, whoever had it.
        parts_are_wanted: whether somebody wants what lies between the text, so that reasoning is given at once too.
            What happens to tools always is: it is little, and may be long before the next text.
    """

    def __init__(self, message: Message, channel: str, frames: Frames, log: Log) -> None:
        self.created: Final = frames.message_created(channel, message)
        self.begun: Final = microseconds(message.created_at)
        self.message_id: Final = message.id
        self.channel: Final = channel
        self.dropped = CREATED
        self.parts_are_wanted = False
        self._frames = frames
        self._log = log
        self._entries: deque[QueuedSegment] = deque()
        self._size = 0
        self._made_of: tuple[int, int] | None = None  # the segments
        self._made: list[bytes] = []

    def add(self, number: int, first_seq: int, events: Sequence[Event]) -> bool:
        """Take a segment that was stored; return whether there is anything in it for a subscriber."""
        if not events:
            return False  # it only renewed the writer's lease
        if are_texts(events):
            tells, has_parts = True, False
            size = 64 * len(events) + sum([len(event.text) for event in events])
        else:
            has_parts = any(isinstance(event, PART_EVENTS) for event in events)
            tells = any(isinstance(event, TELLING) for event in events)
            size = sum(64 + _length(event) for event in events)
        self._entries.append(QueuedSegment(number, first_seq, events, size, tells, has_parts))
        self._size += size
        while self._size > LARGEST_QUEUE and len(self._entries) > 1:
            self.dropped = self._entries[0].number
            self._drop_first()
        return tells or (has_parts and self.parts_are_wanted)

    def tells(self, after: int, upto: int, *, is_end: bool = False) -> bool:
        """Return whether there is anything for a subscriber in the segments after one number, up to another.

        Args:
            is_end: whether nothing comes next, so that reasoning goes now.
        """
        if after < max(min(self.dropped, upto), CREATED):
            return True
        parts = is_end or self.parts_are_wanted
        return any(entry.tells or (parts and entry.has_parts) for entry in self._between(after, upto))

    async def read(self, after: int, upto: int) -> tuple[int, Sequence[Stored]]:
        """Return the segments after one number, up to another, and that number; of dropped ones a page, and its last.

        What cannot be read is passed over. The subscriber sees the gap, and may catch up.
        """
        dropped = min(self.dropped, upto)
        if after < dropped:
            log = self._log.pages(self.message_id, max(after, CREATED), upto=dropped, at_once=PAGE_SEGMENTS)
            try:
                async with aclosing(log) as pages:
                    async for page in pages:
                        return page[-1].number, page
            except StoreError as error:
                self._warn(error)
        return upto, self._between(after, upto)

    async def before(self, number: int) -> AsyncIterator[Segment]:
        """Yield the segments before a number, from the log; when it cannot be read, only some."""
        try:
            async for segment in self._log.read(self.message_id, upto=number - 1):
                yield segment
        except StoreError as error:
            self._warn(error)

    def place(self, segment: Stored, delivery: Delivery = EVERY_CHUNK, begun: float = 0.0) -> ChunkFrames:
        """Return what writes frames for whoever has all before a segment (see ``ChunkFrames``)."""
        after = segment.first_seq - 1
        return ChunkFrames(self._frames, self.channel, self.message_id, after=after, delivery=delivery, begun=begun)

    def frames(self, segments: Sequence[Stored]) -> list[bytes]:
        """Return the frames of consecutive segments, for whoever gets every chunk."""
        # Nearly always all subscribers are at the same place, and get the same bytes.
        numbers = segments[0].number, segments[-1].number
        if self._made_of != numbers:
            self._made_of = numbers
            self._made = self.place(segments[0]).run([event for segment in segments for event in segment.events])
        return self._made

    def forget(self, upto: int) -> None:
        """Drop the segments up to a number: everybody has them."""
        while self._entries and self._entries[0].number <= upto:
            self._drop_first()

    def _between(self, after: int, upto: int) -> list[QueuedSegment]:
        return [entry for entry in self._entries if after < entry.number <= upto]

    def _drop_first(self) -> None:
        self._size -= self._entries.popleft().size

    def _warn(self, error: StoreError) -> None:
        logger.warning("segments not read", extra={"message_id": self.message_id, "reason": error.message})


def _length(event: Event) -> int:
    if isinstance(event, Text | Reasoning):
        return len(event.text)
    return sum(len(value) for value in msgspec.structs.astuple(event) if isinstance(value, str))
