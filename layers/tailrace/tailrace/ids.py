"""Identifiers that say where a message lies, to us and to nobody else.

A message id is 35 bytes in URL-safe base64: the tag of its conversation (12), its position (7), and 16
random ones. So one id is enough to address the item, with no index to wait for, and yet it does not
reveal the conversation's id: the tag is a one-way hash of it. 128 random bits make it unguessable.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from random import SystemRandom
from typing import Final

import msgspec

from tailrace.errors import NotFound

RandomBytes = Callable[[int], bytes]
"""``os.urandom``, or a seeded stand-in for tests."""

JITTER: Final = SystemRandom().random
"""Gives a number in [0, 1), for the wait before another try. The system's: a seed would be the same in all processes
that Lambda restores from one snapshot (SnapStart)."""

_TAG, _POSITION, _RANDOM = 12, 7, 16

MESSAGE_ID_LENGTH: Final = 47
"""Characters of a message's id."""


def _encode(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str, length: int, what: str) -> bytes:
    try:
        raw = urlsafe_b64decode(text + "=" * (-len(text) % 4)) if text.isascii() else b""
    except ValueError:
        raw = b""
    # Base64 decoding forgives stray characters and bits; only the one spelling we made is ours.
    if len(raw) != length or _encode(raw) != text:
        raise NotFound(f"No such {what}.")
    return raw


class MessageAddress(msgspec.Struct, frozen=True):
    """Where a message lies.

    Attributes:
        tag: the conversation's partition.
        position: microseconds since 1970, what messages of a conversation are ordered by.
        random: 16 random bytes.
    """

    tag: str
    position: int
    random: str


def new_conversation_id(random_bytes: RandomBytes) -> str:
    """Return a new conversation id: 128 random bits."""
    return _encode(random_bytes(_RANDOM))


def page_conversation_id(owner: str, page_id: str) -> str:
    """Return the id of the conversation that a page knows by an id of its own, such as ``useChat``'s.

    It is a one-way hash of both, so the same id of somebody else is another conversation.
    """
    digest = hashlib.sha256(b"tailrace page" + msgspec.json.encode([owner, page_id])).digest()
    return _encode(digest[:_RANDOM])


def conversation_tag(conversation_id: str) -> str:
    """Return the partition of a conversation.

    Raises:
        NotFound: the text is not a conversation id.
    """
    raw = _decode(conversation_id, _RANDOM, "conversation")
    return _encode(hashlib.sha256(b"tailrace conversation" + raw).digest()[:_TAG])


def new_message_id(conversation_id: str, position: int, random_bytes: RandomBytes) -> str:
    """Return the id of a message at ``position`` (microseconds since 1970) of a conversation."""
    return message_id(conversation_tag(conversation_id), position, _encode(random_bytes(_RANDOM)))


def message_id(tag: str, position: int, random: str) -> str:
    """Return the id that has this address."""
    raw = _decode(tag, _TAG, "conversation") + position.to_bytes(_POSITION, "big")
    return _encode(raw + _decode(random, _RANDOM, "message"))


def message_address(text: str) -> MessageAddress:
    """Return where a message lies.

    Raises:
        NotFound: the text is not a message id.
    """
    raw = _decode(text, _TAG + _POSITION + _RANDOM, "message")
    return MessageAddress(
        tag=_encode(raw[:_TAG]),
        position=int.from_bytes(raw[_TAG : _TAG + _POSITION], "big"),
        random=_encode(raw[_TAG + _POSITION :]),
    )
