"""Server-sent events: bytes to events, and events to bytes. Pure: no socket, no clock.

A decoder of our own, because it is the hot loop: from the provider's socket to a typed event the budget
is 1.5 times an asyncio + httptools + msgspec floor of 2.2 to 2.8 µs a chunk, and no library's decoder fits it.
httpx-sse works line by line on ``str`` and its import brings httpx; httpx2's ``.sse()`` takes 38 to 47 µs a chunk from
the socket, we 3.2 to 4.1 (``benchmarks/provider_read.py``), of which this decoder is about 0.5: it works on ``bytes``
and leaves text to msgspec, which reads JSON from bytes anyway. httpx-sse is the independent judge in the tests.

The rules are WHATWG's: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
Two deliberate oddities: ``retry`` is ignored, since nobody here reconnects to a provider in mid-answer, and
malformed UTF-8 is handed on as it came, since the JSON decoder refuses it.
"""

from __future__ import annotations

import msgspec

BOM = b"\xef\xbb\xbf"
KEEP_ALIVE = b":\n"
"""A comment alone on its line, without a blank line after it: openai-python fails on a blank line that ends
no event (wire.md, section 3)."""

LIMIT = 16 * 1024 * 1024
"""How many bytes one event may have by default: far over any real one, far under a function's memory."""


class EventTooLargeError(ValueError):
    """One event is larger than the decoder's limit."""


class ServerSentEvent(msgspec.Struct, frozen=True, gc=False):
    """One event, undecoded.

    Attributes:
        data: the ``data`` lines, joined by line feeds.
        event: the event's name; empty where the standard says ``message``.
        id: the last event id seen, this event's or an earlier one's.
    """

    data: bytes
    event: bytes = b""
    id: bytes = b""


class SSEDecoder:
    """Turns reads of any size into whole events. What is unfinished waits for the next read.

    Args:
        limit: bytes one event may have, its field names and comments included.
        keeps_bare: whether a block that begins as JSON, which the standard ignores, is an event named ``error``: that
            is how some servers report one in the middle of a stream.
    """

    def __init__(self, limit: int = LIMIT, *, keeps_bare: bool = False) -> None:
        self._limit = limit
        self._keeps_bare = keeps_bare
        self._begin: bytes | None = b""  # what may yet become a byte order mark; None once that is settled
        self._after_cr = False  # the last read ended in CR: an LF that comes next belongs to it
        self._tail = bytearray()  # an unfinished event, with LF line ends
        self._id = b""

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Return the events that ``data`` completes, in order.

        Raises:
            EventTooLargeError: an event is over the limit. The decoder is of no use after that.
        """
        if self._begin is not None:
            data = self._without_bom(data)
        if self._after_cr or b"\r" in data:
            data = self._with_lf(data)
        tail = self._tail
        if not tail and data.startswith(b"data: ") and data.endswith(b"\n\n") and data.count(b"\n") == 2:
            # A read that is one event, as a provider sends them while it thinks of the next.
            return [ServerSentEvent(data[6:-2], b"", self._id)]
        if tail:
            searched = len(tail) - 1
            tail += data
            if tail.find(b"\n\n", searched) < 0:  # only what is new, or a long event would cost its square
                if len(tail) > self._limit + 1:
                    raise EventTooLargeError(f"an event of more than {self._limit} bytes")
                return []
            data = bytes(tail)
            tail.clear()
        end = data.rfind(b"\n\n")
        if end < 0:
            tail += data
            whole = b""
        else:
            tail += data[end + 2 :]
            whole = data[:end]
        if len(data) > self._limit:
            self._check_sizes(whole)
        if whole.startswith(b"data: "):
            # The shape of the chat completions wire: one data line an event and nothing else. If no line feed is
            # left but those between the events, splitting in C was all the parsing there is to do.
            pieces = whole[6:].split(b"\n\ndata: ")
            if whole.count(b"\n") == 2 * len(pieces) - 2:
                last_id = self._id
                return [ServerSentEvent(piece, b"", last_id) for piece in pieces]
        elif whole.startswith(b"event: "):
            # The shape of the Messages wire: a name and a data line. One "\\ndata: " in each piece, and no line feed
            # beyond those, means one data line each.
            pieces = whole[7:].split(b"\n\nevent: ")
            if whole.count(b"\n") == 3 * len(pieces) - 2:
                last_id = self._id
                events: list[ServerSentEvent] = []
                for piece in pieces:
                    name, found, payload = piece.partition(b"\ndata: ")
                    if not found:
                        break
                    events.append(ServerSentEvent(payload, name, last_id))
                else:
                    return events
        return self._parse(whole) if whole else []

    @property
    def rest(self) -> bytes:
        """What came after the last whole event, with LF line ends."""
        return bytes(self._tail)

    def flush(self) -> bool:
        """Drop an unfinished event, as the standard says, and return whether there was one. The decoder is
        then as new, but for the last event id."""
        unfinished = bool(self._tail) and self._tail != b"\n"
        self._tail.clear()
        self._begin = b""
        self._after_cr = False
        return unfinished

    def _parse(self, whole: bytes) -> list[ServerSentEvent]:
        """The general path. A block between blank lines is one event; line feeds left at its rim are empty lines."""
        events: list[ServerSentEvent] = []
        for block in whole.split(b"\n\n"):
            event = b""
            lines: list[bytes] = []
            for line in block.split(b"\n"):
                field, _, value = line.partition(b":")
                if value.startswith(b" "):
                    value = value[1:]
                if field == b"data":
                    lines.append(value)
                elif field == b"event":
                    event = value
                elif field == b"id" and b"\0" not in value:
                    self._id = value
            if lines:
                events.append(ServerSentEvent(b"\n".join(lines), event, self._id))
            elif self._keeps_bare and block.lstrip()[:1] in (b"{", b"["):
                events.append(ServerSentEvent(block, b"error", self._id))
        return events

    def _check_sizes(self, whole: bytes) -> None:
        largest = max(map(len, whole.split(b"\n\n")))
        if largest > self._limit or len(self._tail) > self._limit + 1:
            raise EventTooLargeError(f"an event of more than {self._limit} bytes")

    def _without_bom(self, data: bytes) -> bytes:
        begin = (self._begin or b"") + data
        if len(begin) < len(BOM) and BOM.startswith(begin):
            self._begin = begin
            return b""
        self._begin = None
        return begin.removeprefix(BOM)

    def _with_lf(self, data: bytes) -> bytes:
        if not data:
            return data
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
        self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def encode(data: bytes, event_id: bytes | None = None) -> bytes:
    """One event as bytes: the data, then the id, LF line ends.

    Args:
        data: one line, as a JSON encoder writes it; it is not searched for line ends.
        event_id: without line ends and NUL, or None for none.
    """
    if event_id is None:
        return b"data: %b\n\n" % data
    return b"data: %b\nid: %b\n\n" % (data, event_id)
