"""Ending a reply from outside its writer: the cancel from another device, and the sweep of orphans.

Both do what the writer does: they put the next segment, with the terminal event in it, in one transaction
with the message's status. If the writer was quicker they read on and try again; if the reply has ended they
report how. What they know of it is the log, so what they keep is exactly what every reader has seen.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from tailrace.clock import Clock
from tailrace.errors import AppendConflict, StoreError, TailraceError
from tailrace.events import TERMINAL, End, Event, Message
from tailrace.ids import RandomBytes
from tailrace.reply.ending import CANCELLED, INTERRUPTED, Ending, outcome
from tailrace.reply.totals import totals_of
from tailrace.store import Store

TRIES: Final = 50
"""Appends that may be lost to the writer. It puts at most ten segments a second; an attempt takes far less."""


logger = logging.getLogger(__name__)


class Swept(msgspec.Struct, frozen=True):
    """What a sweep did.

    Attributes:
        looked_at: open replies older than the lease.
        ended: those of them whose writer was gone.
        failed: those that could not be read or written now; the next sweep looks at them again.
    """

    looked_at: int
    ended: int
    failed: int


class OpenReplies:
    """Ends replies that somebody else writes.

    Args:
        lease: seconds of silence after which a writer counts as dead.
        keep_reasoning: whether messages keep the text of their reasoning.
    """

    def __init__(
        self, store: Store, *, clock: Clock, random_bytes: RandomBytes, lease: float, keep_reasoning: bool = True
    ) -> None:
        self._store = store
        self._clock = clock
        self._random_bytes = random_bytes
        self._lease = lease
        self._keep_reasoning = keep_reasoning

    async def cancel(self, message_id: str) -> Message:
        """End a reply as cancelled and return the message; one that has ended is returned as it ended.

        Raises:
            NotFound: there is no such message.
            StoreError: the table cannot be read or written.
        """
        await self._end(message_id, CANCELLED, silence=0.0)
        return await self._store.messages.get(message_id)

    async def interrupt(self, message_id: str) -> bool:
        """End a reply as interrupted if its writer has been silent for longer than the lease.

        Returns:
            Whether this ended it.

        Raises:
            NotFound: there is no such message.
            StoreError: the table cannot be read or written.
        """
        # One item tells of most writers that they live; reading the whole log is for those that do not.
        sign = await self._store.log.last_sign(message_id)
        if sign is not None and not self._is_silent(sign[1], self._lease):
            return False
        return await self._end(message_id, INTERRUPTED, silence=self._lease)

    async def sweep(self) -> Swept:
        """End all replies whose writer is gone, those of each shard one after the other, and all shards at the same
        time. Safe to run at any time, also twice at once.

        Raises:
            StoreError: a shard of the index cannot be read; the others were swept.
        """
        before = self._clock.now() - round(self._lease * 1_000_000)
        sweeping = (self._sweep(ids) for ids in self._store.messages.open_ids(before))
        swept = await asyncio.gather(*sweeping, return_exceptions=True)
        looked_at = ended = failed = 0
        for each in swept:
            if isinstance(each, BaseException):
                raise each
            looked_at, ended, failed = looked_at + each.looked_at, ended + each.ended, failed + each.failed
        return Swept(looked_at, ended, failed)

    async def _sweep(self, ids: AsyncIterator[str]) -> Swept:
        looked_at = ended = failed = 0
        async for message_id in ids:
            looked_at += 1
            try:
                ended += await self.interrupt(message_id)
            except TailraceError as error:  # one that cannot be ended must not keep the others waiting
                failed += 1
                logger.error("sweep failed", extra={"message_id": message_id, "reason": error.message})
        return Swept(looked_at, ended, failed)

    async def _end(self, message_id: str, ending: Ending, silence: float) -> bool:
        events: list[Event] = []
        number, first_written, newest = -1, None, None
        conflicts = 0
        for _ in range(TRIES):
            stored = await self._store.messages.peek(message_id)
            if stored.status in TERMINAL:
                if stored.feeding and silence:
                    # Its writer died, or was frozen, before its last chunks were sent: nobody waits for them any more.
                    await self._store.messages.fed(message_id)
                return False
            # From where the last try ended: whoever reads all of a long log again is later than the writer again.
            async for segment in self._store.log.read(message_id, number):
                number, newest = segment.number, segment.at
                if segment.events and first_written is None:
                    first_written = segment.at
                events += segment.events
            if events and isinstance(events[-1], End):
                return False
            if conflicts and newest is None and (last := await self._store.log.last_sign(message_id)) is not None:
                # Nothing can be read although something is there: the log has expired and is not deleted yet.
                number, newest = last
            if not self._is_silent(stored.created if newest is None else newest, silence):
                return False
            now = self._clock.now()
            totals = totals_of(events, started=stored.created, first_at=first_written, now=now)
            end = outcome(
                ending,
                totals,
                given=stored.metadata,
                private=stored.private,
                model=stored.model,
                completed=now,
                keep_reasoning=self._keep_reasoning,
            )
            terminal = [End(ending.status, ending.error_type, ending.error)]
            nonce = self._random_bytes(8)
            try:
                await self._store.log.end(message_id, number + 1, len(events) + 1, terminal, end, nonce=nonce)
            except AppendConflict:
                conflicts += 1  # the writer was quicker: read on
                continue
            return True
        raise StoreError("The reply could not be ended. Please try again.")

    def _is_silent(self, sign: int, silence: float) -> bool:
        return self._clock.now() - sign >= silence * 1_000_000
