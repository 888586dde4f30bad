"""The simple protocol: the shapes of the page this project re-creates, byte-stable (docs/http.md).

One block of server-sent events for each chunk, a terminal block, no event names. An entry of the log
that has no shape here is not shown; its seq is simply skipped. Reasoning, tools and the ends of steps are shown to a
reader that asks for ``parts``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from tailrace.delivery import Found, Part, Piece, Voided
from tailrace.delivery.pieces import PART_EVENTS
from tailrace.events import Event, Message, Reset, Text
from tailrace.protocols.bounded import bounded
from tailrace.protocols.parts import part_data
from tailrace.protocols.reader import ENDED_EARLY, Object, Opening, ReaderProtocol, Reading, Shown

_encode = msgspec.json.Encoder().encode


class SimpleProtocol(ReaderProtocol):
    """The default; its arguments are ``ReaderProtocol``'s."""

    def __init__(self, opening: Opening, reading: Reading) -> None:
        super().__init__(opening, reading)
        self._parts = reading.parts
        name = self.message_id.encode()
        self._after_chunk = b',"message_id":"' + name + b'"}\nid: ' + name + b":%d\n\n"

    def events(self, first_seq: int, events: Sequence[Event]) -> bytes:
        """Return the blocks of consecutive events; empty when there is nothing to show."""
        if self.progress is not None or self._parts:
            return super().events(first_seq, events)
        # The hot path: one block is a few microseconds, and a batch is one bytes object for one send.
        blocks: list[bytes] = []
        for seq, event in enumerate(events, first_seq):
            if isinstance(event, Text):
                blocks.append(b'data: {"chunk":' + _encode(event.text) + self._after_chunk % seq)
            elif isinstance(event, Reset):
                blocks.append(self._encode(self.objects(seq, [event])))
        return b"".join(blocks)

    def objects(self, first_seq: int, events: Sequence[Event]) -> list[Shown]:
        """Return the chunks and resets among the entries."""
        found: list[Shown] = []
        for seq, event in enumerate(events, first_seq):
            if isinstance(event, Text):
                data: Object = {"chunk": event.text, "message_id": self.message_id}
                if self.progress is not None:
                    data["progress"] = self.progress.count(event.text, self.monotonic())
            elif isinstance(event, Reset):
                data = {"reset": True, "message_id": self.message_id}
                if self.progress is not None:
                    self.progress.reset()
            elif self._parts and isinstance(event, PART_EVENTS):
                data = {**part_data(event), "message_id": self.message_id}
            else:
                continue
            found.append(Shown(data, self.cursor(seq)))
        return found

    def piece_objects(self, pieces: Sequence[Found]) -> list[Shown]:
        """Return the pieces, whole sentences as such."""
        return [Shown(self._piece_data(piece), _piece_id(self.message_id, piece)) for piece in pieces]

    def end_objects(self, message: Message) -> list[Shown]:
        """Return the terminal event."""
        end_id = self.end_cursor(message)
        if message.status == "completed":
            return [Shown({"done": True, "message": bounded(message)}, end_id)]
        error = message.error or {}
        text = str(error.get("message", ENDED_EARLY))
        return [Shown(self._error_data(text, str(error.get("type", "general_error"))), end_id)]

    def failure_objects(self, seq: int, text: str, error_type: str) -> list[Shown]:
        """Return a terminal event with the id of the last chunk."""
        return [Shown(self._error_data(text, error_type), self.cursor(seq))]

    def polled(self, shown: Sequence[Shown]) -> list[Object]:
        """Return the same objects that are streamed, with the cursor in them."""
        return [{**each.data, "id": each.cursor} for each in shown]

    def _piece_data(self, piece: Found) -> dict[str, Any]:
        if isinstance(piece, Voided):
            return {"reset": True, "message_id": self.message_id}
        if isinstance(piece, Part):
            return {**part_data(piece.event), "message_id": self.message_id}
        data: dict[str, Any] = {"chunk": piece.text, "message_id": self.message_id}
        if piece.sentences:
            data = {"sentence": piece.text, "sentence_count": piece.sentences, "message_id": self.message_id}
        if self.progress is not None:
            data["progress"] = self.progress.at(piece.chunks, piece.characters, self.monotonic())
        return data

    def _error_data(self, text: str, error_type: str) -> dict[str, Any]:
        return {"error": True, "message": text, "error_type": error_type, "message_id": self.message_id}


def _piece_id(message_id: str, piece: Found) -> str:
    taken = "" if not isinstance(piece, Piece) or not piece.taken else f".{piece.taken}"
    return f"{message_id}:{piece.seq}{taken}"
