"""The frames of a reply's chunks, from one place in it on. Pure.

A frame says which entries of the log it stands for, from ``first_seq`` to ``seq``. ``seq`` is the cursor: the last
entry that a subscriber has whole after it. So ``first_seq`` is always the ``seq`` before it and one, and a larger one
is a gap, to be fetched by the cursor. Of a text that is too long for one frame, all frames but its last leave ``seq``
where it was; the later ones say with ``offset`` how many of its characters came before. A piece of a delivery may end
inside an entry: then ``cursor`` says how many characters of it came, and the next frame's ``offset`` says the same.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from tailrace.broadcast.frames import LARGEST_FRAME, Frames
from tailrace.delivery import Found, Part, Progress, Voided
from tailrace.events import End, Event, Reset, Text
from tailrace.protocols.parts import part_data, shortened

_FIGURES: Final = 400
"""Bytes that the numbers of a chunk may take: eleven of at most 20, and their names."""

_WIDEST: Final = 6
"""Bytes of JSON that a character may have: ``\\u0000``."""

_encode: Final = msgspec.json.Encoder().encode


class ChunkFrames:
    """Writes frames, one after the other, for whoever is at one place in a reply.

    Args:
        after: the last entry that the reader has whole.
        offset: how many characters it has of the next one.
        progress: counts for a reader of pieces, or None when it did not ask.

    Attributes:
        seq, offset: the place, now.
    """

    def __init__(
        self,
        frames: Frames,
        channel: str,
        message_id: str,
        *,
        after: int = 0,
        offset: int = 0,
        progress: Progress | None = None,
    ) -> None:
        self.seq = after
        self.offset = 0
        self._frames = frames
        self._channel = channel
        self._message_id = message_id
        self._progress = progress
        self._chunks = 0  # that the reader has of this answer; only pieces need to know
        self._space = LARGEST_FRAME - len(self._frame("", after)) - _FIGURES
        self.offset = offset

    def pass_over(self, events: Sequence[Event]) -> None:
        """Count the chunks among entries that the reader has."""
        for event in events:
            if isinstance(event, Text):
                self._chunks += 1
            elif isinstance(event, Reset):
                self._chunks = 0

    def run(self, events: Sequence[Event]) -> list[bytes]:
        """Return the frames of the entries that follow, to the last one.

        What is neither text nor a reset only takes its number; at the end of a run, in a frame without text.
        """
        found: list[bytes] = []
        texts: list[str] = []
        size = 0
        seq = self.seq

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
                *parts, text = self._parts(event.text)
                found += [self._frame(part, seq, self.offset + len(part)) for part in parts]
                texts.append(text)
                size += _json_bytes(text) if parts else needed
            elif isinstance(event, Reset):
                close()
                found.append(self._frame("", seq + 1, reset=True))
            elif isinstance(event, End):
                continue
            seq += 1
        close()
        return found + self.reach(seq)

    def piece(self, piece: Found, now: float) -> list[bytes]:
        """Return the frames of a piece; it is one, unless the text is too long for that.

        Args:
            now: seconds, by the clock that the progress was begun with.
        """
        if isinstance(piece, Voided):
            self._chunks = 0
            return [self._frame("", piece.seq, reset=True)]
        if isinstance(piece, Part):
            part = part_data(piece.event)
            if len(_encode(part)) > self._space:
                part = shortened(part)
            return [self._frame("", piece.seq, part=part)]
        *parts, text = self._parts(piece.text)
        found = [self._frame(part, self.seq, self.offset + len(part)) for part in parts]
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

    def reach(self, seq: int) -> list[bytes]:
        """Return a frame without text for what comes after the place up to an entry, if there is any."""
        return [self._frame("", seq)] if seq > self.seq and not self.offset else []

    def _frame(self, text: str, seq: int, offset: int = 0, *, count: int = 0, **more: Any) -> bytes:
        """Return a ``MessageChunkReceived``, whose fields docs/broadcasting.md explains, and move on to its end."""
        data = {
            "message_id": self._message_id,
            "chunk": text,
            "seq": seq,
            "first_seq": self.seq + 1,
            "chunk_count": count,
            **({"offset": self.offset} if self.offset else {}),
            **more,
        }
        self.seq, self.offset = seq, offset
        return self._frames.event("MessageChunkReceived", self._channel, data)

    def _parts(self, text: str) -> list[str]:
        """Return a text in parts that fit into a frame each."""
        parts: list[str] = []
        while len(text) * _WIDEST > self._space and _json_bytes(text) > self._space:
            end = _fitting(text, self._space)
            parts.append(text[:end])
            text = text[end:]
        return [*parts, text]


def _json_bytes(text: str) -> int:
    """Return how many bytes a text has in JSON."""
    return len(_encode(text)) - 2  # without the quotes


def _fitting(text: str, space: int) -> int:
    """Return how many characters of a text fit into so many bytes of JSON."""
    return bisect_right(range(min(space, len(text)) + 1), space, key=lambda count: _json_bytes(text[:count])) - 1
