"""The frames of what a delivery makes of a reply, for one place in it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import msgspec

from tailrace.broadcast.chunk_frames import ChunkFrames
from tailrace.delivery import Delivery, Found, Piece, Pieces
from tailrace.events import Event


class DeliveredFrames:
    """The frames of a log for one reader, from where it is. All of the log is fed, from its beginning.

    Args:
        frames: at the reader's place.
    """

    def __init__(self, delivery: Delivery, frames: ChunkFrames) -> None:
        self._frames = frames
        self._after = frames.seq + bool(frames.offset)  # the last entry of which the reader has something
        self._pieces: Pieces | None = None  # every chunk as it was stored
        if delivery != Delivery() or frames.offset:
            self._pieces = delivery.open(after=self._after, taken=frames.offset)
        self._fed = 0
        self._now = 0.0

    def feed(self, first_seq: int, events: Sequence[Event], at: float) -> list[bytes]:
        """Take consecutive entries; return the frames of what is ready.

        Args:
            at: when they were written, in seconds since 1970.
        """
        had = max(self._after + 1 - first_seq, 0)
        if self._pieces is None:
            return self._frames.run(events[had:], whole=True)
        self._frames.pass_over(events[:had])
        self._fed = first_seq + len(events) - 1
        self._now = at
        return self._write(self._pieces.feed(first_seq, events, at))

    def rest(self) -> list[bytes]:
        """Return the frames of all that was fed, to its very end: somebody else delivers what follows."""
        return [] if self._pieces is None else self._write(self._pieces.rest()) + self._frames.reach(self._fed)

    def flush(self) -> list[bytes]:
        """Return the frames of all that waits: the reply is over."""
        return [] if self._pieces is None else self._write(self._pieces.flush())

    def _write(self, found: Sequence[Found]) -> list[bytes]:
        return [frame for each in together(found) for frame in self._frames.piece(each, self._now)]


def together(found: Sequence[Found]) -> list[Found]:
    """Return what is released at once as it is posted: chunks joined, sentences each by itself."""
    whole: list[Found] = []
    for are_chunks, group in groupby(found, lambda each: isinstance(each, Piece) and not each.sentences):
        pieces = list(group)
        if are_chunks and len(pieces) > 1:
            pieces = [msgspec.structs.replace(pieces[-1], text="".join(map(str, pieces)))]
        whole += pieces
    return whole


def delivery_text(delivery: Delivery) -> str | None:
    """Return a delivery as a subscription keeps it: the same for all who want the same, None for every chunk."""
    return None if delivery == Delivery() else msgspec.json.encode(delivery).decode()


def delivery_of(text: str) -> Delivery:
    """Return what a subscription keeps."""
    return msgspec.json.decode(text, type=Delivery)
