"""Posts what was stored of one reply to those who listen, to each at its own pace and as it asked for it.

A subscriber has at most one post at a time; what is stored meanwhile goes into the next. So a slow one gets fewer and
larger frames, and delays nobody. One whose posts are refused and get through later is posted to more seldom: an account
that makes too many posts makes fewer and larger ones.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from tailrace.broadcast.chunk_frames import delivery_of
from tailrace.broadcast.fan_out import PATIENCE as STUCK_SECONDS
from tailrace.broadcast.fan_out import SHORTEST_PAUSE, FanOut, PostSemaphore
from tailrace.broadcast.refusals import FEW
from tailrace.broadcast.segment_queue import CREATED, SegmentQueue, Stored
from tailrace.clock import Clock, Timer
from tailrace.delivery import Delivery, Found, Paced
from tailrace.errors import where
from tailrace.store import NEVER, Subscription

logger = logging.getLogger(__name__)

MOST_DELIVERIES: Final = 16
"""Deliveries of one reply that differ. Who asks for another one gets every chunk: what a delivery costs, it costs the
relay."""

PATIENCE: Final = 30.0
"""Seconds after which a post is not tried again. It may be long, since nobody waits for it: a try a second costs
little, and what is stored meanwhile is one frame more. Most that get through so late were refused by the service, which
does that to anybody when an account makes too many posts (``refusals.py``); where it refuses half of them, one in
100,000 is refused for ten seconds."""

SHORTER: Final = 0.8
"""A gap after a post that got through at once, by the one before. A refused try makes it twice as long."""


class Subscriber:
    """One subscription that is being served, and how far it is.

    Args:
        after: the newest segment that it needs not get.
        delivery: how it wants chunks; None for every chunk as it was stored.
        wake: called when time has passed, and there is something to take.

    Attributes:
        after: the newest segment that was given to it, and sent, that it has.
        open: whether it gets anything more.
        gap: seconds until the next post, since posts were refused lately and got through later.
        rest: while that time passes.
        tries_since: when its post was begun, while there is one.
    """

    def __init__(
        self,
        subscription: Subscription,
        after: int,
        delivery: Delivery | None,
        queue: SegmentQueue,
        clock: Clock,
        wake: Callable[[Subscriber], object],
    ) -> None:
        self.socket = subscription.socket
        self.since = subscription.since
        self.after = self.sent = after
        self.delivery = delivery
        self.open = True
        self.gap = 0.0
        self.rest: Timer | None = None
        self.tries_since: float | None = None
        self._queue = queue
        self._clock = clock
        self._wake = wake
        self._paced: Paced | None = None
        self._next_seq = 0  # of the entry that it is fed next; 0 before the first
        self._ready: list[bytes] = []

    def has_more(self, upto: int, *, is_end: bool) -> bool:
        """Return whether there is anything to take."""
        waits = bool(self._ready) or (is_end and self._paced is not None)
        return self.open and (waits or self._queue.tells(self.after, upto, is_end=is_end))

    async def take(self, upto: int, *, is_end: bool) -> list[bytes]:
        """Return the frames of the segments up to a number, and move on; of those that were dropped a page.

        Args:
            is_end: whether what a delivery holds back goes too.
        """
        found = [self._queue.created] if self.after < CREATED else []
        self.after, segments = await self._queue.read(self.after, upto)
        if self.delivery is None:
            return found + self._queue.frames(segments) if segments else found
        if segments and segments[0].first_seq != self._next_seq:
            await self._begin(self.delivery, segments[0])
        if self._paced is not None:
            for segment in segments:
                self._paced.feed(segment.first_seq, segment.events)
                self._next_seq = segment.first_seq + len(segment.events)
            if is_end and self.after == upto:
                self._paced.flush()
                self._paced = None
        found += self._ready
        self._ready = []
        return found

    async def _begin(self, delivery: Delivery, first: Stored) -> None:
        """Begin a delivery with a segment. Where sentences end, and the progress, depend on what came before it."""
        now = self._clock.monotonic()
        begun = now - (self._clock.now() - self._queue.begun) / 1_000_000
        place = self._queue.place(first, delivery, begun)
        async for segment in self._queue.before(first.number):
            place.feed(segment.first_seq, segment.events, now)

        def release(found: Sequence[Found]) -> None:
            self._ready += place.write(found, self._clock.monotonic())
            self._wake(self)

        if self._paced is not None:
            self._paced.close()
        self._paced = Paced(place.pieces, release, clock=self._clock)

    def posted(self, pause: float) -> None:
        """Have a longer or a shorter gap after a post.

        Args:
            pause: that its last try was waited for; 0 if the first was enough.
        """
        gap = pause or self.gap * SHORTER
        self.gap = 0.0 if gap < SHORTEST_PAUSE else gap

    def close(self) -> None:
        """Give it nothing more."""
        self.open = False
        if self.rest is not None:
            self.rest.cancel()
        if self._paced is not None:
            self._paced.close()
            self._paced = None


class Subscribers:
    """Posts what was stored of one reply to those who listen.

    Args:
        queue: what was stored of it.
        tasks: where running tasks are kept, for whoever shuts down.

    Attributes:
        given: the newest segment that was given to anybody.
    """

    def __init__(self, queue: SegmentQueue, fan_out: FanOut, clock: Clock, tasks: set[asyncio.Task[None]]) -> None:
        self.given = CREATED - 1
        self._known = CREATED - 1  # the newest that was given when the last look had told who listens
        self._queue = queue
        self._fan_out = fan_out
        self._clock = clock
        self._tasks = tasks
        self._semaphore = PostSemaphore(clock)
        self._subscribers: dict[str, Subscriber] = {}
        self._posts: dict[str, asyncio.Task[None]] = {}  # by socket: each has one at a time
        self._is_end = False

    @property
    def deliveries(self) -> set[Delivery]:
        """What they ask for, but for every chunk."""
        return {each.delivery for each in self._subscribers.values() if each.open and each.delivery is not None}

    def serve(self, listeners: Sequence[Subscription], upto: int) -> None:
        """Give those who listen now, as a look has told, and nobody else, the segments up to a number. Who is new gets
        what was given to others since the look before: it may have subscribed right after that."""
        self._is_end = False
        deliveries = self.deliveries
        before, self._subscribers = self._subscribers, {}
        for each in listeners:
            served = before.get(each.socket)
            first = each.starts.get(self._queue.message_id, self._known + 1)
            if served is not None and served.since == each.since:
                self._subscribers[each.socket] = before.pop(each.socket)
            elif first != NEVER:  # otherwise it is being caught up by somebody else
                delivery = None if each.delivery is None else delivery_of(each.delivery)
                if delivery is not None and len(deliveries | {delivery}) <= MOST_DELIVERIES:
                    deliveries.add(delivery)
                else:
                    delivery = None
                after = max(first - 1, self._known)
                if served is not None:  # it subscribed anew, and has what it had
                    after = max(after, served.after if served.open else served.sent)
                subscriber = Subscriber(each, after, delivery, self._queue, self._clock, wake=self._enter)
                self._subscribers[each.socket] = subscriber
        for gone in before.values():  # it unsubscribed, or subscribed anew
            gone.close()
        if self._subscribers:
            self.given = upto
        self._known = self.given
        self._forget()
        self._queue.parts_are_wanted = any(each.parts for each in self.deliveries)
        self._enter_all()

    def go_on(self, upto: int) -> None:
        """Give those who listened at the last look the segments up to a number."""
        self.given = upto
        self._forget()
        self._enter_all()

    def gave(self, upto: int) -> None:
        """Forget the segments up to a number: somebody else has given them."""
        self.given = self._known = upto
        self._queue.forget(upto)

    def _forget(self) -> None:
        """Drop what everybody has, and whoever is new will not need."""
        self._queue.forget(min([self._known, *(each.after for each in self._subscribers.values() if each.open)]))

    @property
    def had(self) -> tuple[int, dict[str, int]]:
        """What the last look did not tell: the first segment that whoever is new may need, and the sockets that have it
        already, to the first one that they have not been given."""
        if self._known == self.given:
            return self.given + 1, {}
        return self._known + 1, dict.fromkeys(self._subscribers, self.given + 1)

    @property
    def are_refused(self) -> bool:
        """Whether one in ten of those who listen was refused lately and got it later: then it is the service."""
        subscribers = [each for each in self._subscribers.values() if each.open]
        refused = sum(each.gap > 0 for each in subscribers)
        return 0 < len(subscribers) <= FEW * refused

    async def drain(self) -> None:
        """Give what deliveries hold back too, and wait until all is posted; not for who is stuck."""
        self._is_end = True
        self._enter_all()
        if not self.are_refused:
            stuck = self._clock.monotonic() - STUCK_SECONDS
            for each in self._subscribers.values():
                if each.tries_since is not None and each.tries_since <= stuck and each.socket in self._posts:
                    self._posts[each.socket].cancel()
        while self._posts:
            await asyncio.wait(self._posts.values())

    async def leave(self, seconds: float) -> dict[str, int]:
        """The same, for so long; then post nothing more, and return the sockets for which that was not enough, to the
        first segment that each needs."""
        behind: dict[str, int] = {}

        def cut() -> None:
            behind.update(
                {each.socket: each.sent + 1 for each in self._subscribers.values() if each.socket in self._posts}
            )
            for post in self._posts.values():
                post.cancel()

        timer = self._clock.call_later(seconds, cut)
        try:
            await self.drain()
        finally:
            timer.cancel()
        self.serve((), self.given)
        return behind

    def close(self) -> None:
        """Post nothing more."""
        for post in self._posts.values():
            post.cancel()
        self.serve((), self.given)

    # ---- posting ----

    def _enter_all(self) -> None:
        for subscriber in self._subscribers.values():
            self._enter(subscriber)

    def _enter(self, subscriber: Subscriber) -> None:
        """Post what there is for a subscriber, unless something is being posted to its socket, or it has a rest."""
        if subscriber.socket in self._posts or not subscriber.has_more(self.given, is_end=self._is_end):
            return
        if subscriber.rest is not None:
            if not self._is_end:
                return
            subscriber.rest.cancel()
            subscriber.rest = None
        post = asyncio.ensure_future(self._semaphore.run(lambda: self._post(subscriber)))
        self._posts[subscriber.socket] = post
        self._tasks.add(post)
        post.add_done_callback(lambda post: self._posted(subscriber, post))

    async def _post(self, subscriber: Subscriber) -> None:
        if not subscriber.open:
            return
        # Only now: what was stored while it waited goes into the same frame.
        for frame in await subscriber.take(self.given, is_end=self._is_end):
            if not subscriber.open:
                return
            subscriber.tries_since = self._clock.monotonic()
            outcome, pause = await self._fan_out.attempt(
                subscriber.socket,
                self._queue.channel,
                frame,
                patience=PATIENCE,
                pause=max(subscriber.gap, SHORTEST_PAUSE),
            )
            subscriber.tries_since = None
            if outcome != "sent":
                subscriber.close()
                return
            subscriber.posted(pause)
        subscriber.sent = subscriber.after

    def _posted(self, subscriber: Subscriber, post: asyncio.Task[None]) -> None:
        del self._posts[subscriber.socket]
        self._tasks.discard(post)
        error = None if post.cancelled() else post.exception()
        if error is not None:
            logger.error("post failed", extra={"message_id": self._queue.message_id, **where(error)})
        if error is not None or post.cancelled() or not subscriber.open:
            subscriber.close()
        if subscriber.open and subscriber.gap and not self._is_end:
            subscriber.rest = self._clock.call_later(subscriber.gap, lambda: self._rested(subscriber))
        # A later subscription of the same socket waits for the post too.
        if subscriber.socket in self._subscribers:
            self._enter(self._subscribers[subscriber.socket])

    def _rested(self, subscriber: Subscriber) -> None:
        subscriber.rest = None
        if self._subscribers.get(subscriber.socket) is subscriber:
            self._enter(subscriber)
