"""Following a reply: its log from any cursor, then live, until its end. Needs nobody but the table.

Reads are the cheap, eventually consistent ones: numbered segments make a late read late and never wrong. Tailing
backs off while nothing comes. A writer that has been silent for longer than the lease is ended here, by the same
compare-and-append as the sweep's, so a reader does not wait for the sweep.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final

from tailrace.clock import Clock
from tailrace.errors import StoreError
from tailrace.events import TERMINAL, End, Event, Message
from tailrace.reply.open_replies import OpenReplies
from tailrace.store import Open, Store

QUICK: Final = 0.3
"""Seconds between two looks while text comes. Each costs half a read unit, or one when it brings more than 4 KB: less
than two units a second."""

SLOW: Final = 2.0
"""Seconds between two looks after a long silence."""

BACK_OFF: Final = 1.5

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

    @property
    def ended(self) -> bool:
        """Whether all of the log was read, up to the terminal event: now ask ``message``."""
        return self._ended

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
        """Return what is there beyond the cursor, and move it on. The terminal event is not among it.

        Raises:
            StoreError: the table cannot be read.
        """
        return await self._read(consistent=False)

    async def _read(self, *, consistent: bool) -> list[Batch]:
        batches: list[Batch] = []
        self._idle += 1
        async for segment in self._store.log.read(self._id, self._number, consistent=consistent):
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
        return batches

    async def follow(self) -> AsyncIterator[list[Batch]]:
        """Yield what is there, then what comes, until the reply has ended. Only after ``open``.

        Raises:
            StoreError: the table cannot be read.
        """
        while not self._ended:
            batches = await self.read()
            if batches:
                yield batches
            if not self._ended:
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
        await self._clock.sleep(min(QUICK * BACK_OFF**self._idle, SLOW))

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
        async for _ in self._store.log.read(self._id):
            return True
        return False
