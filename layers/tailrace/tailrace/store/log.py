"""The log of a stream: its segments, kept by compare-and-append, and its end."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Final

import msgspec

from tailrace.clock import Clock
from tailrace.errors import AppendConflict
from tailrace.events import Event, Json, Status, Usage
from tailrace.store.content import store_content, store_state
from tailrace.store.dynamodb import ConditionFailed, Payload, TransactionCancelled
from tailrace.store.items import (
    FollowedItem,
    Item,
    MessageItem,
    SegmentItem,
    followed_key,
    is_expired,
    message_key,
    segment_sort_key,
    serialized_segment,
    to_json,
)
from tailrace.store.segment import pack, unpack
from tailrace.store.table import Table, changes, expressions, key_of

# The same for every segment and every end, so they are built once.
_NOBODY_BEFORE: Final[Payload] = {
    "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    **expressions(condition=SegmentItem.pk.does_not_exist()),
}
_STILL_OPEN: Final = expressions(condition=MessageItem.status == "pending")

PAGE_BYTES: Final = 256 * 1024
"""Bytes of segments, as they are packed, that are read before something is done with them."""

LONGEST_REPLY: Final = 3600
"""Seconds; a segment is kept for the retention after the end of its reply, which is not known when it is put."""


class Segment(msgspec.Struct, frozen=True):
    """One item of a stream's log.

    Attributes:
        number: 0, 1, 2...
        first_seq: the seq of its first event.
        at: when it was written, microseconds since 1970.
        size: bytes of its packed events.
    """

    number: int
    first_seq: int
    at: int
    nonce: bytes
    events: Sequence[Event]
    size: int


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What the end of a stream writes into its message."""

    status: Status
    content: str
    seq: int
    metadata: Json
    private: Json | None = None
    provider: str | None = None
    model: str | None = None
    usage: Usage | None = None
    finish_reason: str | None = None
    error: Json | None = None
    completed: int
    state: str | None = None


class Log:
    """Every method raises ``StoreError`` when DynamoDB gives no answer before the deadline."""

    def __init__(self, table: Table, clock: Clock, retention: int) -> None:
        self._table = table
        self._clock = clock
        self._retention = retention

    async def append(
        self, message_id: str, number: int, first_seq: int, events: Sequence[Event], *, nonce: bytes
    ) -> None:
        """Compare-and-append: put segment ``number``, which must not exist. One write unit up to 1 KB.

        Args:
            nonce: fresh for these events, so that the writer knows its segment when an answer was lost.

        Raises:
            AppendConflict: somebody else's segment is there.
        """
        item, options = self._segment(message_id, number, first_seq, events, nonce, self._clock.now())
        try:
            await self._table.put(item, **options)
        except ConditionFailed as error:
            if not _is_ours(error.item, nonce):
                raise AppendConflict("The reply has already ended.") from error

    async def end(
        self,
        message_id: str,
        number: int,
        first_seq: int,
        events: Sequence[Event],
        outcome: Outcome,
        *,
        nonce: bytes,
        feeding: bool = False,
    ) -> None:
        """Put the terminal segment and the message's end in one transaction.

        Args:
            events: what was not stored yet, and the ``End`` as the last.
            nonce: 8 to 18 random bytes, fresh for this call.
            feeding: whether subscribers still have to get chunks before they are told of the end: then the
                message keeps the attributes ``feeding`` and ``sweep``, and ``Messages.fed`` removes them.

        Raises:
            AppendConflict: somebody else's segment is there, or the message has ended.
        """
        values = MessageItem.attributes(
            status=outcome.status,
            seq=outcome.seq,
            completed=outcome.completed,
            metadata=to_json(outcome.metadata),
            private=to_json(outcome.private),
            provider=outcome.provider,
            model=outcome.model,
            usage=to_json(outcome.usage),
            finish_reason=outcome.finish_reason,
            error=to_json(outcome.error),
            **await store_content(self._table, message_id, outcome.content, nonce),
            **await store_state(self._table, message_id, outcome.state, nonce),
        )
        update = changes(_STILL_OPEN, values, () if feeding else ("sweep", "feeding"))
        item, options = self._segment(message_id, number, first_seq, events, nonce, self._clock.now())
        writes = [
            {"Put": {"TableName": self._table.name, "Item": item, **options}},
            {"Update": {"TableName": self._table.name, "Key": key_of(message_key(message_id)), **update}},
        ]
        try:
            await self._table.transact(writes, token=nonce.hex())
        except TransactionCancelled as error:
            if not (error.reasons and _is_ours(error.reasons[0].get("Item"), nonce)):
                raise AppendConflict("The reply has already ended.") from error

    async def last_sign(self, message_id: str) -> tuple[int, int] | None:
        """Return the number of the newest segment, and when it was written in microseconds since 1970; None when there
        is none. One that has expired and is not deleted yet counts."""
        condition = (Item.pk == f"S#{message_id}") & Item.sk.between(segment_sort_key(0), "L~")
        async for item in self._table.query(condition, ScanIndexForward=False, Limit=1):
            return int(item["sk"]["S"][2:]), int(item["t"]["N"])
        return None

    async def follow(self, message_id: str) -> None:
        """Leave a sign for the writer that somebody reads along. One write unit."""
        now = self._clock.now()
        expires = now // 1_000_000 + LONGEST_REPLY
        await self._table.put(FollowedItem.serialized(followed_key(message_id), at=now, expires=expires))

    async def followed(self, message_id: str) -> int | None:
        """Return when somebody last read along, microseconds since 1970, or None; may be late. Half a read unit."""
        item = await self._table.get(followed_key(message_id), consistent=False)
        return None if item is None else int(item["t"]["N"])

    async def read(
        self,
        message_id: str,
        after: int = -1,
        *,
        upto: int | None = None,
        consistent: bool = True,
        at_once: int | None = None,
    ) -> AsyncGenerator[Segment, None]:
        """Yield the segments after number ``after``, in order, as long as they follow without a gap.

        An inconsistent read costs half; it may come late, and thanks to the numbers it is never wrong. A segment
        that has expired is as good as gone.

        Args:
            upto: the number of the last one that is wanted, or None for all.
            at_once: how many one query may bring, or None for as many as it can (1 MB): for who may stop early.
        """
        if upto is not None and upto <= after:
            return
        last = "L~" if upto is None else segment_sort_key(upto)
        condition = (Item.pk == f"S#{message_id}") & Item.sk.between(segment_sort_key(after + 1), last)
        options: dict[str, Any] = {"ConsistentRead": consistent} | ({} if at_once is None else {"Limit": at_once})
        async for item in self._table.query(condition, **options):
            number = int(item["sk"]["S"][2:])
            if number != after + 1 or is_expired(item, self._clock.now()):
                return
            after = number
            packed = b64decode(item["e"]["B"])
            yield Segment(
                number=number,
                first_seq=int(item["f"]["N"]),
                at=int(item["t"]["N"]),
                nonce=b64decode(item["n"]["B"]),
                events=unpack(packed),
                size=len(packed),
            )

    async def pages(
        self, message_id: str, after: int = -1, *, upto: int | None = None, at_once: int | None = None
    ) -> AsyncGenerator[list[Segment], None]:
        """Yield the same page by page, none of them empty, and only the last with less than ``PAGE_BYTES``."""
        page: list[Segment] = []
        size = 0
        async with aclosing(self.read(message_id, after, upto=upto, at_once=at_once)) as segments:
            async for segment in segments:
                page.append(segment)
                size += segment.size
                if size >= PAGE_BYTES:
                    yield page
                    page, size = [], 0
        if page:
            yield page

    def _segment(
        self, message_id: str, number: int, first_seq: int, events: Sequence[Event], nonce: bytes, now: int
    ) -> tuple[Payload, Payload]:
        """Return the item, and the condition that nobody was there before."""
        item = serialized_segment(
            message_id,
            number,
            nonce=nonce,
            first_seq=first_seq,
            at=now,
            events=pack(events),
            expires=now // 1_000_000 + LONGEST_REPLY + self._retention,
        )
        return item, _NOBODY_BEFORE


def _is_ours(item: Payload | None, nonce: bytes) -> bool:
    return item is not None and b64decode(item["n"]["B"]) == nonce
