"""A message for whoever has its text already: a very long one goes without."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from tailrace.events import Message

LARGEST_CONTENT: Final = 1_000_000
"""Bytes of content that a message may have where its text was sent before, or can be had otherwise."""


def bounded(message: Message, largest: int = LARGEST_CONTENT) -> Message | dict[str, Any]:
    """Return a message; one with more content without it, and with ``"truncated": true``.

    Args:
        largest: bytes of content.
    """
    # A character is four bytes at most: nearly always nothing has to be counted.
    if len(message.content) * 4 <= largest or len(message.content.encode()) <= largest:
        return message
    shown: dict[str, Any] = msgspec.to_builtins(message)
    return {**shown, "content": "", "truncated": True}
