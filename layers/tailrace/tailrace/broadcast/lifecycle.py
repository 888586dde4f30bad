"""Lifecycle events: what subscribers hear of a change in the table, whoever made it. Pure.

A relay that posts a reply's chunks announces the beginning itself, since only it can be in order with them, and
marks the message as ``feeding`` until its last chunk is posted. So the end is announced by the record in which the
message has ended *and* is not fed: the end itself, or the update that took the mark away. There is exactly one such
record for a message, because neither an open state nor the mark ever comes back.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from tailrace.broadcast.channels import check_channel, conversation_channel, owner_channel
from tailrace.broadcast.frames import Frames
from tailrace.errors import RequestError
from tailrace.events import TERMINAL, ConversationRecord, Message
from tailrace.store import NEVER, Change, Image, StoredMessage, Subscription


class Announcement(msgspec.Struct, frozen=True, kw_only=True):
    """What the subscribers of a channel are told.

    Attributes:
        what: of its subject: ``created`` or ``ended``.
        except_socket: the socket that is left out, or None.
        is_whole: whether the message has its content; if not, it has to be read first.
    """

    channel: str
    what: Literal["created", "ended"]
    subject: Message | ConversationRecord
    except_socket: str | None = None
    is_whole: bool = True

    def is_for(self, subscription: Subscription) -> bool:
        """Return whether a subscriber gets this.

        One that asked for a reply's earlier entries knows of its beginning. While it is being caught up it gets
        nothing else of that reply, and if there was an end by then, it has had that too.
        """
        begins = subscription.starts.get(self.subject.id)
        return begins is None or (self.what == "ended" and begins != NEVER)

    def frame(self, frames: Frames) -> bytes:
        """Return what is sent to each subscriber."""
        if isinstance(self.subject, ConversationRecord):
            return frames.conversation_created(self.channel, self.subject)
        if self.what == "created":
            return frames.message_created(self.channel, self.subject)
        return frames.message_ended(self.channel, self.subject)


def announcement(change: Change) -> Announcement | None:
    """Return what is announced of a change; None when it is nothing for subscribers."""
    told = _announcement(change)
    if told is not None:
        try:
            check_channel(told.channel)
        except RequestError:  # an owner may be any text; to what is no channel's name nobody can have subscribed
            return None
    return told


def _announcement(change: Change) -> Announcement | None:
    before, after = change.before, change.after
    if isinstance(after, ConversationRecord):
        if before is not None:
            return None
        shown = {name: value for name, value in after.metadata.items() if name != "private"}
        subject = msgspec.structs.replace(after, metadata=shown)
        return Announcement(channel=owner_channel(after.owner), what="created", subject=subject)
    if after is None or after.message.role == "system":
        return None
    if before is None:
        return None if after.feeding else _about(after, "created")
    return _about(after, "ended") if _is_over(after) and not _is_over(before) else None


def _is_over(image: Image) -> bool:
    return isinstance(image, StoredMessage) and image.message.status in TERMINAL and not image.feeding


def _about(stored: StoredMessage, what: Literal["created", "ended"]) -> Announcement:
    return Announcement(
        channel=stored.channel or conversation_channel(stored.message.conversation_id),
        what=what,
        subject=stored.message,
        except_socket=stored.except_socket,
        is_whole=stored.is_whole,
    )
