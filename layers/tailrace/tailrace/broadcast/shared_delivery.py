"""A reply as some of its subscribers asked for it: in sentences, paced, with progress.

All who asked for the same share one delivery. It is fed the whole log from its beginning, whoever came when, so all
find the same sentences, and those of the stream. What it releases is kept until everybody has it, in a bounded queue.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from copy import copy
from itertools import islice

import msgspec

from tailrace.broadcast.chunk_frames import ChunkFrames
from tailrace.broadcast.delivery_frames import together
from tailrace.broadcast.pending import LARGEST_PENDING, PendingSegment
from tailrace.clock import Clock
from tailrace.delivery import Delivery, Found, Paced, Piece
from tailrace.store import Segment


class _Released(msgspec.Struct, frozen=True):
    piece: Found
    size: int
    at: float
    frames: Sequence[bytes]


class SharedDelivery:
    """One delivery of one reply.

    Args:
        frames: at the reply's beginning.
        released: called when there is more to read.

    Attributes:
        fed: the place up to which it was fed.
        waiting: segments it is to be fed, in order.
        paced: what holds back what is not due.
        end: how many pieces were released.
        parts: whether it has what lies between the text.
    """

    def __init__(
        self, delivery: Delivery, frames: ChunkFrames, *, clock: Clock, released: Callable[[], object]
    ) -> None:
        self.fed = frames
        self.waiting: deque[PendingSegment | Segment] = deque()
        self.end = 0
        self.parts = delivery.parts
        self._writer = copy(frames)
        self._clock = clock
        self._tell = released
        self.paced = Paced(delivery.open(), self._release, clock=clock)
        self._queue: deque[_Released] = deque()
        self._size = 0

    def feed(self, upto: int) -> None:
        """Take the waiting segments up to a number."""
        while self.waiting and self.waiting[0].number <= upto:
            entry = self.waiting.popleft()
            self.fed.pass_over(entry.events)
            self.fed.seq = entry.first_seq + len(entry.events) - 1
            self.paced.feed(entry.first_seq, entry.events)

    def _release(self, found: Sequence[Found]) -> None:
        at = self._clock.now() / 1_000_000
        for piece in together(found):
            frames = self._writer.piece(piece, at)
            size = len(piece.text) if isinstance(piece, Piece) else sum(map(len, frames))
            self._queue.append(_Released(piece, size, at, frames))
            self._size += size
            self.end += 1
        while self._size > LARGEST_PENDING and len(self._queue) > 1:
            self._drop_first()
        self._tell()

    def after(self, number: int) -> list[_Released]:
        """Return what was released after so many pieces. What had to be forgotten is a gap, which the frames show."""
        return list(islice(self._queue, max(number - (self.end - len(self._queue)), 0), None))

    def forget(self, number: int) -> None:
        """Drop so many pieces: everybody has them."""
        while self._queue and self.end - len(self._queue) < number:
            self._drop_first()

    def _drop_first(self) -> None:
        self._size -= self._queue.popleft().size


class DeliveryReader:
    """One subscriber's place in a shared delivery: at first, the end of what was fed when it came.

    Args:
        created: the frame that comes first, if it does not know of the reply.

    Attributes:
        number: how many of the pieces it has.
    """

    def __init__(self, shared: SharedDelivery, created: bytes | None) -> None:
        self.shared = shared
        self.number = shared.end
        self._created = created
        self._writer: ChunkFrames | None = copy(shared.fed)

    def has_more(self, upto: int) -> bool:
        """Return whether there is anything to take."""
        return self._created is not None or self.number < self.shared.end

    async def take(self, upto: int) -> list[bytes]:
        """Return the frames of what was released since the last time."""
        found = [] if self._created is None else [self._created]
        self._created = None
        released = self.shared.after(self.number)
        self.number = self.shared.end
        for each in released:
            found += each.frames if self._writer is None else self._join(self._writer, each)
        return found

    def _join(self, writer: ChunkFrames, each: _Released) -> Sequence[bytes]:
        """Return the frames of a piece of which it may have a part."""
        piece = each.piece
        if isinstance(piece, Piece):
            new = piece.characters - writer.characters
            if new <= 0:
                return []
            piece = msgspec.structs.replace(piece, text=piece.text[-new:])
        self._writer = None
        return writer.piece(piece, each.at)
