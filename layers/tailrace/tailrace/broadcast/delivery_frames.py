"""The frames of what a delivery made of a reply, for one place in it. Pure.

They are those of chunks: each says which entries it stands for, and the first is the one after the last whole one
before. A piece may end inside an entry: then ``seq`` stays before that entry, ``cursor`` says how many of its
characters came too, and the next frame's ``offset`` says the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from tailrace.broadcast.frames import Chunk, Frames, fitting, json_bytes
from tailrace.delivery import Delivery, Piece, Progress, Voided
from tailrace.events import Event, Reset, Text

WIDEST: Final = 6
"""Bytes of JSON that a character may have: ``\\u0000``."""


class PieceFrames:
    """Writes pieces as frames, one after the other.

    Args:
        progress: counts for the reader, or None when it did not ask.
        after: the last entry that the reader has whole.
        offset: how many characters it has of the next one.
        chunks: how many chunks it has of this answer, whole or not.

    Attributes:
        chunks: the same, now.
    """

    def __init__(
        self,
        frames: Frames,
        channel: str,
        message_id: str,
        progress: Progress | None,
        *,
        after: int = 0,
        offset: int = 0,
        chunks: int = 0,
    ) -> None:
        self._frames = frames
        self._channel = channel
        self._id = message_id
        self._progress = progress
        self._space = frames.space_for_text(channel, message_id)
        self._seq = after
        self._offset = offset
        self.chunks = chunks

    def write(self, piece: Piece | Voided, now: float) -> list[bytes]:
        """Return the frames of a piece; it is one, unless the text is too long for that.

        Args:
            now: seconds, by the clock that the progress was begun with.
        """
        first_seq, offset = self._seq + 1, self._offset
        if isinstance(piece, Voided):
            self._seq, self._offset, self.chunks = piece.seq, 0, 0
            void = self._part("", first_seq, offset)
            void.seq = piece.seq
            void.reset = True
            return [self._frames.chunk(self._channel, void)]
        *parts, last = self._parts(piece.text)
        found: list[bytes] = []
        for part in parts:
            found.append(self._frames.chunk(self._channel, self._part(part, first_seq, offset)))
            offset += len(part)
        chunk = self._part(last, first_seq, offset)
        self._seq, self._offset = (piece.seq - 1, piece.taken) if piece.taken else (piece.seq, 0)
        chunk.seq = self._seq
        chunk.chunk_count = piece.chunks - self.chunks
        self.chunks = piece.chunks
        if piece.taken:
            chunk.cursor = f"{piece.seq}.{piece.taken}"
        if piece.sentences:
            chunk.sentence_count = piece.sentences
        if self._progress is not None:
            chunk.progress = self._progress.at(piece.chunks, piece.characters, now)
        return [*found, self._frames.chunk(self._channel, chunk)]

    def reach(self, seq: int) -> list[bytes]:
        """Return a frame without text for what comes after the last piece up to an entry, if there is any."""
        if seq <= self._seq or self._offset:
            return []
        chunk = Chunk(message_id=self._id, chunk="", seq=seq, first_seq=self._seq + 1, chunk_count=0)
        self._seq = seq
        return [self._frames.chunk(self._channel, chunk)]

    def _part(self, text: str, first_seq: int, offset: int) -> Chunk:
        chunk = Chunk(message_id=self._id, chunk=text, seq=first_seq - 1, first_seq=first_seq, chunk_count=0)
        if offset:
            chunk.offset = offset
        return chunk

    def _parts(self, text: str) -> list[str]:
        if len(text) * WIDEST <= self._space or json_bytes(text) <= self._space:
            return [text]
        parts: list[str] = []
        taken = 0
        while taken < len(text):
            end = taken + fitting(text, taken, self._space)
            parts.append(text[taken:end])
            taken = end
        return parts


class DeliveredFrames:
    """The frames of a log for one reader, from where it is. All of the log is fed, from its beginning.

    Args:
        created: when the reply was begun, in seconds since 1970; progress is measured from there.
        after: the last entry that the reader has.
        taken: how many characters it has of that entry; 0 is all of them.
    """

    def __init__(
        self,
        delivery: Delivery,
        frames: Frames,
        channel: str,
        message_id: str,
        created: float,
        *,
        after: int,
        taken: int,
    ) -> None:
        self._pieces = delivery.open(after=after, taken=taken)
        self._after = after
        self._fed = 0
        self._now = created
        self._writer = PieceFrames(
            frames,
            channel,
            message_id,
            Progress(created) if delivery.progress else None,
            after=after - 1 if taken else after,
            offset=taken,
        )

    def feed(self, first_seq: int, events: Sequence[Event], at: float) -> list[bytes]:
        """Take consecutive entries; return the frames of what is ready.

        Args:
            at: when they were written, in seconds since 1970.
        """
        for seq, event in enumerate(events, first_seq):
            if seq > self._after:
                break
            if isinstance(event, Text):
                self._writer.chunks += 1
            elif isinstance(event, Reset):
                self._writer.chunks = 0
        self._fed = first_seq + len(events) - 1
        self._now = at
        return self._write(self._pieces.feed(first_seq, events, at))

    def rest(self) -> list[bytes]:
        """Return the frames of all that was fed, to its very end: somebody else delivers what follows."""
        return self._write(self._pieces.rest()) + self._writer.reach(self._fed)

    def flush(self) -> list[bytes]:
        """Return the frames of all that waits: the reply is over."""
        return self._write(self._pieces.flush())

    def _write(self, found: Sequence[Piece | Voided]) -> list[bytes]:
        return [frame for each in together(found) for frame in self._writer.write(each, self._now)]


def together(found: Sequence[Piece | Voided]) -> list[Piece | Voided]:
    """Return what is released at once as it is posted: chunks joined, sentences each by itself."""
    whole: list[Piece | Voided] = []
    texts: list[str] = []
    for piece in found:
        before = whole[-1] if whole else None
        if isinstance(piece, Piece) and not piece.sentences and isinstance(before, Piece):
            texts.append(piece.text)
            whole[-1] = piece
            continue
        _join(whole, texts)
        whole.append(piece)
        texts = [piece.text] if isinstance(piece, Piece) else []
    _join(whole, texts)
    return whole


def _join(whole: list[Piece | Voided], texts: Sequence[str]) -> None:
    if len(texts) > 1 and isinstance(last := whole[-1], Piece):
        whole[-1] = msgspec.structs.replace(last, text="".join(texts))


def delivery_text(delivery: Delivery) -> str | None:
    """Return a delivery as a subscription keeps it: the same for all who want the same, None for every chunk."""
    return None if delivery == Delivery() else msgspec.json.encode(delivery).decode()


def delivery_of(text: str) -> Delivery:
    """Return what a subscription keeps."""
    return msgspec.json.decode(text, type=Delivery)
