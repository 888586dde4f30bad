"""A branch of a reply's feed: the reply as some of its subscribers asked for it.

All who want the same share one. It is fed the whole log from its beginning, whoever came when, so all find the same
sentences, and those of the stream. What it releases is kept until everybody has it, in a bounded queue.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from tailrace.broadcast.backlog import LARGEST_BACKLOG, Entry
from tailrace.broadcast.frames import Frames
from tailrace.broadcast.piece_frames import PieceFrames, together
from tailrace.clock import Clock
from tailrace.delivery import Delivery, Paced, Piece, Progress, Voided
from tailrace.events import Reset, Text


class _Released(msgspec.Struct, frozen=True):
    piece: Piece | Voided
    at: float
    frames: Sequence[bytes]

    @property
    def size(self) -> int:
        return 0 if isinstance(self.piece, Voided) else len(self.piece.text)


class Branch:
    """One delivery of one reply.

    Args:
        begun: when the reply was begun, in seconds since 1970; progress is measured from there.
        released: called when there is more to read.

    Attributes:
        seq: the last entry that it was fed.
        characters, chunks: how much of the answer's text it was fed.
        waiting: segments it is to be fed, in order.
    """

    def __init__(
        self,
        delivery: Delivery,
        frames: Frames,
        channel: str,
        message_id: str,
        *,
        begun: float,
        clock: Clock,
        released: Callable[[Branch], None],
    ) -> None:
        self.seq = self.characters = self.chunks = 0
        self.waiting: deque[Entry] = deque()
        self._frames = frames
        self._channel = channel
        self._id = message_id
        self._progress = Progress(begun) if delivery.progress else None
        self._clock = clock
        self._tell = released
        self._paced = Paced(delivery.open(), self._release, clock=clock)
        self._writer = self.writer()
        self._queue: deque[_Released] = deque()
        self._size = 0
        self._first = 0  # how many were released and forgotten

    def writer(self) -> PieceFrames:
        """Return what writes frames for somebody who has all that was fed."""
        return PieceFrames(self._frames, self._channel, self._id, self._progress, after=self.seq, chunks=self.chunks)

    def feed(self, upto: int) -> None:
        """Take the waiting segments up to a number."""
        while self.waiting and self.waiting[0].number <= upto:
            entry = self.waiting.popleft()
            self.seq = entry.first_seq + len(entry.events) - 1
            for event in entry.events:
                if isinstance(event, Text):
                    self.characters += len(event.text)
                    self.chunks += 1
                elif isinstance(event, Reset):
                    self.characters = self.chunks = 0
            self._paced.feed(entry.first_seq, entry.events)

    def flush(self) -> None:
        """Release all that waits."""
        self._paced.flush()

    def close(self) -> None:
        """Release nothing more."""
        self._paced.close()

    def _release(self, found: Sequence[Piece | Voided]) -> None:
        at = self._clock.now() / 1_000_000
        for piece in together(found):
            self._queue.append(_Released(piece, at, self._writer.write(piece, at)))
            self._size += self._queue[-1].size
        while self._size > LARGEST_BACKLOG and len(self._queue) > 1:
            self._drop_first()
        self._tell(self)

    @property
    def end(self) -> int:
        """How many pieces were released."""
        return self._first + len(self._queue)

    def after(self, number: int) -> list[_Released]:
        """Return what was released after so many pieces. What had to be forgotten is a gap, which the frames show."""
        skip = max(number - self._first, 0)
        return [each for place, each in enumerate(self._queue) if place >= skip]

    def forget(self, number: int) -> None:
        """Drop so many pieces: everybody has them."""
        while self._queue and self._first < number:
            self._drop_first()

    def _drop_first(self) -> None:
        self._size -= self._queue.popleft().size
        self._first += 1


class BranchReader:
    """One subscriber's place in a branch: at first, the end of what was fed when it came.

    Attributes:
        number: how many of the pieces it has.
    """

    def __init__(self, branch: Branch, created: bytes | None) -> None:
        self.branch = branch
        self.number = branch.end
        self._created = created
        self._has = branch.characters
        self._writer: PieceFrames | None = branch.writer()

    def take(self, upto: int) -> list[bytes]:
        """Return the frames of what was released since the last time."""
        found = [] if self._created is None else [self._created]
        self._created = None
        released = self.branch.after(self.number)
        self.number = self.branch.end
        for each in released:
            found += each.frames if self._writer is None else self._join(self._writer, each)
        return found

    def _join(self, writer: PieceFrames, each: _Released) -> Sequence[bytes]:
        """Return the frames of a piece of which it may have a part."""
        piece = each.piece
        if isinstance(piece, Piece):
            if piece.characters <= self._has:
                return []
            begin = piece.characters - len(piece.text)
            piece = msgspec.structs.replace(piece, text=piece.text[max(self._has - begin, 0) :])
        self._writer = None
        return writer.write(piece, each.at)
