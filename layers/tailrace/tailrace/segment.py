"""A segment's bytes: a run of consecutive events, packed.

MessagePack of ``[version, run, run, ...]``. Neighbouring pieces of text are one run, ``[0, text, [lengths]]``
(reasoning likewise with 1), so a chunk costs its text and one byte; every other event is a run
``[code, field, ...]`` of its own. Lengths count characters. The first event's seq is not in here: it is
an attribute of the item, and the rest follow on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from tailrace.errors import StoreError
from tailrace.events import End, Event, Reasoning, Reset, Text, ToolCall, Usage

VERSION: Final = 1

_PIECES: Final[dict[type, int]] = {Text: 0, Reasoning: 1}
_OTHERS: Final[tuple[tuple[int, type[ToolCall | Usage | Reset | End]], ...]] = (
    (2, ToolCall),
    (3, Usage),
    (4, Reset),
    (5, End),
)
_CODE: Final[dict[type, int]] = {kind: code for code, kind in _OTHERS}
_KIND: Final = dict(_OTHERS)

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Any])


def pack(events: Sequence[Event]) -> bytes:
    """Return the events as a segment's bytes."""
    runs: list[Any] = [VERSION]
    pieces: list[str] = []
    current: type | None = None

    def close() -> None:
        if pieces and current is not None:
            runs.append([_PIECES[current], "".join(pieces), [len(piece) for piece in pieces]])
            pieces.clear()

    for event in events:
        kind = type(event)
        if kind is not current:
            close()
            current = kind
        if isinstance(event, Text | Reasoning):
            pieces.append(event.text)
        else:
            runs.append([_CODE[kind], *msgspec.structs.astuple(event)])
    close()
    return _encoder.encode(runs)


def unpack(data: bytes) -> list[Event]:
    """Return the events of a segment's bytes.

    Raises:
        StoreError: the bytes are not a segment this version can read.
    """
    try:
        version, *runs = _decoder.decode(data)
        if version != VERSION:
            raise StoreError("A stored segment was written by a newer version.")
        events: list[Event] = []
        for code, *fields in runs:
            if code in (0, 1):
                text, lengths = fields
                kind = Text if code == 0 else Reasoning
                start = 0
                for length in lengths:
                    events.append(kind(text[start : start + length]))
                    start += length
            else:
                events.append(_KIND[code](*fields))
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError) as error:
        raise StoreError("A stored segment cannot be read.") from error
    return events


def text_of(events: Sequence[Event]) -> str:
    """Return the content after ``events``: their text, void at each reset."""
    pieces: list[str] = []
    for event in events:
        if isinstance(event, Text):
            pieces.append(event.text)
        elif isinstance(event, Reset):
            pieces.clear()
    return "".join(pieces)
