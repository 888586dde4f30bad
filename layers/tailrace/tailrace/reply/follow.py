"""Following a reply: its log from any cursor, then live, until its end. Needs nobody but the table.

Reads are the cheap, eventually consistent ones: numbered segments make a late read late and never wrong. Tailing
backs off while nothing comes. A writer that has been silent for longer than the lease is ended here, by the same
compare-and-append as the sweep's, so a reader does not wait for the sweep.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from math import inf
from typing import Final

from tailrace.clock import Clock
from tailrace.errors import StoreError
from tailrace.events import TERMINAL, End, Event, Message
from tailrace.reply.log_writer import SIGN_SECONDS
from tailrace.reply.open_replies import OpenReplies
from tailrace.store import Open, Store

QUICK: Final = 0.3
"""Seconds between two looks while text comes. Each costs half a read unit, or one when it brings more than 4 KB: less
than two units a second."""

SLOW: Final = 2.0
"""Seconds between two looks after a long silence."""

BACK_OFF: Final = 1.5

LONGEST_PAGE: Final = 2_000
"""Entries after which a read stops and leaves the rest to the next one: some 300 KB as server-sent events."""

LARGEST_PAGE: Final = 256 * 1024
"""Bytes of packed entries, likewise."""

SEGMENTS_AT_ONCE: Final = 128
"""Of one query; they have about 1 KB each."""

Batch = tuple[int, Sequence[Event]]
"""The seq of the first event, and events that follow on each other."""


class Follower:
    """One reader of one reply.

    Args:
        after: the cursor: the last seq the reader has.
        lease: seconds of silence after which the writer counts as dead.
    """

    def __init__(
        self, store: Store, open_replies: OpenReplies, message_id: str, after: int, *, clock: Clock, lease: float
    ) -> None:
        self._store = store
        self._open_replies = open_replies
        self._id = message_id
        self._after = after
        self._clock = clock
        self._lease = lease
        self._number = -1  # of the last segment read
        self._sign_of_life = 0  # of the writer, microseconds since 1970
        self._idle = 0  # reads in a row that brought nothing
        self._ended = False
        self._has_more = False
        self._kept: list[Batch] = []  # read and not yet returned: less than one segment
        self._signed = -inf  # when the writer was last told that somebody reads along

    @property
    def has_more(self) -> bool:
        """Whether the last read stopped before the end of what is there."""
        return self._has_more or bool(self._kept)

    @property
    def ended(self) -> bool:
        """Whether all of the log was returned, up to the terminal event: now ask ``message``."""
        return self._ended and not self._kept

    @property
    def written(self) -> int:
        """When the last segment that was read was written, or the reply was opened; microseconds since 1970."""
        return self._sign_of_life

    async def open(self) -> Open:
        """Look at the message and return what is stored of it.

        Raises:
            NotFound: there is none.
            StoreError: the table cannot be read.
        """
        stored = await self._store.messages.peek(self._id)
        self._sign_of_life = max(self._sign_of_life, stored.created)
        if stored.status in TERMINAL:
            # Everything is there, unless the log has expired: then the message is all there is to tell.
            self._ended = stored.seq <= self._after or not await self._has_log()
        return stored

    async def read(self) -> list[Batch]:
        """Return a page of what is there beyond the cursor, and move it on. The terminal event is not among it.

        A page that lies before the cursor is empty, and ``has_more`` then says to go on.

        Raises:
            StoreError: the table cannot be read.
        """
        return await self._read(consistent=False)

    async def _read(self, *, consistent: bool) -> list[Batch]:
        if self._kept:
            return self._page(self._kept)
        batches: list[Batch] = []
        self._idle += 1
        self._has_more = False
        length = size = 0
        segments = self._store.log.read(self._id, self._number, consistent=consistent, at_once=SEGMENTS_AT_ONCE)
        async with aclosing(segments):
            async for segment in segments:
                self._number = segment.number
                self._idle = 0
                self._sign_of_life = segment.at
                events = segment.events
                if events and isinstance(events[-1], End):
                    self._ended = True
                    events = events[:-1]
                skip = max(0, self._after + 1 - segment.first_seq)
                if skip < len(events):
                    batches.append((segment.first_seq + skip, events[skip:]))
                    self._after = segment.first_seq + len(events) - 1
                length += len(events)
                size += segment.size
                if not self._ended and (length >= LONGEST_PAGE or size >= LARGEST_PAGE):
                    self._has_more = True
                    break
        return self._page(batches)

    def _page(self, batches: list[Batch]) -> list[Batch]:
        """Return the first of these, and keep the rest: one segment may have more than a page."""
        page: list[Batch] = []
        left = LONGEST_PAGE
        self._kept = []
        for first_seq, events in batches:
            if events[:left]:
                page.append((first_seq, events[:left]))
            if events[left:]:
                self._kept.append((first_seq + left, events[left:]))
            left = max(0, left - len(events))
        return page

    async def follow(self) -> AsyncGenerator[list[Batch], None]:
        """Yield what is there, page by page, then what comes, until the reply has ended. Only after ``open``.

        Raises:
            StoreError: the table cannot be read.
        """
        while not self.ended:
            batches = await self.read()
            if batches:
                yield batches
            if not (self.ended or self.has_more):
                await self.pause()

    async def pause(self) -> None:
        """Wait before the next ``read``: a moment while text comes, longer while it does not.

        Raises:
            StoreError: the table cannot be read.
        """
        if self._clock.now() - self._sign_of_life > self._lease * 1_000_000:
            await self._open_replies.interrupt(self._id)
            await self.open()
            self._sign_of_life = self._clock.now()  # it has an end now, or its writer lives after all
            self._idle = 0
        await self._tell_writer()
        await self._clock.sleep(min(QUICK * BACK_OFF**self._idle, SLOW))

    async def _tell_writer(self) -> None:
        """Leave a sign for the writer, which then stores what it has more often."""
        now = self._clock.monotonic()
        if now - self._signed >= SIGN_SECONDS and not self.ended:
            self._signed = now
            with suppress(StoreError):  # it is a wish
                await self._store.log.follow(self._id)

    async def message(self) -> Message:
        """Return the message as it ended.

        Raises:
            StoreError: it has not ended, or the table cannot be read.
        """
        message = await self._store.messages.get(self._id)
        if message.status not in TERMINAL:
            raise StoreError("The reply has not ended.")
        return message

    async def _has_log(self) -> bool:
        """Whether the log is still there: it expires from its beginning, so its first segment tells."""
        async with aclosing(self._store.log.read(self._id, at_once=1)) as segments:
            async for _ in segments:
                return True
        return False
