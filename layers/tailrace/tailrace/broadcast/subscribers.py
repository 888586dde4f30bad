"""Posts what was stored of one reply to those who listen, to each at its own pace.

At most one post to a subscriber is under way at a time, and what is stored meanwhile goes together in the next. So a
slow one gets fewer and larger frames, and delays nobody.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import aclosing
from typing import Final, Protocol

from tailrace.broadcast.fan_out import FanOut
from tailrace.broadcast.frames import Frames
from tailrace.broadcast.pending import CREATED, Pending
from tailrace.broadcast.post_semaphore import PostSemaphore
from tailrace.broadcast.shared_deliveries import DeliveryReader, SharedDeliveries, SharedDelivery
from tailrace.clock import Clock
from tailrace.errors import StoreError, where
from tailrace.events import Event, Message
from tailrace.store import NEVER, Log, Subscription

logger = logging.getLogger(__name__)


class Reader(Protocol):
    """A subscriber's place in what was stored."""

    def take(self, upto: int) -> list[bytes]:
        """Return the frames of what it has not had yet, up to a segment's number, and move on."""
        ...


PAGE_SEGMENTS: Final = 16
"""Segments that one query brings."""

PAGE_BYTES: Final = 256 * 1024
"""Bytes of segments, as they are packed, that are read from the log before they are posted."""


class EveryChunk:
    """Reads the segments as they were stored.

    Attributes:
        after: the last segment that was given to it.
    """

    def __init__(self, pending: Pending, after: int) -> None:
        self.after = after
        self._pending = pending

    @property
    def is_behind(self) -> bool:
        """Whether what comes next has been forgotten, and has to be read from the log."""
        return self.after < self._pending.forgotten

    async def read(self, log: Log, frames: Frames, channel: str, message_id: str) -> list[bytes]:
        """Return the frames of what has been forgotten, a page of them, and move on. What is not in the log either is
        passed over: the next frame shows the gap.

        Raises:
            StoreError: the log cannot be read.
        """
        found = [self._pending.created] if self.after < CREATED else []
        first_seq = size = 0
        events: list[Event] = []
        upto = self._pending.forgotten
        async with aclosing(log.read(message_id, max(self.after, CREATED), at_once=PAGE_SEGMENTS)) as segments:
            async for segment in segments:
                first_seq = first_seq or segment.first_seq
                events += segment.events
                size += segment.size
                self.after = segment.number
                if size >= PAGE_BYTES or segment.number >= upto:
                    break
        if not events:
            self.after = upto
            return found
        return found + frames.chunks(channel, message_id, first_seq, events, whole=True)

    def skip(self) -> None:
        """Pass over what has been forgotten."""
        self.after = max(self.after, self._pending.forgotten)

    def take(self, upto: int) -> list[bytes]:
        """Return the frames of the segments up to a number."""
        self.after, frames = self._pending.cut(self.after, upto)
        return frames


class Subscriber:
    """One subscription that is being served.

    Args:
        before: a post for the same socket's earlier subscription, which ends first.

    Attributes:
        task: the post that is under way.
        waits: whether it waits for its turn to be posted to.
        open: whether it gets anything more.
    """

    def __init__(self, subscription: Subscription, reader: Reader, before: asyncio.Task[None] | None) -> None:
        self.socket = subscription.socket
        self.since = subscription.since
        self.reader = reader
        self.before = before
        self.task: asyncio.Task[None] | None = None
        self.waits = False
        self.open = True


class Subscribers:
    """Posts what was stored of one reply to those who listen.

    Args:
        message: the reply as it was created.
        log: where a subscriber's delivery finds the beginning of a reply that it came late to.
        tasks: where running tasks are kept, for whoever shuts down.

    Attributes:
        looked: the newest segment that was stored before the last look for listeners.
        given: the newest segment that was given to anybody.
    """

    def __init__(
        self,
        message: Message,
        channel: str,
        pending: Pending,
        *,
        frames: Frames,
        fan_out: FanOut,
        log: Log,
        clock: Clock,
        tasks: set[asyncio.Task[None]],
    ) -> None:
        self.looked = CREATED - 1
        self.given = CREATED - 1
        self._id = message.id
        self._channel = channel
        self._pending = pending
        self._frames = frames
        self._log = log
        self._fan_out = fan_out
        self._tasks = tasks
        self._deliveries = SharedDeliveries(frames, channel, message, pending, log, clock, self._released)
        self._semaphore = PostSemaphore(clock)
        self._subscribers: dict[str, Subscriber] = {}
        self._closed = False

    async def serve(self, listeners: Sequence[Subscription], upto: int) -> None:
        """Give those who listen now, and nobody else, the segments up to a number.

        Raises:
            StoreError: what a delivery needs of the log cannot be read; nothing was given.
        """
        new = self._newcomers(listeners, upto)
        if self._deliveries or any(subscription.delivery is not None for _, subscription in new):
            await self._deliveries.prepare((subscription.delivery for _, subscription in new), upto)
        self.looked = upto
        subscribers = {each.socket: self._subscribers[each.socket] for each in listeners if not self._is_new(each)}
        for after, subscription in new:
            before = self._subscribers.get(subscription.socket)
            subscribers[subscription.socket] = Subscriber(
                subscription, self._reader(subscription, after), None if before is None else before.task
            )
        for socket, subscriber in self._subscribers.items():
            if subscribers.get(socket) is not subscriber:  # it unsubscribed, or subscribed anew
                subscriber.open = False
        self._subscribers = subscribers
        if subscribers:
            self.given = upto
        self._deliveries.keep(subscriber.reader for subscriber in subscribers.values() if subscriber.open)
        self._deliveries.feed(upto)
        for subscriber in subscribers.values():
            self._enter(subscriber)
        self._tidy()

    def _newcomers(self, listeners: Sequence[Subscription], upto: int) -> list[tuple[int, Subscription]]:
        """Return who is new, and the segment up to which each has everything, in its order."""
        new: list[tuple[int, Subscription]] = []
        for subscription in listeners:
            first = subscription.starts.get(self._id)
            if first == NEVER or not self._is_new(subscription):
                continue  # it is being caught up by somebody else, or is served already
            after = self.given if first is None else max(first - 1, self.given)
            if subscription.delivery is None or after <= upto:  # otherwise at the next look, when its delivery is there
                new.append((after, subscription))
        return sorted(new, key=lambda each: each[0])

    def _is_new(self, subscription: Subscription) -> bool:
        subscriber = self._subscribers.get(subscription.socket)
        return subscriber is None or subscriber.since != subscription.since

    def _reader(self, subscription: Subscription, after: int) -> EveryChunk | DeliveryReader:
        if subscription.delivery is not None:
            reader = self._deliveries.reader(subscription.delivery, after)
            if reader is not None:
                return reader
        return EveryChunk(self._pending, after)

    def _released(self, shared: SharedDelivery) -> None:
        for subscriber in self._subscribers.values():
            if isinstance(subscriber.reader, DeliveryReader) and subscriber.reader.shared is shared:
                self._enter(subscriber)

    def _enter(self, subscriber: Subscriber) -> None:
        """Post what there is for a subscriber when it is its turn, if nothing is being posted to it."""
        if subscriber.task is None and not subscriber.waits and subscriber.open:
            subscriber.waits = True
            self._semaphore.run(lambda: self._begin_post(subscriber))

    def _begin_post(self, subscriber: Subscriber) -> asyncio.Task[None] | None:
        subscriber.waits = False
        if not subscriber.open:
            return None
        if isinstance(subscriber.reader, EveryChunk) and subscriber.reader.is_behind:
            subscriber.task = asyncio.ensure_future(self._post_forgotten(subscriber, subscriber.reader))
        else:
            # Only now: what was stored while it waited goes into the same frame.
            frames = subscriber.reader.take(self.looked)
            if not frames:
                return None
            subscriber.task = asyncio.ensure_future(self._post(subscriber, frames))
        self._tasks.add(subscriber.task)
        subscriber.task.add_done_callback(lambda task: self._posted(subscriber, task))
        return subscriber.task

    async def _post(self, subscriber: Subscriber, frames: Sequence[bytes]) -> None:
        if subscriber.before is not None:
            await asyncio.wait((subscriber.before,))
            subscriber.before = None
        for frame in frames:
            if not subscriber.open:
                return
            if not await self._fan_out.post(subscriber.socket, self._channel, frame):
                subscriber.open = False

    async def _post_forgotten(self, subscriber: Subscriber, reader: EveryChunk) -> None:
        """Post what is only in the log any more, page by page, as fast as the subscriber takes it."""
        try:
            while subscriber.open and reader.is_behind:
                await self._post(subscriber, await reader.read(self._log, self._frames, self._channel, self._id))
        except StoreError as error:  # it goes on with what is here; the subscriber sees the gap, and may catch up
            logger.warning("segments not read", extra={"message_id": self._id, "reason": error.message})
            reader.skip()

    def _posted(self, subscriber: Subscriber, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        subscriber.task = None
        if task.cancelled():
            subscriber.open = False
        elif (error := task.exception()) is not None:
            subscriber.open = False
            logger.error("post failed", extra={"message_id": self._id, **where(error)})
        elif not self._closed:
            self._enter(subscriber)
            self._tidy()

    def _tidy(self) -> None:
        """Forget what everybody has."""
        readers = [subscriber.reader for subscriber in self._subscribers.values() if subscriber.open]
        behind = [reader.after for reader in readers if isinstance(reader, EveryChunk)]
        self._pending.forget(min(behind, default=self.given))
        if self._deliveries:
            self._deliveries.forget(readers)

    # ---- the end of it ----

    async def drain(self) -> None:
        """Give what deliveries hold back too, and wait until all is posted."""
        self._deliveries.flush()
        await self._semaphore.all_done()

    async def leave(self) -> None:
        """Do the same, and leave all that is stored from now on to somebody else."""
        await self.drain()
        self._subscribers.clear()
        self._deliveries.keep(())

    def gave(self, upto: int) -> None:
        """Forget the segments up to a number: somebody else has given them."""
        self.given = self.looked = upto
        self._pending.forget(upto)

    def close(self) -> None:
        """Post nothing more."""
        self._closed = True
        self._semaphore.close()
        for subscriber in self._subscribers.values():
            subscriber.open = False
        self._subscribers.clear()
        self._deliveries.keep(())
