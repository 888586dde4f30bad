"""What a provider wants back with the history: signed or encrypted thoughts, which only it can read.

An answer's parser gathers it with its place among the text and the calls, and yields it as one ``ProviderState`` when
the answer is whole. It is logged and stored privately, and goes back to the provider that made it and to no other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from tailrace.events import ProviderState, ToolCall
from tailrace.providers import PromptMessage
from tailrace.providers.tolerant import json_text


class Piece(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something of an answer, in its order; what lies between two of them is text.

    Attributes:
        at: how many characters of the answer's text come before it.
        block: the provider's own block, to be sent as it is.
        call: the id of a tool call, which has its place here.
        length: characters of text from here on that ``extra`` belongs to.
        extra: what goes with the call or the text.
    """

    at: int
    block: dict[str, Any] | None = None
    call: str | None = None
    length: int = 0
    extra: Any = None


class Kept:
    """Gathers the state of one answer.

    Attributes:
        characters: of text that came so far.
    """

    def __init__(self) -> None:
        self.characters = 0
        self._pieces: list[Piece] = []
        self._is_needed = False

    def block(self, block: dict[str, Any]) -> None:
        """Keep a block of the provider's own."""
        self._pieces.append(Piece(self.characters, block))
        self._is_needed = True

    def call(self, call_id: str, extra: Any = None) -> None:
        """Keep the place of a call, and what goes with it."""
        self._pieces.append(Piece(self.characters, call=call_id, extra=extra))
        self._is_needed |= extra is not None

    def text(self, length: int, extra: Any) -> None:
        """Keep what goes with the last characters that came."""
        self._pieces.append(Piece(self.characters - length, length=length, extra=extra))
        self._is_needed = True

    def state(self, provider: str) -> list[ProviderState]:
        """Return the state as events: one, or none where there is nothing to send back."""
        return [ProviderState(provider, json_text(msgspec.to_builtins(self._pieces)))] if self._is_needed else []


def pieces_of(message: PromptMessage, provider: str) -> list[Piece] | None:
    """Return what a provider wants back with a message; None when there is nothing of its own."""
    state = message.state
    if state is None or state.provider != provider:
        return None
    try:
        return msgspec.json.decode(state.data, type=list[Piece])
    except msgspec.MsgspecError:  # of another version of this module
        return None


def arranged(message: PromptMessage, pieces: list[Piece]) -> Iterator[tuple[str | ToolCall | dict[str, Any], Any]]:
    """Yield text, calls and blocks in the answer's order, each with what goes with it. Calls that are not in the
    prompt, since nobody answered them, are left out; those that the state does not know come last."""
    calls = {call.id: call for call in message.tool_calls}
    text, at = message.content, 0
    for piece in pieces:
        if piece.at > at and text[at : piece.at]:
            yield text[at : piece.at], None
        at = max(at, piece.at)
        if piece.block is not None:
            yield piece.block, None
        elif piece.call is not None:
            if (call := calls.pop(piece.call, None)) is not None:
                yield call, piece.extra
        else:
            yield text[at : at + piece.length], piece.extra
            at += piece.length
    if text[at:]:
        yield text[at:], None
    for call in calls.values():
        yield call, None
