"""What was stored of one reply and has not gone to all of its subscribers yet: bounded, and cut into frames. Pure.

It is addressed by the segments' numbers. What it had to forget is read from the log for those who did not have it
(``EveryChunk``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

import msgspec

from tailrace.broadcast.frames import LARGEST_FRAME, Frames
from tailrace.events import Event, Message, Reset, Text

LARGEST_PENDING: Final = 4 * LARGEST_FRAME
"""Characters of text, with 64 for each event, that are kept for those who are behind."""

CREATED: Final = -1
"""The number that stands for ``MessageCreated``, before the first segment."""


class PendingSegment(msgspec.Struct, frozen=True):
    """A segment with events.

    Attributes:
        tells: whether there is anything in it for a subscriber.
    """

    number: int
    first_seq: int
    events: Sequence[Event]
    size: int = 0
    tells: bool = True


class Pending:
    """The segments of one reply, for one channel.

    Args:
        message: the reply as it was created.

    Attributes:
        created: the frame that says so.
        forgotten: the newest segment that it had to forget, whoever had it.
    """

    def __init__(self, frames: Frames, channel: str, message: Message) -> None:
        self._frames = frames
        self._channel = channel
        self._id = message.id
        self.forgotten = CREATED - 1
        self.created: Final = frames.message_created(channel, message)
        self._entries = deque([PendingSegment(CREATED, 1, (), 0, True)])
        self._size = 0
        self._cut: dict[int, list[bytes]] = {}
        self._cut_upto = CREATED

    def add(self, number: int, first_seq: int, events: Sequence[Event]) -> bool:
        """Take a segment that was stored; return whether there is anything in it for a subscriber."""
        if not events:
            return False  # it only renewed the writer's lease
        tells = any(isinstance(event, Text | Reset) for event in events)
        size = sum(64 + (len(event.text) if isinstance(event, Text) else 0) for event in events)
        self._entries.append(PendingSegment(number, first_seq, events, size, tells))
        self._size += size
        while self._size > LARGEST_PENDING and len(self._entries) > 1:
            self.forgotten = self._entries[0].number
            self._drop_first()
        return tells

    def tells(self, after: int, upto: int) -> bool:
        """Return whether there is anything for a subscriber in the segments after one number, up to another."""
        return any(entry.tells for entry in self._entries if after < entry.number <= upto)

    def entries(self, seq: int, upto: int) -> list[PendingSegment] | None:
        """Return the segments after an entry of the log, up to a segment; None when not all of them are here."""
        found = [entry for entry in self._entries if CREATED < entry.number <= upto and entry.first_seq > seq]
        return found if not found or found[0].first_seq == seq + 1 else None

    def cut(self, after: int, upto: int) -> tuple[int, list[bytes]]:
        """Return the frames of those segments, and up to which one they tell.

        When there is nothing to tell, that is ``after``: what only takes numbers goes with what comes next, so that
        the numbers of frames follow on each other.
        """
        if not self.tells(after, upto):
            return after, []
        # Nearly always all subscribers are at the same place, and get the same bytes.
        if upto != self._cut_upto:
            self._cut.clear()
            self._cut_upto = upto
        frames = self._cut.get(after)
        if frames is None:
            frames = self._cut[after] = self._cut_anew(after, upto)
        return upto, frames

    def _cut_anew(self, after: int, upto: int) -> list[bytes]:
        entries = [entry for entry in self._entries if after < entry.number <= upto]
        frames = []
        if entries[0].number == CREATED:
            frames.append(self.created)
            del entries[0]
        if entries:
            events = [event for entry in entries for event in entry.events]
            frames += self._frames.chunks(self._channel, self._id, entries[0].first_seq, events)
        return frames

    def forget(self, upto: int) -> None:
        """Drop the segments up to a number: everybody has them."""
        while self._entries and self._entries[0].number <= upto:
            self._drop_first()
            self._cut.clear()

    def _drop_first(self) -> None:
        self._size -= self._entries.popleft().size
