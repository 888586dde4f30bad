"""The AI SDK's UI message stream as frames of a WebSocket (npm ``ai`` 7, ``WebSocketChatTransport``). Pure.

A frame is one message of the WebSocket, so each has one chunk, with a number that must follow on the one before:
https://ai-sdk.dev/docs/reference/ai-sdk-ui/websocket-chat-transport#wire-protocol

The chunks are those of the server-sent events, to the byte. What waits while a post is under way is joined, text to
text: fewer frames, which is what a connection is billed by, and a slow one catches up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from tailrace.errors import TooLarge
from tailrace.protocols.sse import KEEP_ALIVE

LONGEST_PIECE: Final = 20_000
"""Characters of one piece of text. A character is six bytes of JSON at most, so a piece fits into any frame."""

PIECES: Final = {
    "text-delta": ("id", "delta"),
    "reasoning-delta": ("id", "delta"),
    "tool-input-delta": ("toolCallId", "inputTextDelta"),
}
"""The chunks that are pieces of a longer text: what tells whose they are, and where the text is."""

PROGRESS: Final = "data-progress"
"""A chunk of which only the newest means something."""

STILL_THERE: Final = b'{"type":"keep-alive","requestId":""}'
"""A frame that the client leaves aside: it drops what belongs to no request of its own, whatever its type is."""

_END: Final = b"[DONE]"
_DATA: Final = b"data: "

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode


class ChunkFrames:
    """Makes the frames of one request.

    Args:
        request_id: as the client gave it.
        largest: bytes that a frame may have.

    Attributes:
        is_over: whether the end was among them.
    """

    def __init__(self, request_id: str, largest: int) -> None:
        self._about = b'"requestId":%b' % _encode(request_id)
        self._largest = largest
        self._sequence = 0
        self._tail = b""
        self.is_over = False

    def plain(self, kind: str) -> bytes:
        """Return a frame that says no more than its type: ``start``, ``end`` or ``no-active``."""
        return b'{"type":%b,%b}' % (_encode(kind), self._about)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the frames of server-sent events. They need not be whole; the rest of one is kept for the next call.

        Raises:
            TooLarge: a chunk that cannot be divided fits into no frame.
        """
        *blocks, self._tail = (self._tail + data).split(b"\n\n")
        chunks: list[bytes] = []
        for block in blocks:
            line = block[block.rfind(b"\n") + 1 :]  # a comment may stand before it
            if line.startswith(_DATA):
                chunks.append(line.removeprefix(_DATA))
        if self._tail == KEEP_ALIVE:
            self._tail = b""
            if not chunks:
                yield STILL_THERE
        ends = chunks[-1:] == [_END]
        for chunk in joined(chunks[:-1] if ends else chunks):
            yield self._frame(chunk)
        if ends:
            self.is_over = True
            yield self.plain("end")

    def _frame(self, chunk: bytes) -> bytes:
        frame = b'{"type":"chunk",%b,"sequence":%d,"chunk":%b}' % (self._about, self._sequence, chunk)
        if len(frame) > self._largest:
            raise TooLarge(
                "A part of this answer is longer than a message of a WebSocket may be. Read the answer over HTTP."
            )
        self._sequence += 1
        return frame


def joined(chunks: Sequence[bytes]) -> Iterator[bytes]:
    """Yield chunks, pieces of one text joined as far as a piece may go, and longer ones divided."""
    if len(chunks) == 1 and len(chunks[0]) <= LONGEST_PIECE:  # as nearly always
        yield chunks[0]
        return
    held: dict[str, Any] | None = None
    progress: bytes | None = None

    def released() -> Iterator[bytes]:
        nonlocal held, progress
        if held is not None:
            yield from _divided(held)
        if progress is not None:
            yield progress
        held = progress = None

    for chunk in chunks:
        value = _decode(chunk)
        kind = value["type"]
        if kind == PROGRESS:
            progress = chunk
            continue
        names = PIECES.get(kind)
        if names is None:
            yield from released()
            yield chunk
            continue
        whose, text = names
        if held is not None and _go_together(held, value, whose, text):
            held[text] += value[text]
            continue
        yield from released()
        held = value
    yield from released()


def _go_together(first: dict[str, Any], second: dict[str, Any], whose: str, text: str) -> bool:
    is_same = first["type"] == second["type"] and first[whose] == second[whose]
    return is_same and len(first[text]) + len(second[text]) <= LONGEST_PIECE


def _divided(value: dict[str, Any]) -> Iterator[bytes]:
    name = PIECES[value["type"]][1]
    text: str = value[name]
    for place in range(0, max(1, len(text)), LONGEST_PIECE):
        yield _encode({**value, name: text[place : place + LONGEST_PIECE]})
