"""The frames of a reply's chunks, for one reader, from one place in it on. Pure.

A frame says which entries of the log it stands for, from ``first_seq`` to ``seq``. ``seq`` is the cursor: the last
entry that a subscriber has whole after it. So ``first_seq`` is always the ``seq`` before it and one, and a larger one
is a gap, to be fetched by the cursor. Of a text that is too long for one frame, all frames but its last leave ``seq``
where it was; the later ones say with ``offset`` how many of its characters came before. A piece of a delivery may end
inside an entry: then ``cursor`` says how many characters of it came, and the next frame's ``offset`` says the same.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import groupby
from typing import Any, Final

import msgspec

from tailrace.broadcast.frames import LARGEST_FRAME, Frames
from tailrace.delivery import Delivery, Found, Part, Piece, Progress, Voided
from tailrace.events import End, Event, Reset, Text, are_texts
from tailrace.protocols.parts import part_data, shortened

_FIGURES: Final = 400
"""Bytes that the numbers of a chunk may take: eleven of at most 20, and their names."""

_WIDEST: Final = 6
"""Bytes of JSON that a character may have: ``\\u0000``."""

EVERY_CHUNK: Final = Delivery()
"""As it was stored."""

_encode: Final = msgspec.json.Encoder().encode


class ChunkFrames:
    """Writes the frames of a reply for one reader, from its place on, as its delivery wants them. It is fed all of the
    log, from its beginning, so that all readers find the same sentences, and those of the stream.

    Args:
        after: the last entry that the reader has whole.
        offset: how many characters it has of the next one.
        begun: when the reply was, in seconds by the clock of every ``now``; only progress needs to know.

    Attributes:
        pieces: what cuts the log. Feed it here at least up to the reader's place.
        fed: the last entry that was fed here.
    """

    def __init__(
        self,
        frames: Frames,
        channel: str,
        message_id: str,
        *,
        after: int = 0,
        offset: int = 0,
        delivery: Delivery = EVERY_CHUNK,
        begun: float = 0.0,
    ) -> None:
        self._frames = frames
        self._channel = channel
        self._message_id = message_id
        self._progress = Progress(begun) if delivery.progress else None
        self._had = after + bool(offset)  # the last entry of which the reader has something at first
        self._is_whole = delivery == EVERY_CHUNK and not offset
        self.pieces = delivery.open(after=self._had, taken=offset)
        self.fed = 0
        self._now = 0.0
        self._chunks = 0  # that the reader has of this answer; only pieces need to know
        self._seq, self._offset = after, 0  # the place, now
        self._space = LARGEST_FRAME - len(self._frame("", after)) - _FIGURES
        self._offset = offset

    def feed(self, first_seq: int, events: Sequence[Event], now: float) -> list[bytes]:
        """Take consecutive entries; return the frames of what is ready.

        Args:
            now: seconds.
        """
        had = max(self._had + 1 - first_seq, 0)
        self.fed = first_seq + len(events) - 1
        self._now = now
        if self._is_whole:
            return self.run(events[had:])
        for event in events[:had]:
            if isinstance(event, Text):
                self._chunks += 1
            elif isinstance(event, Reset):
                self._chunks = 0
        return self.write(self.pieces.feed(first_seq, events, now), now)

    def rest(self) -> list[bytes]:
        """Return the frames of all that was fed, to its very end: somebody else delivers what follows."""
        return self.write(self.pieces.rest(), self._now) + self._reach(self.fed)

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
            frames += [frame for piece in pieces for frame in self._piece(piece, now)]
        return frames

    def run(self, events: Sequence[Event]) -> list[bytes]:
        """Return the frames of the entries that follow, to the last one.

        What is neither text nor a reset only takes its number; at the end of a run, in a frame without text.
        """
        if are_texts(events):
            text = "".join([event.text for event in events])
            if len(text) * _WIDEST <= self._space:
                return [self._frame(text, self._seq + len(events), count=len(events))]
        found: list[bytes] = []
        texts: list[str] = []
        size = 0
        seq = self._seq

        def close() -> None:
            nonlocal size
            if texts:
                found.append(self._frame("".join(texts), seq, count=len(texts)))
                texts.clear()
                size = 0

        for event in events:
            if isinstance(event, Text):
                needed = _json_bytes(event.text)
                if size + needed > self._space:
                    close()
                frames, text = self._fit(event.text, seq)
                found += frames
                texts.append(text)
                size += _json_bytes(text) if frames else needed
            elif isinstance(event, Reset):
                close()
                found.append(self._frame("", seq + 1, reset=True))
            elif isinstance(event, End):
                continue
            seq += 1
        close()
        return found + self._reach(seq)

    def _piece(self, piece: Found, now: float) -> list[bytes]:
        """Return the frames of a piece; it is one, unless the text is too long for that."""
        if isinstance(piece, Voided):
            self._chunks = 0
            return [self._frame("", piece.seq, reset=True)]
        if isinstance(piece, Part):
            part = part_data(piece.event)
            if len(_encode(part)) > self._space:
                part = shortened(part)
            return [self._frame("", piece.seq, part=part)]
        found, text = self._fit(piece.text, self._seq)
        more: dict[str, Any] = {}
        if piece.taken:
            more["cursor"] = f"{piece.seq}.{piece.taken}"
        if piece.sentences:
            more["sentence_count"] = piece.sentences
        if self._progress is not None:
            more["progress"] = self._progress.at(piece.chunks, piece.characters, now)
        seq = piece.seq - 1 if piece.taken else piece.seq
        found.append(self._frame(text, seq, piece.taken, count=piece.chunks - self._chunks, **more))
        self._chunks = piece.chunks
        return found

    def _reach(self, seq: int) -> list[bytes]:
        """Return a frame without text for what comes after the place up to an entry, if there is any."""
        return [self._frame("", seq)] if seq > self._seq and not self._offset else []

    def _frame(self, text: str, seq: int, offset: int = 0, *, count: int = 0, **more: Any) -> bytes:
        """Return a ``MessageChunkReceived``, whose fields docs/broadcasting.md explains, and move on to its end."""
        data = {
            "message_id": self._message_id,
            "chunk": text,
            "seq": seq,
            "first_seq": self._seq + 1,
            "chunk_count": count,
            **({"offset": self._offset} if self._offset else {}),
            **more,
        }
        self._seq, self._offset = seq, offset
        return self._frames.event("MessageChunkReceived", self._channel, data)

    def _fit(self, text: str, seq: int) -> tuple[list[bytes], str]:
        """Return the frames of what is too much for one, and the rest of the text."""
        frames: list[bytes] = []
        while len(text) * _WIDEST > self._space and _json_bytes(text) > self._space:
            end = _fitting(text, self._space)
            frames.append(self._frame(text[:end], seq, self._offset + end))
            text = text[end:]
        return frames, text


def delivery_text(delivery: Delivery) -> str | None:
    """Return a delivery as a subscription keeps it: the same for all who want the same, None for every chunk."""
    return None if delivery == EVERY_CHUNK else msgspec.json.encode(delivery).decode()


def delivery_of(text: str) -> Delivery:
    """Return what a subscription keeps."""
    return msgspec.json.decode(text, type=Delivery)


def _json_bytes(text: str) -> int:
    """Return how many bytes a text has in JSON."""
    return len(_encode(text)) - 2  # without the quotes


def _fitting(text: str, space: int) -> int:
    """Return how many characters of a text fit into so many bytes of JSON."""
    return bisect_right(range(min(space, len(text)) + 1), space, key=lambda count: _json_bytes(text[:count])) - 1
