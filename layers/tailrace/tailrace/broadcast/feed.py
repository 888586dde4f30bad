"""A reply's feed: sends what its writer stored to the channel's subscribers, in the background.

The writer never waits for it. It looks who listens a few times a second, and in between gives what is stored to those
whom it knows. After the last stored segment there is always a look that began later, and whoever is found by one is
given all that was stored since the look before. So whoever has subscribed before a segment was stored gets that
segment, which is what a catch-up relies on (``Subscriptions.open_from``). While nobody listens it looks once a second.

It works with timers and callbacks instead of a task that waits, as ``log_writer.py`` does: an idle feed costs nothing,
and is freed with its writer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import msgspec

from tailrace.aws.invoke import InvokeError, NotCalled
from tailrace.broadcast.fan_out import FanOut, Sent
from tailrace.broadcast.frames import Frames
from tailrace.broadcast.paged_fan_out import Batch, CallFunction
from tailrace.broadcast.segment_queue import CREATED, SegmentQueue
from tailrace.broadcast.subscribers import Subscribers
from tailrace.clock import Clock, Timer
from tailrace.errors import StoreError, where
from tailrace.events import Event, Message
from tailrace.ids import JITTER
from tailrace.store import Store

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = 0.3
"""Between two looks while somebody listens: how late the first chunk may be for whoever comes, and the last one for
whoever unsubscribes. A look costs as much as a post, and its answer a round trip of those who wait for the chunk."""

IDLE_SECONDS: Final = 1.0
"""Between two looks while nobody listens."""

DRAIN_SECONDS: Final = 1.0
"""How long after the reply's end its last chunks may take; then subscribers are told of the end all the same."""

LONGER_DRAIN_SECONDS: Final = 10.0
"""The same while the broadcast function posts, or the service refuses posts that get through later: a call that is
under way may take some seconds then, and another one follows with the last chunks."""

LEAVE_SECONDS: Final = 2.0
"""How long the relay's own posts may take before the broadcast function takes over."""

AGAIN_SECONDS: Final = (0.1, 1.0)
"""Between two calls of a function that has no environment free, at first and at most."""

MOST_SKIPPED: Final = 1000
"""Sockets that the broadcast function is asked to leave out because they did not read, and as many that are behind."""


class Feed:
    """Sends one reply. ``Broadcast.feed`` makes it; ``log_writer.py`` says what is stored.

    Args:
        message: the reply as it was created.
        except_socket: who is left out, or None.
        fed: notes that the last chunk was sent.
        limit: subscribers above which ``call_function`` is called instead of posting.
        call_function: calls the broadcast function, or None when there is none.
        tasks: where running tasks are kept, for whoever shuts down.
    """

    def __init__(
        self,
        message: Message,
        channel: str,
        except_socket: str | None,
        *,
        frames: Frames,
        fan_out: FanOut,
        store: Store,
        fed: Callable[[str], Awaitable[None]],
        clock: Clock,
        limit: int,
        call_function: CallFunction | None,
        tasks: set[asyncio.Task[None]],
    ) -> None:
        self._message = message
        self._channel = channel
        self._except_socket = except_socket
        self._store = store
        self._fed = fed
        self._clock = clock
        self._limit = limit
        self._call_function = call_function
        self._tasks = tasks

        self._queue = SegmentQueue(message, channel, frames, store.log)
        self._subscribers = Subscribers(self._queue, fan_out, clock, tasks)
        self._stored = CREATED  # the newest segment
        self._looked = CREATED - 1  # the newest that was stored before the last look
        self._handed_over = False
        self._has_listeners = True  # until a look has found none
        self._skip: list[str] = []
        self._behind: dict[str, int] = {}  # sockets that did not get the last batch, to what they need first
        self._idle_until = 0.0  # when it looks again, since nobody listened or could be looked for
        self._look_due = 0.0  # when it looks again, while it serves some; otherwise 0
        self._timer: Timer | None = None  # for the next look
        self._work: asyncio.Task[None] | None = None
        self._end_timer: Timer | None = None
        self._has_longer = False
        self._gave_up = False
        self._ended = False
        self._closed = False

    # ---- what the writer says, and asks ----

    @property
    def is_heard(self) -> bool:
        """Whether somebody listens, as far as is known."""
        return self._has_listeners and not self._closed

    def start(self) -> None:
        """Send ``MessageCreated``."""
        self._wake()

    def stored(self, number: int, first_seq: int, events: Sequence[Event]) -> None:
        """Take a segment that was stored. Never blocks and never fails."""
        if self._closed:
            return
        tells = self._queue.add(number, first_seq, events)
        self._stored = number
        if tells:
            try:
                self._wake()
            except Exception as error:
                self._fail(error)

    def ended(self) -> None:
        """The end is stored, and so is everything before it."""
        if self._closed or self._ended:
            return
        self._ended = True
        seconds = LONGER_DRAIN_SECONDS if self._handed_over else DRAIN_SECONDS
        self._end_timer = self._clock.call_later(seconds, self._give_up)
        self._wake()

    def lost(self) -> None:
        """Somebody else ended the reply, and tells of it: drop what was not sent yet."""
        if not self._ended:
            self._close()
            if self._work is not None:
                self._work.cancel()

    async def drain(self, seconds: float | None = None) -> None:
        """Wait until a reply that has ended is sent, or what remains of it was given up: about a second, some more
        while posts are refused.

        Args:
            seconds: after which it is given up in any case, since the process is about to go; its end is noted then.
        """
        timer = None if seconds is None else self._clock.call_later(max(seconds, 0.0), self._leave_rest)
        try:
            while self._work is not None:
                await asyncio.wait((self._work,))
        finally:
            if timer is not None:
                timer.cancel()

    # ---- one round: look, and give out ----

    def _wake(self) -> None:
        """Have a look if one is due. Otherwise those who are known are served, and there is a look in time."""
        if self._work is not None or self._closed:
            return
        now = self._clock.monotonic()
        due = now if self._ended else max(self._idle_until, self._look_due)
        if due - now > 0.001:  # less is a timer that was early by a rounding
            if now < self._look_due:
                self._subscribers.go_on(self._stored)
            if self._timer is None:
                self._timer = self._clock.call_later(due - now, self._fire)
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._work = asyncio.ensure_future(self._round())
        self._tasks.add(self._work)
        self._work.add_done_callback(self._round_done)

    def _fire(self) -> None:
        self._timer = None
        self._wake()

    def _round_done(self, work: asyncio.Task[None]) -> None:
        self._tasks.discard(work)
        self._work = None
        error = None if work.cancelled() else work.exception()
        if error is not None:
            self._fail(error)
        elif work.cancelled() and not self._gave_up:
            self._close()
        elif self._ended or self._queue.tells(self._looked, self._stored):
            self._wake()

    def _fail(self, error: BaseException) -> None:
        """Give up after a bug. The reply goes on; its subscribers catch up, and the sweep tells them of its end."""
        logger.error("feed failed", extra={"message_id": self._message.id, **where(error)})
        self._close()

    async def _round(self) -> None:
        is_last = self._ended
        try:
            if not self._gave_up:
                await self._give_out(is_last)
                if is_last:
                    await self._subscribers.drain()
        except StoreError as error:
            # Who listens is not known. What was stored is kept, and looked for again.
            logger.warning("feed cannot look", extra={"message_id": self._message.id, "reason": error.message})
            self._idle_until = self._clock.monotonic() + IDLE_SECONDS
        if is_last:
            self._close()
            try:
                await self._fed(self._message.id)
            except StoreError as error:  # the sweep does it
                logger.warning("feed not noted", extra={"message_id": self._message.id, "reason": error.message})

    async def _give_out(self, is_last: bool) -> None:
        upto = self._stored
        if not self._queue.tells(min(self._looked, self._subscribers.given), upto, is_end=is_last):
            return
        self._look_due = 0.0
        first, had = self._subscribers.had  # before they are left
        if not self._handed_over:
            most = None if self._call_function is None else self._limit + 2  # one too many, and the one left out
            listeners = [
                subscription
                async for subscription in self._store.subscriptions.of_channel(self._channel, limit=most)
                if subscription.socket != self._except_socket
            ]
            if self._call_function is None or len(listeners) <= self._limit:
                self._subscribers.serve(listeners, upto)
                self._has_listeners = bool(listeners)
                now = self._clock.monotonic()
                self._idle_until = 0.0 if listeners else now + IDLE_SECONDS
                self._look_due = now + LOOK_SECONDS if listeners else 0.0
            else:
                self._behind = await self._subscribers.leave(LEAVE_SECONDS)  # who know of what was stored before
                self._handed_over = self._has_listeners = True
        self._looked = upto
        if self._handed_over:
            await self._call(upto, first, had)
            if is_last and self._behind:
                await self._call(upto, *self._subscribers.had)

    # ---- many subscribers ----

    async def _call(self, upto: int, first: int, had: Mapping[str, int]) -> None:
        """Let the broadcast function post what was not given out yet. One call at a time keeps the order.

        Args:
            first, had: as ``Subscribers.had``.
        """
        behind, places = self._behind, {**had, **self._behind}
        pause, longest = AGAIN_SECONDS
        while True:
            # However it ends: what did not arrive is a gap, and is caught up by the cursor.
            self._subscribers.gave(upto)
            self._looked = upto
            try:
                answer = await self._call_once(first, upto, places)
                break
            except NotCalled as error:  # nobody got anything, so what is stored meanwhile goes with it
                logger.warning("hand-over waits", extra={"message_id": self._message.id, "reason": str(error)})
            except (InvokeError, msgspec.ValidationError) as error:
                logger.error("hand-over failed", extra={"message_id": self._message.id, "reason": str(error)})
                return
            await self._clock.sleep(pause * (0.5 + JITTER()))
            pause = min(2 * pause, longest)
            upto = self._stored
        # The next batch has this one for those who did not get it. Who did not get both has to catch up, unless it is
        # the service that refuses.
        again = [each for each in answer.dropped if answer.refused or each not in behind]
        self._behind = {each: places.get(each, first) for each in again[:MOST_SKIPPED]}
        self._skip = [*self._skip, *(each for each in answer.dropped if each not in self._behind)][-MOST_SKIPPED:]
        self._handed_over = answer.subscribers > self._limit or bool(self._behind)

    async def _call_once(self, first: int, last: int, places: Mapping[str, int]) -> Sent:
        assert self._call_function is not None
        batch = Batch(
            message_id=self._message.id,
            channel=self._channel,
            first=max(first, 0),
            last=last,
            created=self._message if CREATED in (first, *places.values()) else None,
            begins=first == CREATED,
            except_socket=self._except_socket,
            skip=frozenset(self._skip),
            behind=places,
        )
        return msgspec.convert(await self._call_function({"fan_out": msgspec.to_builtins(batch)}), Sent)

    # ---- the end ----

    def _give_up(self) -> None:
        if not self._handed_over and not self._has_longer and self._subscribers.are_refused:
            self._has_longer = True
            self._end_timer = self._clock.call_later(LONGER_DRAIN_SECONDS - DRAIN_SECONDS, self._give_up)
            return
        self._leave_rest()

    def _leave_rest(self) -> None:
        self._gave_up = True
        if self._work is not None:
            self._work.cancel()  # what remains is done by another one

    def _close(self) -> None:
        self._closed = True
        for timer in (self._timer, self._end_timer):
            if timer is not None:
                timer.cancel()
        self._subscribers.close()
