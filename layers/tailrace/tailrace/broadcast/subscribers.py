"""Posts what was stored of one reply to those who listen, to each at its own pace.

A subscriber has at most one post at a time; what is stored meanwhile goes into the next. So a slow one gets fewer and
larger frames, and delays nobody.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from tailrace.broadcast.chunk_frames import ChunkFrames
from tailrace.broadcast.delivery_frames import delivery_of
from tailrace.broadcast.fan_out import FanOut
from tailrace.broadcast.pending import CREATED, EveryChunk, Pending
from tailrace.broadcast.post_semaphore import PostSemaphore
from tailrace.broadcast.shared_delivery import DeliveryReader, SharedDelivery
from tailrace.clock import Clock
from tailrace.delivery import Progress
from tailrace.errors import where
from tailrace.events import Message
from tailrace.store import NEVER, Log, Subscription

logger = logging.getLogger(__name__)

Reader = EveryChunk | DeliveryReader

MOST_DELIVERIES: Final = 16
"""Deliveries of one reply that differ. Who asks for another one gets every chunk: what a delivery costs, it costs the
relay."""


class Subscriber:
    """One subscription that is being served.

    Attributes:
        before: a post for the same socket's earlier subscription, which ends first.
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
        frames: of the reply, wherever in it.
        pending: what was stored of it.
        log: where a delivery finds the beginning of a reply that it came late to.
        tasks: where running tasks are kept, for whoever shuts down.

    Attributes:
        looked: the newest segment that was stored before the last look for listeners.
        given: the newest segment that was given to anybody.
    """

    def __init__(
        self,
        message: Message,
        frames: ChunkFrames,
        pending: Pending,
        *,
        fan_out: FanOut,
        log: Log,
        clock: Clock,
        tasks: set[asyncio.Task[None]],
    ) -> None:
        self.looked = self.given = CREATED - 1
        self._message = message
        self._frames = frames
        self._pending = pending
        self._fan_out = fan_out
        self._log = log
        self._clock = clock
        self._tasks = tasks
        self._posts: set[asyncio.Task[None]] = set()
        self._semaphore = PostSemaphore(clock)
        self._subscribers: dict[str, Subscriber] = {}
        self._deliveries: dict[str, SharedDelivery] = {}

    async def serve(self, listeners: Sequence[Subscription], upto: int) -> None:
        """Give those who listen now, and nobody else, the segments up to a number.

        Raises:
            StoreError: what a delivery needs of the log cannot be read; nothing was given.
        """
        new = self._newcomers(listeners, upto)
        await self._prepare((subscription.delivery for _, subscription in new), upto)
        self.looked = upto
        subscribers = {each.socket: self._subscribers[each.socket] for each in listeners if not self._is_new(each)}
        for after, each in new:
            before = self._subscribers.get(each.socket)
            subscribers[each.socket] = Subscriber(each, self._reader(each, after), before.task if before else None)
        for socket, subscriber in self._subscribers.items():
            if subscribers.get(socket) is not subscriber:  # it unsubscribed, or subscribed anew
                subscriber.open = False
        self._subscribers = subscribers
        if subscribers:
            self.given = upto
        self._tidy()
        for shared in self._deliveries.values():
            shared.feed(upto)
        self._enter_all()

    def _newcomers(self, listeners: Sequence[Subscription], upto: int) -> list[tuple[int, Subscription]]:
        """Return who is new, and the segment up to which each has everything, in its order."""
        new: list[tuple[int, Subscription]] = []
        for subscription in listeners:
            first = subscription.starts.get(self._message.id)
            if first == NEVER or not self._is_new(subscription):
                continue  # it is being caught up by somebody else, or is served already
            after = self.given if first is None else max(first - 1, self.given)
            if subscription.delivery is None or after <= upto:  # otherwise at the next look, when its delivery is there
                new.append((after, subscription))
        return sorted(new, key=lambda each: each[0])

    def _is_new(self, subscription: Subscription) -> bool:
        subscriber = self._subscribers.get(subscription.socket)
        return subscriber is None or subscriber.since != subscription.since

    def _tidy(self) -> None:
        """Forget what everybody has, and the deliveries that nobody reads."""
        readers = [subscriber.reader for subscriber in self._subscribers.values() if subscriber.open]
        behind = [reader.after for reader in readers if isinstance(reader, EveryChunk)]
        self._pending.forget(min(behind, default=self.given))
        for text, shared in list(self._deliveries.items()):
            numbers = [
                reader.number for reader in readers if isinstance(reader, DeliveryReader) and reader.shared is shared
            ]
            if numbers:
                shared.forget(min(numbers))
            else:
                shared.paced.close()
                del self._deliveries[text]

    # ---- deliveries ----

    async def _prepare(self, asked: Iterable[str | None], upto: int) -> None:
        """Open what is asked for, and bring the segments up to a number to all that are open.

        Raises:
            StoreError: the log cannot be read.
        """
        for text in asked:
            if text is not None and text not in self._deliveries and len(self._deliveries) < MOST_DELIVERIES:
                self._deliveries[text] = self._open(text)
        for shared in list(self._deliveries.values()):
            seq = shared.fed.seq
            segments = self._pending.entries(seq, upto)
            if segments is None:  # it came before somebody asked, or was too much to keep
                stored = self._log.read(self._message.id, upto=upto)
                segments = [each async for each in stored if each.first_seq > seq and each.events]
            shared.waiting = deque(segments)
        self._pending.parts_are_wanted = any(shared.parts for shared in self._deliveries.values())

    def _open(self, text: str) -> SharedDelivery:
        delivery = delivery_of(text)
        begun = datetime.fromisoformat(self._message.created_at).timestamp()
        frames = self._frames.at(0, Progress(begun) if delivery.progress else None)
        return SharedDelivery(delivery, frames, clock=self._clock, released=self._enter_all)

    def _reader(self, subscription: Subscription, after: int) -> Reader:
        """Return the place of a subscriber who has the segments up to a number; it gets every chunk when there are too
        many deliveries already."""
        shared = self._deliveries.get(subscription.delivery or "")
        if shared is None:
            return EveryChunk(self._pending, after)
        shared.feed(after)
        return DeliveryReader(shared, self._pending.created if after < CREATED else None)

    # ---- posting ----

    def _enter_all(self) -> None:
        for subscriber in self._subscribers.values():
            self._enter(subscriber)

    def _enter(self, subscriber: Subscriber) -> None:
        """Post what there is for a subscriber when it is its turn, if nothing is being posted to it."""
        if subscriber.task is None and not subscriber.waits and subscriber.reader.has_more(self.looked):
            subscriber.waits = True
            self._semaphore.run(lambda: self._begin_post(subscriber))

    def _begin_post(self, subscriber: Subscriber) -> asyncio.Task[None] | None:
        subscriber.waits = False
        if not subscriber.open:
            return None
        subscriber.task = task = asyncio.ensure_future(self._post(subscriber))
        self._posts.add(task)
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._posted(subscriber, task))
        return task

    async def _post(self, subscriber: Subscriber) -> None:
        if subscriber.before is not None:
            await asyncio.wait((subscriber.before,))
            subscriber.before = None
        # Only now: what was stored while it waited goes into the same frame.
        for frame in await subscriber.reader.take(self.looked):
            if not (subscriber.open and await self._fan_out.post(subscriber.socket, self._frames.channel, frame)):
                subscriber.open = False
                return

    def _posted(self, subscriber: Subscriber, task: asyncio.Task[None]) -> None:
        self._posts.discard(task)
        self._tasks.discard(task)
        subscriber.task = None
        if task.cancelled():
            subscriber.open = False
        elif (error := task.exception()) is not None:
            subscriber.open = False
            logger.error("post failed", extra={"message_id": self._message.id, **where(error)})
        elif subscriber.open:
            self._enter(subscriber)
        if not self._posts:
            self._tidy()

    # ---- the end of it ----

    async def drain(self) -> None:
        """Give what deliveries hold back too, and wait until all is posted."""
        for shared in self._deliveries.values():
            shared.paced.flush()
        while self._posts or self._semaphore.waiting:
            await (asyncio.wait(self._posts) if self._posts else asyncio.sleep(0))

    async def leave(self) -> None:
        """Do the same, and leave all that is stored from now on to somebody else."""
        await self.drain()
        self._clear()

    def gave(self, upto: int) -> None:
        """Forget the segments up to a number: somebody else has given them."""
        self.given = self.looked = upto
        self._pending.forget(upto)

    def close(self) -> None:
        """Post nothing more."""
        self._semaphore.waiting.clear()
        for task in self._posts:
            task.cancel()
        self._clear()

    def _clear(self) -> None:
        for subscriber in self._subscribers.values():
            subscriber.open = False
        self._subscribers.clear()
        self._tidy()
