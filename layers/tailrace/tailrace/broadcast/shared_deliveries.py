"""A reply as some of its subscribers asked for it: in sentences, paced, with progress.

All who asked for the same share one delivery. It is fed the whole log from its beginning, whoever came when, so all
find the same sentences, and those of the stream. What it releases is kept until everybody has it, in a bounded queue.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Final

import msgspec

from tailrace.broadcast.delivery_frames import PieceFrames, delivery_of, together
from tailrace.broadcast.frames import Frames
from tailrace.broadcast.pending import CREATED, LARGEST_PENDING, Pending, PendingSegment
from tailrace.clock import Clock
from tailrace.delivery import Delivery, Paced, Piece, Progress, Voided
from tailrace.events import Message, Reset, Text
from tailrace.store import Log


class _Released(msgspec.Struct, frozen=True):
    piece: Piece | Voided
    at: float
    frames: Sequence[bytes]

    @property
    def size(self) -> int:
        return 0 if isinstance(self.piece, Voided) else len(self.piece.text)


class SharedDelivery:
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
        released: Callable[[SharedDelivery], None],
    ) -> None:
        self.seq = self.characters = self.chunks = 0
        self.waiting: deque[PendingSegment] = deque()
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
        while self._size > LARGEST_PENDING and len(self._queue) > 1:
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


class DeliveryReader:
    """One subscriber's place in a shared delivery: at first, the end of what was fed when it came.

    Attributes:
        number: how many of the pieces it has.
    """

    def __init__(self, shared: SharedDelivery, created: bytes | None) -> None:
        self.shared = shared
        self.number = shared.end
        self._created = created
        self._has = shared.characters
        self._writer: PieceFrames | None = shared.writer()

    def take(self, upto: int) -> list[bytes]:
        """Return the frames of what was released since the last time."""
        found = [] if self._created is None else [self._created]
        self._created = None
        released = self.shared.after(self.number)
        self.number = self.shared.end
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


MOST_DELIVERIES: Final = 16
"""Deliveries of one reply that differ. Who asks for another one gets every chunk: what a delivery costs, it costs the
relay."""


class SharedDeliveries:
    """All deliveries of one reply.

    Args:
        message: the reply as it was created.
        log: where a delivery finds what came before it was asked for.
        released: called with a delivery that has more to read.
    """

    def __init__(
        self,
        frames: Frames,
        channel: str,
        message: Message,
        pending: Pending,
        log: Log,
        clock: Clock,
        released: Callable[[SharedDelivery], None],
    ) -> None:
        self._frames = frames
        self._channel = channel
        self._id = message.id
        self._begun = datetime.fromisoformat(message.created_at).timestamp()
        self._pending = pending
        self._log = log
        self._clock = clock
        self._released = released
        self._open: dict[str, SharedDelivery] = {}

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._open)

    async def prepare(self, asked: Iterable[str | None], upto: int) -> None:
        """Open what is asked for, and bring the segments up to a number to all that are open.

        Raises:
            StoreError: the log cannot be read.
        """
        for text in asked:
            if text is not None and text not in self._open and len(self._open) < MOST_DELIVERIES:
                self._open[text] = self._new(text)
        for shared in list(self._open.values()):
            kept = self._pending.entries(shared.seq, upto)
            shared.waiting = deque(await self._read(shared.seq, upto) if kept is None else kept)

    def reader(self, text: str, after: int) -> DeliveryReader | None:
        """Return the place of somebody who wants this delivery; None when there are too many already.

        Args:
            after: the last segment that it has all of; -2 when it does not know of the reply. Who has more is asked
                for later.
        """
        shared = self._open.get(text)
        if shared is None:
            return None
        shared.feed(after)
        return DeliveryReader(shared, self._pending.created if after < CREATED else None)

    def feed(self, upto: int) -> None:
        """Feed what ``prepare`` brought, up to a segment."""
        for shared in self._open.values():
            shared.feed(upto)

    def flush(self) -> None:
        """Release all that waits."""
        for shared in self._open.values():
            shared.flush()

    def forget(self, readers: Iterable[object]) -> None:
        """Drop what all of these have."""
        behind: dict[SharedDelivery, int] = {}
        for reader in readers:
            if isinstance(reader, DeliveryReader):
                behind[reader.shared] = min(behind.get(reader.shared, reader.number), reader.number)
        for shared, number in behind.items():
            shared.forget(number)

    def keep(self, readers: Iterable[object]) -> None:
        """Close the deliveries that none of these reads."""
        used = {reader.shared for reader in readers if isinstance(reader, DeliveryReader)}
        for text, shared in list(self._open.items()):
            if shared not in used:
                shared.close()
                del self._open[text]

    def _new(self, text: str) -> SharedDelivery:
        return SharedDelivery(
            delivery_of(text),
            self._frames,
            self._channel,
            self._id,
            begun=self._begun,
            clock=self._clock,
            released=self._released,
        )

    async def _read(self, seq: int, upto: int) -> list[PendingSegment]:
        """Return what follows an entry, from the log: it came before somebody asked, or was too much to keep."""
        found: list[PendingSegment] = []
        async for segment in self._log.read(self._id):
            if segment.number > upto:
                break
            if segment.first_seq > seq and segment.events:
                found.append(PendingSegment(segment.number, segment.first_seq, segment.events))
        return found
