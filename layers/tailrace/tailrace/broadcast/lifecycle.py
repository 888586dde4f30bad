"""Lifecycle events: what subscribers hear of a change in the table, whoever made it.

A relay that posts a reply's chunks announces the beginning itself, since only it can be in order with them, and
marks the message as ``feeding`` until its last chunk is posted. So the end is announced by the record in which the
message has ended *and* is not fed: the end itself, or the update that took the mark away. There is exactly one such
record for a message, because neither an open state nor the mark ever comes back.

Lambda repeats a batch of the stream from the first record that failed on, whatever was done of the rest
(https://docs.aws.amazon.com/lambda/latest/dg/services-ddb-batchfailurereporting.html). So nothing after a failure is
begun, and what was in flight beside it is remembered: this process does not announce a repeated record twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from tailrace.broadcast.channels import conversation_channel, is_channel, owner_channel
from tailrace.broadcast.fan_out import FanOut
from tailrace.broadcast.frames import Frames
from tailrace.broadcast.paged_fan_out import PagedFanOut
from tailrace.clock import Clock
from tailrace.errors import NotFound, StoreError, where
from tailrace.events import TERMINAL, ConversationRecord, Message
from tailrace.store import NEVER, Change, Image, Messages, StoredMessage, Subscription, change


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
    before, after = change.before, change.after
    told: Announcement | None = None
    if isinstance(after, ConversationRecord):
        if before is None:
            shown = {name: value for name, value in after.metadata.items() if name != "private"}
            subject = msgspec.structs.replace(after, metadata=shown)
            told = Announcement(channel=owner_channel(after.owner), what="created", subject=subject)
    elif after is not None and after.message.role != "system":
        begins = before is None and not after.feeding
        ends = before is not None and _is_over(after) and not _is_over(before)
        if begins or ends:
            told = Announcement(
                channel=after.channel or conversation_channel(after.message.conversation_id),
                what="created" if begins else "ended",
                subject=after.message,
                except_socket=after.except_socket,
                is_whole=after.is_whole,
            )
    # An owner may be any text; to what is no channel's name nobody can have subscribed.
    return told if told is not None and is_channel(told.channel) else None


def _is_over(image: Image) -> bool:
    return isinstance(image, StoredMessage) and image.message.status in TERMINAL and not image.feeding


CHANNELS_AT_ONCE: Final = 16
"""Channels that are told at a time. One channel's events follow each other."""

REMEMBERED: Final = 10_000
"""Records of which is known that they are done: some hundred batches."""

logger = logging.getLogger(__name__)


class Announced(msgspec.Struct, frozen=True):
    """What was done of a batch.

    Attributes:
        posts: how often the events were sent, to all their subscribers together.
        again_from: the sequence number of the first record that is not done, or None.
    """

    events: int
    posts: int
    again_from: str | None


class Announcer:
    """Announces changes. What cannot be announced at all is logged and passed over, so that it does not hold up
    the rest; what the store's state keeps from being announced now has to come again.

    Args:
        messages: where content is read that does not lie in the record.
    """

    def __init__(self, fan_out: FanOut | PagedFanOut, frames: Frames, messages: Messages, *, clock: Clock) -> None:
        self._fan_out = fan_out
        self._frames = frames
        self._messages = messages
        self._clock = clock
        self._done: dict[str, None] = {}

    async def announce(self, records: Sequence[Mapping[str, Any]], *, seconds: float) -> Announced:
        """Send what is to be told of the records.

        Args:
            records: of the table's stream, in its order.
            seconds: after which no other record is begun.
        """
        give_up = self._clock.monotonic() + seconds
        chains: dict[str, list[tuple[int, Change, Announcement]]] = {}
        for index, record in enumerate(records):
            try:
                heard = change(record)
            except StoreError as error:
                logger.error("record passed over", extra={"record": record.get("eventID"), "reason": error.message})
                continue
            told = None if heard.id in self._done else announcement(heard)
            if told is not None:
                chains.setdefault(told.channel, []).append((index, heard, told))
        events = posts = 0
        numbers = {index: heard.number for chain in chains.values() for index, heard, _ in chain}
        end = len(records)  # from there on nothing is begun: all of it comes again
        gate = asyncio.Semaphore(CHANNELS_AT_ONCE)

        async def tell(chain: Sequence[tuple[int, Change, Announcement]]) -> None:
            nonlocal events, posts, end
            async with gate:
                for index, heard, told in chain:
                    if self._clock.monotonic() >= give_up:
                        end = min(end, index)
                    if index >= end:
                        return
                    try:
                        posted = await self._send(told)
                    except StoreError as error:
                        logger.error("record comes again", extra={"record": heard.id, "reason": error.message})
                        end = min(end, index)
                        return
                    except Exception as error:  # a bug; having it again and again would keep all others waiting
                        logger.error("record passed over", extra={"record": heard.id, **where(error)})
                    else:
                        events += 1
                        posts += posted
                        self._remember(heard.id)

        async with asyncio.TaskGroup() as tasks:
            for chain in chains.values():
                tasks.create_task(tell(chain))
        return Announced(events, posts, numbers.get(end))

    async def _send(self, told: Announcement) -> int:
        if not told.is_whole and isinstance(told.subject, Message):
            try:
                # A message that was stored whole or has ended never changes: this is what the record means.
                whole = await self._messages.get(told.subject.id)
            except NotFound:
                return 0  # pruned since: there is nothing to tell any more
            told = msgspec.structs.replace(told, subject=whole, is_whole=True)
        sent = await self._fan_out.send(
            told.channel, [told.frame(self._frames)], except_socket=told.except_socket, wants=told.is_for
        )
        return sent.posted

    def _remember(self, record: str) -> None:
        self._done[record] = None
        while len(self._done) > REMEMBERED:
            del self._done[next(iter(self._done))]
