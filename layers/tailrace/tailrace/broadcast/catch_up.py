"""Catching up: a new subscriber gets the entries of a reply that it missed, in order, before those that come live.

1. The subscription is put closed for the reply: no fan-out sends it anything of that.
2. What is in the log beyond the subscriber's cursor is posted, and the posts are waited for.
3. One transaction opens the subscription from segment *n* on, the next one, on the condition that there is no segment
   *n* yet. If there is one, back to 2.

A fan-out of a segment looks for subscribers after the segment was stored. If the transaction came before the segment,
that look sees the subscription open, and the fan-out sends it; if it came after, the condition fails, and it is read
and posted here. So there is neither gap nor double, and since the posts were waited for, no disorder either. A reply
whose end is in the log stays closed for this subscriber, and the end is posted here.

That holds for a socket that was not subscribed before. If it was, a fan-out that saw it open may still be posting:
such a client has to look at ``seq``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from tailrace.broadcast.channels import conversation_channel
from tailrace.broadcast.chunk_frames import ChunkFrames
from tailrace.broadcast.client_frames import place_of
from tailrace.broadcast.fan_out import FanOut
from tailrace.broadcast.frames import Frames
from tailrace.clock import Clock
from tailrace.delivery import Delivery
from tailrace.errors import NotFound, RequestError, StoreError
from tailrace.events import ENDED_BY_OTHERS, TERMINAL, End, Event, Text
from tailrace.ids import message_address
from tailrace.store import Open, Store

MOST_MESSAGES: Final = 20
"""Messages that one subscribe may name: each costs reads, and a transaction."""

SECONDS: Final = 20.0
"""After which a catch-up gives up. API Gateway waits for an integration for 29 seconds
(https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html)."""

AHEAD_SECONDS: Final = 2.0
"""How long the log may take to reach a cursor that is ahead of it: of a reader of the starting connection, which is a
flush ahead. Longer is a writer that died, or a cursor that nobody gave."""

PAUSE: Final = 0.05
"""Seconds between two looks at a log that has not reached the cursor."""


class CatchUp:
    """Catches subscribers up."""

    def __init__(self, store: Store, fan_out: FanOut, frames: Frames, clock: Clock) -> None:
        self.store = store
        self.fan_out = fan_out
        self.frames = frames
        self.clock = clock

    async def missed(
        self, channel: str, socket: str, after: Mapping[str, int | str], delivery: Delivery
    ) -> list[MissedReply]:
        """Return those of the messages that are replies on this channel, in their order; others are left out without
        a word, so that nothing is learnt of them.

        Args:
            after: message id to the last seq that the subscriber has, or to its cursor.

        Raises:
            RequestError: a reply is being written that is not sent to this socket.
            StoreError: the table cannot be read.
        """
        found: list[MissedReply] = []
        for message_id, cursor in after.items():
            place = place_of(cursor)
            message = await self._peek(message_id)
            if message is None or message.role != "assistant":
                continue
            if (message.channel or conversation_channel(message.conversation_id)) == channel:
                if message.except_socket == socket and message.status not in TERMINAL:
                    raise RequestError("This socket is left out of the reply (X-Socket-ID). Follow it by HTTP.")
                found.append(MissedReply(self, channel, socket, message_id, message, place, delivery))
        return sorted(found, key=lambda each: message_address(each.id).position)

    async def run(self, missed: Sequence[MissedReply]) -> None:
        """Post what was missed and let the rest come live. The subscription was put closed for these replies.

        Raises:
            StoreError: the table cannot be read or written, or the replies grow faster than they can be read.
        """
        give_up = self.clock.monotonic() + SECONDS
        for each in missed:
            if not each.is_whole:
                await each.run(give_up)

    async def _peek(self, message_id: str) -> Open | None:
        try:
            await self.store.conversations.of_message(message_id)  # one that was deleted is gone
            return await self.store.messages.peek(message_id)
        except NotFound:
            return None


class MissedReply:
    """A reply of which a subscriber has a part.

    Args:
        message: as it was when this was made.
        cursor: the last entry that the subscriber has, and how many characters of it; 0 is all of them.
    """

    def __init__(
        self,
        by: CatchUp,
        channel: str,
        socket: str,
        message_id: str,
        message: Open,
        cursor: tuple[int, int],
        delivery: Delivery,
    ) -> None:
        after, taken = cursor
        self.id = message_id
        # An end that others gave may have the number of a chunk that the starting connection saw, so it is told again.
        self.is_whole = 0 < message.seq <= after and message.status not in ENDED_BY_OTHERS and not taken
        self._by = by
        self._channel = channel
        self._socket = socket
        self._message = message
        self._after = after
        whole, begun = after - bool(taken), message.created / 1_000_000
        self._chunks = ChunkFrames(
            by.frames, channel, message_id, after=whole, offset=taken, delivery=delivery, begun=begun
        )
        self._number = -1  # of the last segment read
        self._ended = False
        self._reached = True  # whether all posts arrived

    async def run(self, give_up: float) -> None:
        """Post what is stored, until the end or until the rest comes live."""
        clock = self._by.clock
        wait_until = clock.monotonic() + AHEAD_SECONDS
        refused = False  # the last attempt to go live
        while clock.monotonic() < give_up:
            before = self._number
            async for page in self._by.store.log.pages(self.id, self._number):
                self._number = page[-1].number
                await self._post([event for segment in page for event in segment.events], page[-1].at)
            if self._ended or (self._number == -1 and self._message.status in TERMINAL):
                await self._end()
                return
            if refused and self._number == before:
                # No segment had stood in the way, so the subscription is gone, or was replaced by a later one.
                return
            if self._chunks.fed < self._after and clock.monotonic() < wait_until:
                refused = False
                await clock.sleep(PAUSE)
            elif await self._go_live():
                return
            else:
                refused = True
        raise StoreError("The reply could not be caught up with. Please subscribe again.")

    async def _go_live(self) -> bool:
        # Whoever posts the next segment begins with it, and knows of nothing that waits here.
        await self._send(self._chunks.rest())
        return await self._by.store.subscriptions.open_from(self._channel, self._socket, self.id, self._number + 1)

    async def _post(self, events: Sequence[Event], at: int) -> None:
        if events:
            self._ended = isinstance(events[-1], End)
            await self._send(self._chunks.feed(self._chunks.fed + 1, events, at / 1_000_000))

    async def _send(self, frames: Sequence[bytes]) -> None:
        for each in frames:
            # After one that did not arrive none may follow: the subscriber sees a gap when it gets what is live.
            self._reached = self._reached and await self._by.fan_out.post(self._socket, self._channel, each)

    async def _end(self) -> None:
        message = await self._by.store.messages.get(self.id)
        if not self._ended and self._after == 0 and message.content:
            # The log has expired, and the message is all there is to tell.
            await self._post([Text(message.content)], self._by.clock.now())
        await self._send(self._chunks.flush())
        end = self._by.frames.message_ended(self._channel, message)
        await self._by.fan_out.post(self._socket, self._channel, end)
