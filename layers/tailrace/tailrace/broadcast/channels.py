"""Channels: what their names mean, and the signature that opens the private ones. Pure.

Names and signatures are Pusher's, as Laravel Echo's clients expect them
(https://pusher.com/docs/channels/library_auth_reference/auth-signatures/), but for the key that Pusher puts
before the signature, which the API Gateway driver leaves out.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Final, Literal

from tailrace.errors import RequestError

Kind = Literal["public", "private", "presence"]

LONGEST_NAME: Final = 255
"""Characters of a channel's name. It is part of a DynamoDB key, which may have 2,048 bytes."""

# Those of API Gateway are about 16 characters of base64; how long they may get is not documented.
_SOCKET_ID: Final = re.compile(r"[A-Za-z0-9_=-]{1,128}")
_OF_CONVERSATION: Final = re.compile(r"(?:private-|presence-)?conversation\.(.+)")
_OF_OWNER: Final = "private-user."


def check_channel(channel: str) -> str:
    """Return the name of a channel.

    Raises:
        RequestError: it is no name of one.
    """
    if not is_channel(channel):
        raise RequestError(f"A channel's name has 1 to {LONGEST_NAME} printable characters, and no space or brace.")
    return channel


def is_channel(name: str) -> bool:
    """Return whether a channel may have that name."""
    # Without a brace in it, no name and the member after it can be signed as if they were another name.
    return 0 < len(name) <= LONGEST_NAME and name.isprintable() and " " not in name and "{" not in name


def check_socket_id(text: str) -> str:
    """Return a socket id, which is a connection id of API Gateway.

    Raises:
        RequestError: it cannot be one.
    """
    if _SOCKET_ID.fullmatch(text) is None:
        raise RequestError("The socket id is not one of ours.")
    return text


def kind_of(channel: str) -> Kind:
    """Return who may subscribe: anybody, whoever has a signature, or such with a member's data in it."""
    if channel.startswith("private-"):
        return "private"
    return "presence" if channel.startswith("presence-") else "public"


def conversation_channel(conversation_id: str) -> str:
    """Return where subscribers hear of a conversation when a start names no channel."""
    return f"conversation.{conversation_id}"


def owner_channel(owner: str) -> str:
    """Return where an owner hears of new conversations."""
    return _OF_OWNER + owner


def conversation_of(channel: str) -> str | None:
    """Return the id of the conversation that a channel is about, or None."""
    match = _OF_CONVERSATION.fullmatch(channel)
    return None if match is None else match[1]


def owner_of(channel: str) -> str | None:
    """Return whose channel this is, or None."""
    return channel.removeprefix(_OF_OWNER) if channel.startswith(_OF_OWNER) else None


def signature(secret: str, socket_id: str, channel: str, channel_data: str | None = None) -> str:
    """Return what lets a socket into a private or presence channel: HMAC-SHA256 as lowercase hex.

    Args:
        channel_data: the member as JSON text, of a presence channel.
    """
    signed = f"{socket_id}:{channel}" if channel_data is None else f"{socket_id}:{channel}:{channel_data}"
    return hmac.new(secret.encode(), signed.encode(), hashlib.sha256).hexdigest()


def is_signed(auth: str, secret: str, socket_id: str, channel: str, channel_data: str | None = None) -> bool:
    """Return whether ``auth`` is the signature. Takes the same time whatever is wrong with it."""
    expected = signature(secret, socket_id, channel, channel_data)
    return hmac.compare_digest(expected.encode(), auth.encode(errors="replace"))
