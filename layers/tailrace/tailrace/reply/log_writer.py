"""The writer of one stream's log: what buffers events and puts them as segments.

The buffer is put as one segment when the flush interval has passed or it has reached about 1 KB, with
one write in flight, so that what waits meanwhile goes into the next segment and a fast provider makes
larger ones. The interval is a short one while somebody reads along, a subscriber or a follower, and otherwise a
longer one, which costs a fifth of the writes.

While there is nothing to write, an empty segment now and then renews the lease.

Timers and callbacks instead of a task that waits: at ten flushes a second a stream costs one short
task per write and nothing in between.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Protocol

import msgspec

from tailrace.clock import Clock, Timer
from tailrace.errors import AppendConflict, StoreError, StreamEnded, TailraceError, where
from tailrace.events import TEXTS, Event, ToolCallDelta
from tailrace.ids import RandomBytes
from tailrace.store import LONGEST_REPLY, Log, Outcome

logger = logging.getLogger(__name__)

SEGMENT_BYTES: Final = 850
"""Buffered bytes that bring a flush forward: with its keys, a segment of that size is one write unit."""

LARGEST_SEGMENT: Final = 200_000
"""No segment takes more, so that it stays under DynamoDB's 400 KB an item."""

LARGEST_BUFFER: Final = 1_000_000
"""Bytes that may wait for the log; above it the relay waits before it reads on from the provider."""

READ_ALONG: Final = 0.1
"""Seconds between two flushes while somebody reads along."""

ALONE: Final = 0.5
"""Seconds between two flushes while nobody does. A stop from another device is found by a flush, and is to stop the
provider within a second; and this much of what its starter has seen may be lost when a process is killed."""

LOOK_SECONDS: Final = 1.0
"""Between two looks for followers while nobody reads along. One costs half a read unit."""

FOLLOWED_SECONDS: Final = 10.0
"""How long a follower's sign counts."""

SIGN_SECONDS: Final = 4.0
"""Between two signs of one follower: two may be late before it counts as gone. One costs a write unit."""


class Feed(Protocol):
    """Who is told what is stored. None of it may block or fail."""

    @property
    def is_heard(self) -> bool:
        """Whether there are subscribers, as far as is known."""
        ...

    def stored(self, number: int, first_seq: int, events: Sequence[Event]) -> None:
        """Segment ``number`` is stored."""
        ...

    def ended(self) -> None:
        """So is the terminal one."""
        ...

    def lost(self) -> None:
        """Somebody else ended the log."""
        ...


class LogWriter:
    """Appends to one log.

    Args:
        feed: is told what is stored.
        flush_interval: seconds between two flushes; ``READ_ALONG`` or ``ALONE`` when None.
        heartbeat: seconds of silence after which an empty segment is put.
    """

    def __init__(
        self,
        log: Log,
        message_id: str,
        *,
        clock: Clock,
        random_bytes: RandomBytes,
        flush_interval: float | None,
        heartbeat: float,
        feed: Feed | None = None,
    ) -> None:
        self._log = log
        self._message_id = message_id
        self._clock = clock
        self._random_bytes = random_bytes
        self._interval = flush_interval
        self._heartbeat = heartbeat
        self._feed = feed

        self._seq = 0  # of the last event that was pushed
        self._buffer: list[Event] = []
        self._buffered = 0  # bytes, estimated from above
        self._sending: list[Event] | None = None  # taken from the buffer for segment _number, not acknowledged yet
        self._sending_nonce = b""
        self._number = 0  # of the next segment
        self._last_flush = self._opened = clock.monotonic()
        self._timer: Timer | None = None
        self._beat_timer: Timer | None = None
        self._write: asyncio.Task[None] | None = None
        self._look: asyncio.Task[None] | None = None
        self._look_due = self._opened
        self._followed_until = 0.0
        self._lost: TailraceError | None = None
        self._on_lost: Callable[[], object] | None = None
        self._closed = False
        self._schedule_beat()

    @property
    def seq(self) -> int:
        """The number of the last event."""
        return self._seq

    @property
    def segments(self) -> int:
        """How many segments are stored and acknowledged."""
        return self._number

    @property
    def is_waiting(self) -> bool:
        """Whether something waits to be stored, or is being stored."""
        return bool(self._buffer) or self._write is not None

    @property
    def lost(self) -> TailraceError | None:
        """Why nothing can be appended any more: the stream was ended elsewhere, or the table is gone."""
        return self._lost

    def when_lost(self, call: Callable[[], object] | None) -> None:
        """Make ``call`` at once when a flush finds that nothing can be appended any more."""
        self._on_lost = call

    def push(self, events: Sequence[Event], size: int | None = None) -> int:
        """Number events, buffer them, and return the first one's seq.

        Args:
            size: an upper bound of their bytes in a segment, from whoever knows one.

        Raises:
            StreamEnded: the stream was ended elsewhere, or is being ended.
            StoreError: the table cannot be written.
        """
        if self._closed:  # also while it is not known whether the end was stored
            raise StreamEnded("The reply has already ended.")
        if self._lost is not None:
            raise self._lost
        first = self._seq + 1
        self._seq += len(events)
        self._buffer += events
        self._buffered += sum(map(_size, events)) if size is None else size
        if events and self._write is None:
            self._schedule()
        return first

    async def room(self) -> None:
        """Wait while too much is waiting for the log. Each write has the store's deadline, so this ends."""
        while self._buffered > LARGEST_BUFFER and self._lost is None and self._write is not None:
            await asyncio.wait((self._write,))

    async def stored(self) -> None:
        """Wait until all that was pushed is stored; it is not waited for the interval.

        Raises:
            StreamEnded: the stream was ended elsewhere.
            StoreError: the table cannot be written.
        """
        last = self._seq
        while self._acknowledged() < last:
            if self._lost is not None:
                raise self._lost
            if self._closed:
                raise StreamEnded("The reply has already ended.")
            self._start_write()
            if self._write is not None:
                await asyncio.wait((self._write,))

    def _acknowledged(self) -> int:
        """Return the number of the last event that is stored."""
        return self._seq - len(self._buffer) - len(self._sending or ())

    # ---- flushing ----

    def _schedule(self) -> None:
        """Flush now if there is enough, otherwise when the interval since the last flush has passed."""
        if self._buffered >= SEGMENT_BYTES:
            self._start_write()
        elif self._timer is None:
            due = self._last_flush + self._pace() - self._clock.monotonic()
            self._timer = self._clock.call_later(max(due, 0.0), self._start_write)

    def _pace(self) -> float:
        """Return the seconds between two flushes; look now and then whether somebody reads along."""
        if self._interval is not None:
            return self._interval
        if self._feed is not None and self._feed.is_heard:
            return READ_ALONG
        now = self._clock.monotonic()
        if now >= self._look_due and self._look is None:
            self._look = asyncio.ensure_future(self._look_for_followers())
            self._look.add_done_callback(self._looked)
        return READ_ALONG if now < self._followed_until else ALONE

    async def _look_for_followers(self) -> None:
        with suppress(StoreError):  # it is asked again, and until then nobody is known of
            at = await self._log.followed(self._message_id)
            age = FOLLOWED_SECONDS if at is None else (self._clock.now() - at) / 1_000_000
            self._followed_until = self._clock.monotonic() + FOLLOWED_SECONDS - age

    def _looked(self, look: asyncio.Task[None]) -> None:
        self._look = None
        # As long as a sign counts there is no need to look for the next one, but before it does not count any more.
        self._look_due = max(self._clock.monotonic() + LOOK_SECONDS, self._followed_until - SIGN_SECONDS)
        if not look.cancelled() and (error := look.exception()) is not None:
            logger.error("look failed", extra={"message_id": self._message_id, **where(error)})

    def _start_write(self) -> None:
        self._stop_timer()
        if self._write is None and self._lost is None and not self._closed:
            self._last_flush = self._clock.monotonic()
            self._write = asyncio.ensure_future(self._flush())
            self._write.add_done_callback(self._written)

    def _schedule_beat(self) -> None:
        # Weakly: a stream that was opened and forgotten must not keep itself alive; its lease runs out.
        writer = weakref.ref(self)
        due = self._last_flush + self._heartbeat - self._clock.monotonic()
        self._beat_timer = self._clock.call_later(due, lambda: _beat(writer()))

    def beat(self) -> None:
        """Put an empty segment if nothing was put for a while."""
        now = self._clock.monotonic()
        if self._closed or self._lost is not None or now - self._opened > LONGEST_REPLY:
            return
        if now - self._last_flush > self._heartbeat - 0.001:  # a timer may be early by a rounding
            self._last_flush = now
            self._start_write()
        self._schedule_beat()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _written(self, write: asyncio.Task[None]) -> None:
        self._write = None
        if write.cancelled():
            self._lose(StoreError("The reply could not be stored."))
        elif (error := write.exception()) is not None:
            if isinstance(error, TailraceError):
                self._lose(error)
            else:  # a bug: the log says where, the reader no more than this
                logger.error("flush failed", extra={"message_id": self._message_id, **where(error)})
                self._lose(StoreError("The reply could not be stored."))
        elif self._buffer and not self._closed:
            self._schedule()

    def _lose(self, error: TailraceError) -> None:
        if isinstance(error, AppendConflict):
            self._lost = StreamEnded("The reply has already ended.")
            if self._feed is not None:
                self._feed.lost()
        else:
            self._lost = error
        if self._on_lost is not None:
            self._on_lost()

    async def _flush(self) -> None:
        # What a failed write may or may not have stored is sent again under the same nonce, never dropped.
        if self._sending is None:
            self._sending = self._take()
            self._sending_nonce = self._random_bytes(8)
        first_seq = self._seq - len(self._buffer) - len(self._sending) + 1
        number = self._number
        await self._log.append(self._message_id, number, first_seq, self._sending, nonce=self._sending_nonce)
        events, self._sending = self._sending, None
        self._number = number + 1
        if self._feed is not None:
            self._feed.stored(number, first_seq, events)

    def _take(self) -> list[Event]:
        """Take from the buffer what fits into one segment."""
        taken = self._buffer
        if self._buffered <= LARGEST_SEGMENT:
            self._buffer, self._buffered = [], 0
            return taken
        size = count = 0
        while count < len(taken) and (not count or size + _size(taken[count]) <= LARGEST_SEGMENT):
            size += _size(taken[count])
            count += 1
        self._buffer = taken[count:]
        self._buffered -= size
        return taken[:count]

    # ---- ending ----

    async def close(self) -> None:
        """Put what is buffered, but for what fits into the terminal segment.

        Raises:
            AppendConflict: the stream was ended elsewhere.
            StoreError: the table cannot be written. This may be called again.
        """
        self._closed = True
        self._stop_timer()
        if self._look is not None:
            self._look.cancel()
            await asyncio.wait((self._look,))
        if self._beat_timer is not None:
            self._beat_timer.cancel()
        if self._write is not None:
            await asyncio.wait((self._write,))
        if isinstance(self._lost, StreamEnded):
            raise AppendConflict(self._lost.message)
        while self._sending is not None or self._buffered > LARGEST_SEGMENT:
            await self._flush()

    async def end(self, outcome: Outcome, end: Event) -> None:
        """Put the terminal segment and the message's end; only after ``close``.

        Raises:
            AppendConflict: the stream was ended elsewhere.
            StoreError: the table cannot be written. This may be called again.
        """
        # A fresh nonce each time: if an earlier attempt to end was applied after all, this one must lose
        # to it and report what is stored, not what it wanted.
        nonce = self._random_bytes(8)
        first_seq = self._seq - len(self._buffer) + 1
        events = [*self._buffer, end]
        feed = self._feed
        try:
            await self._log.end(
                self._message_id, self._number, first_seq, events, outcome, nonce=nonce, feeding=feed is not None
            )
        except AppendConflict:
            if feed is not None:
                feed.lost()
            raise
        self._seq += 1
        if feed is not None:
            feed.stored(self._number, first_seq, events)
            feed.ended()


def bytes_of_texts(count: int, text: str) -> int:
    """Return an upper bound of the bytes in a segment of so many pieces of text, which together are this one."""
    return 3 * count + (len(text) if text.isascii() else 4 * len(text))


def _size(event: Event) -> int:
    """Return an upper bound of the event's bytes in a segment."""
    if isinstance(event, TEXTS):
        return bytes_of_texts(1, event.text)
    if isinstance(event, ToolCallDelta):
        return 3 + len(event.id) + 4 * len(event.arguments)
    return 512 + 4 * sum(len(value) for value in msgspec.structs.astuple(event) if isinstance(value, str))


def _beat(writer: LogWriter | None) -> None:
    if writer is not None:
        writer.beat()
