"""What both floor relays do with what they read: the provider's chunks, as events with ids."""

from __future__ import annotations

from typing import Final

import msgspec


class Delta(msgspec.Struct, gc=False):
    """What a chunk adds."""

    content: str | None = None


class Choice(msgspec.Struct, gc=False):
    """One of a chunk's answers."""

    delta: Delta


class Chunk(msgspec.Struct, gc=False):
    """A chunk."""

    choices: list[Choice]


DONE: Final = b"[DONE]"
_decode = msgspec.json.Decoder(Chunk).decode
_encode = msgspec.json.Encoder().encode


class Events:
    """One reply's."""

    def __init__(self) -> None:
        self._rest = b""
        self._number = 0

    def feed(self, data: bytes) -> bytes:
        """Return the events of what one read brought."""
        *events, self._rest = (self._rest + data).split(b"\n\n")
        blocks = []
        for event in events:
            body = event[6:]
            if body == DONE:
                blocks.append(b"data: [DONE]\n\n")
                continue
            choices = _decode(body).choices
            if choices and choices[0].delta.content:
                self._number += 1
                blocks.append(b'data: {"chunk":%b}\nid: %d\n\n' % (_encode(choices[0].delta.content), self._number))
        return b"".join(blocks)
