"""What subscribers are sent: frames, as npm ``laravel-echo-api-gateway`` 0.5.5 reads them. Pure.

Nothing private is in a frame: a ``Message`` carries neither private metadata nor a prompt, and system messages are
refused here.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from tailrace.clock import rfc3339
from tailrace.errors import TooLarge
from tailrace.events import ConversationRecord, Message

LARGEST_FRAME: Final = 131_072
"""Bytes in one message to a client
(https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html)."""

SUCCEEDED: Final = "subscription_succeeded"
"""The event that answers a subscription."""

_encode: Final = msgspec.json.Encoder().encode


class _Frame(msgspec.Struct):
    event: str
    channel: str | msgspec.UnsetType | None = msgspec.UNSET
    data: Any = msgspec.UNSET


def frame(event: str, channel: str | msgspec.UnsetType | None = msgspec.UNSET, data: Any = msgspec.UNSET) -> bytes:
    """Return a frame: ``{"event", "channel", "data"}``, the last two only when they are given.

    Args:
        event: its whole name.
        data: what msgspec writes as JSON.

    Raises:
        TooLarge: it is over 128 KB.
    """
    encoded = _encode(_Frame(event, channel, data))
    if len(encoded) > LARGEST_FRAME:
        raise TooLarge(f"The event has more than {LARGEST_FRAME} bytes.")
    return encoded


class Frames:
    """The frames of our own events, and of a user's.

    Args:
        namespace: stands before each event's name, such as ``App\\Events\\``.
    """

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace

    def event(self, name: str, channel: str, data: Any) -> bytes:
        """Return the frame of an event by its name without the namespace.

        Raises:
            TooLarge: it is over 128 KB.
        """
        return frame(self._namespace + name, channel, data)

    def message_created(self, channel: str, message: Message) -> bytes:
        """Return the frame that says that a message is there; a reply's content is still empty."""
        return self._message("MessageCreated", channel, message, {})

    def message_ended(self, channel: str, message: Message) -> bytes:
        """Return ``MessageCompleted``, or ``MessageFailed`` for every other end; it carries the whole message."""
        if message.status == "completed":
            return self._message("MessageCompleted", channel, message, {})
        error = message.error or {}
        return self._message(
            "MessageFailed", channel, message, {"error": error.get("message"), "error_type": error.get("type")}
        )

    def conversation_created(self, channel: str, record: ConversationRecord) -> bytes:
        """Return the frame that says that a conversation is there, without its system prompt and its owner."""
        shown = {
            "id": record.id,
            "title": record.title,
            "metadata": record.metadata,
            "created_at": rfc3339(record.created),
            "updated_at": rfc3339(record.updated),
        }
        data = {"conversation_id": record.id, "conversation": shown}
        return self._shortened("ConversationCreated", channel, data, shown, {"metadata": {}})

    def _message(self, name: str, channel: str, message: Message, more: dict[str, Any]) -> bytes:
        if message.role == "system":
            raise ValueError("a system message is never sent")
        shown = msgspec.structs.asdict(message)
        data = {"message_id": message.id, "conversation_id": message.conversation_id, **more, "message": shown}
        return self._shortened(name, channel, data, shown, {"content": "", "metadata": {}})

    def _shortened(
        self, name: str, channel: str, data: dict[str, Any], shown: dict[str, Any], empty: dict[str, Any]
    ) -> bytes:
        """Return the frame. While it is too large, what may be long is emptied, one field after the other."""
        try:
            return self.event(name, channel, data)
        except TooLarge:
            if not empty:
                raise
        data["truncated"] = True
        field, *_ = empty
        shown[field] = empty.pop(field)
        return self._shortened(name, channel, data, shown, empty)
