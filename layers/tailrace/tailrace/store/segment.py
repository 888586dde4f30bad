"""A segment's bytes: a run of consecutive events, packed.

MessagePack of ``[version, run, run, ...]``. Neighbouring pieces of text are one run, ``[0, text, [lengths]]``
(reasoning likewise with 1), so a chunk costs its text and one byte. Neighbouring pieces of one tool call's
arguments are ``[7, id, text, [lengths]]``. Every other event is a run ``[code, field, ...]`` of its own. Lengths
count characters. The first event's seq is not in here: it is an attribute of the item, and the rest follow on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from tailrace.errors import StoreError
from tailrace.events import (
    TEXTS,
    Approval,
    ApprovalRequest,
    Attempt,
    Citation,
    End,
    Event,
    ProviderState,
    Reasoning,
    Reset,
    StepEnd,
    Text,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
    ToolResult,
    ToolRun,
    Usage,
    are_texts,
)

VERSION: Final = 1

_PIECES: Final[dict[type, int]] = {Text: 0, Reasoning: 1}
_ABOUT: Final[dict[type, tuple[type, str]]] = {kind: (kind, "") for kind in _PIECES}
_ARGUMENTS: Final = 7
_Other = (
    ToolCall
    | Usage
    | Reset
    | End
    | ToolCallStart
    | ToolResult
    | Citation
    | Attempt
    | ProviderState
    | ToolRun
    | ApprovalRequest
    | StepEnd
    | Approval
)
_OTHERS: Final[tuple[tuple[int, type[_Other]], ...]] = (
    (2, ToolCall),
    (3, Usage),
    (4, Reset),
    (5, End),
    (6, ToolCallStart),
    (8, ToolResult),
    (9, Citation),
    (10, Attempt),
    (11, ProviderState),
    (12, ToolRun),
    (13, ApprovalRequest),
    (14, StepEnd),
    (15, Approval),
)
_CODE: Final[dict[type, int]] = {kind: code for code, kind in _OTHERS}
_KIND: Final = dict(_OTHERS)

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Any])


def pack(events: Sequence[Event]) -> bytes:
    """Return the events as a segment's bytes."""
    runs: list[Any] = [VERSION]
    pieces: list[str] = []
    current: tuple[type, str] | None = None  # what the pieces are of

    def close() -> None:
        if pieces and current is not None:
            kind, call = current
            run = [_ARGUMENTS, call] if kind is ToolCallDelta else [_PIECES[kind]]
            runs.append([*run, "".join(pieces), [len(piece) for piece in pieces]])
            pieces.clear()

    if are_texts(events):
        texts = [event.text for event in events]
        return _encoder.encode([VERSION, [_PIECES[Text], "".join(texts), [*map(len, texts)]]])
    for event in events:
        if isinstance(event, TEXTS):
            about = _ABOUT[type(event)]
            piece = event.text
        elif isinstance(event, ToolCallDelta):
            about = (ToolCallDelta, event.id)
            piece = event.arguments
        else:
            about = None
        if about is not current:
            if about != current:
                close()
            current = about
        if about is not None:
            pieces.append(piece)
        else:
            fields = [*msgspec.structs.astuple(event)]
            while fields and fields[-1] is None:  # the default of whatever may be None
                fields.pop()
            runs.append([_CODE[type(event)], *fields])
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
                events += [kind(piece) for piece in _cut(text, lengths)]
            elif code == _ARGUMENTS:
                call, text, lengths = fields
                events += [ToolCallDelta(call, piece) for piece in _cut(text, lengths)]
            else:
                events.append(_KIND[code](*fields))
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError) as error:
        raise StoreError("A stored segment cannot be read.") from error
    return events


def _cut(text: str, lengths: Sequence[int]) -> Iterator[str]:
    start = 0
    for length in lengths:
        yield text[start : start + length]
        start += length


def text_of(events: Sequence[Event]) -> str:
    """Return the content after ``events``: their text, void at each reset."""
    pieces: list[str] = []
    for event in events:
        if isinstance(event, Text):
            pieces.append(event.text)
        elif isinstance(event, Reset):
            pieces.clear()
    return "".join(pieces)
