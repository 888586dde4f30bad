"""The simple protocol: the shapes of the page this project re-creates, byte-stable (docs/http.md).

One block of server-sent events for each chunk, a terminal block, no event names. An entry of the log
that has no shape here (usage, reasoning, a tool call) is not shown; its seq is simply skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from tailrace.delivery import Piece, Progress, Voided
from tailrace.events import ENDED_BY_OTHERS, Event, Message, Reset, Text
from tailrace.protocols import sse

_encode = msgspec.json.Encoder().encode


class SimpleProtocol:
    """Encodes one reply for one reader.

    Args:
        message_id: whose events these are.
        progress: counts for the reader, or None when it did not ask.
        monotonic: the clock that progress is measured with, in seconds.
    """

    def __init__(self, message_id: str, progress: Progress | None, monotonic: Callable[[], float]) -> None:
        self._id = message_id.encode()
        self._progress = progress
        self._monotonic = monotonic
        self._after_chunk = b',"message_id":"' + self._id + b'"}\nid: ' + self._id + b":%d\n\n"

    def events(self, first_seq: int, events: Sequence[Event]) -> bytes:
        """Return the blocks of consecutive events; empty when there is nothing to show."""
        # The hot path: one block is a few microseconds, and a batch is one bytes object for one send.
        blocks: list[bytes] = []
        for seq, event in enumerate(events, first_seq):
            if isinstance(event, Text):
                if self._progress is None:
                    blocks.append(b'data: {"chunk":' + _encode(event.text) + self._after_chunk % seq)
                else:
                    blocks.append(self._with_progress(seq, event.text, self._progress))
            elif isinstance(event, Reset):
                if self._progress is not None:
                    self._progress.reset()
                blocks.append(self._block(seq, {"reset": True, "message_id": self._id.decode()}))
        return b"".join(blocks)

    def pieces(self, pieces: Sequence[Piece | Voided]) -> bytes:
        """Return the blocks of what a delivery made of the events."""
        return b"".join(
            sse.encode(_encode(self._piece_data(piece)), _piece_id(self._id.decode(), piece).encode())
            for piece in pieces
        )

    def end(self, message: Message) -> bytes:
        """Return the terminal block."""
        return sse.encode(_encode(self._end_data(message)), self._end_id(message).encode())

    def failure(self, seq: int, text: str, error_type: str) -> bytes:
        """Return a terminal block for a reply whose end could not be stored; ``seq`` is the last one sent."""
        return self._block(seq, self._error_data(text, error_type))

    # ---- the same as objects, for readers that poll ----

    def objects(self, first_seq: int, events: Sequence[Event]) -> list[dict[str, Any]]:
        """Return what ``events`` would put into blocks, each with its ``id``."""
        found: list[dict[str, Any]] = []
        for seq, event in enumerate(events, first_seq):
            if isinstance(event, Text):
                found.append(self._object(seq, {"chunk": event.text, "message_id": self._id.decode()}))
            elif isinstance(event, Reset):
                found.append(self._object(seq, {"reset": True, "message_id": self._id.decode()}))
        return found

    def piece_objects(self, pieces: Sequence[Piece | Voided]) -> list[dict[str, Any]]:
        """Return the same of what a delivery made of the events."""
        message_id = self._id.decode()
        return [{**self._piece_data(piece), "id": _piece_id(message_id, piece)} for piece in pieces]

    def end_object(self, message: Message) -> dict[str, Any]:
        """Return the terminal event."""
        return {**self._end_data(message), "id": self._end_id(message)}

    def _end_id(self, message: Message) -> str:
        # An id that no chunk can have, where others than the writer may have chosen the number (http/cursor.py).
        return f"{message.id}:{message.seq}" + (".0" if message.status in ENDED_BY_OTHERS else "")

    def _piece_data(self, piece: Piece | Voided) -> dict[str, Any]:
        message_id = self._id.decode()
        if isinstance(piece, Voided):
            return {"reset": True, "message_id": message_id}
        data: dict[str, Any] = {"chunk": piece.text, "message_id": message_id}
        if piece.sentences:
            data = {"sentence": piece.text, "sentence_count": piece.sentences, "message_id": message_id}
        if self._progress is not None:
            data["progress"] = self._progress.at(piece.chunks, piece.characters, self._monotonic())
        return data

    def _object(self, seq: int, data: dict[str, Any]) -> dict[str, Any]:
        return {**data, "id": f"{self._id.decode()}:{seq}"}

    def _end_data(self, message: Message) -> dict[str, Any]:
        if message.status == "completed":
            return {"done": True, "message": message}
        error = message.error or {}
        return self._error_data(
            str(error.get("message", "The reply ended early.")), str(error.get("type", "general_error"))
        )

    def _error_data(self, text: str, error_type: str) -> dict[str, Any]:
        return {"error": True, "message": text, "error_type": error_type, "message_id": self._id.decode()}

    def _with_progress(self, seq: int, text: str, progress: Progress) -> bytes:
        counts = progress.count(text, self._monotonic())
        return self._block(seq, {"chunk": text, "message_id": self._id.decode(), "progress": counts})

    def _block(self, seq: int, data: object) -> bytes:
        return sse.encode(_encode(data), self._id + b":%d" % seq)


def _piece_id(message_id: str, piece: Piece | Voided) -> str:
    taken = "" if isinstance(piece, Voided) or not piece.taken else f".{piece.taken}"
    return f"{message_id}:{piece.seq}{taken}"
