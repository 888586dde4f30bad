"""The frames of what a delivery makes of a reply, for one subscriber at one place in it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import msgspec

from tailrace.broadcast.chunk_frames import ChunkFrames
from tailrace.delivery import Delivery, Found, Piece
from tailrace.events import Event


class DeliveredFrames:
    """The frames of a log for one subscriber, from its place on. All of the log is fed, from its beginning, so that all
    subscribers find the same sentences, and those of the stream.

    Args:
        frames: at the subscriber's place.

    Attributes:
        pieces: what cuts the log. Feed it here at least up to the subscriber's place.
        fed: the last entry that was fed here.
    """

    def __init__(self, delivery: Delivery, frames: ChunkFrames) -> None:
        self._frames = frames
        self._after = frames.seq + bool(frames.offset)  # the last entry of which the subscriber has something
        self._is_whole = delivery == Delivery() and not frames.offset  # every chunk as it was stored
        self.pieces = delivery.open(after=self._after, taken=frames.offset)
        self.fed = 0
        self._now = 0.0

    def feed(self, first_seq: int, events: Sequence[Event], now: float) -> list[bytes]:
        """Take consecutive entries; return the frames of what is ready.

        Args:
            now: seconds, by the clock that the progress was begun with.
        """
        had = max(self._after + 1 - first_seq, 0)
        self.fed = first_seq + len(events) - 1
        self._now = now
        if self._is_whole:
            return self._frames.run(events[had:])
        self._frames.pass_over(events[:had])
        return self.write(self.pieces.feed(first_seq, events, now), now)

    def rest(self) -> list[bytes]:
        """Return the frames of all that was fed, to its very end: somebody else delivers what follows."""
        return self.write(self.pieces.rest(), self._now) + self._frames.reach(self.fed)

    def flush(self) -> list[bytes]:
        """Return the frames of all that waits: the reply is over."""
        return self.write(self.pieces.flush(), self._now)

    def write(self, found: Sequence[Found], now: float) -> list[bytes]:
        """Return the frames of what is released at once: chunks joined, sentences each by itself."""
        frames: list[bytes] = []
        for are_chunks, group in groupby(found, lambda each: isinstance(each, Piece) and not each.sentences):
            pieces = list(group)
            if are_chunks:
                pieces = [msgspec.structs.replace(pieces[-1], text="".join(map(str, pieces)))]
            frames += [frame for piece in pieces for frame in self._frames.piece(piece, now)]
        return frames


def delivery_text(delivery: Delivery) -> str | None:
    """Return a delivery as a subscription keeps it: the same for all who want the same, None for every chunk."""
    return None if delivery == Delivery() else msgspec.json.encode(delivery).decode()


def delivery_of(text: str) -> Delivery:
    """Return what a subscription keeps."""
    return msgspec.json.decode(text, type=Delivery)
