"""What is stored of replies, without their content: what reports are made from.

A conversation's replies are one query of its partition. A day's are a range of the sort key in each of the owner's
conversations, since messages are ordered by their moment: that costs nothing when a reply is written, is exact, and
costs half a read unit for each conversation that the owner had by then, and what the day's messages weigh. A counter
for each day would cost two write units a reply, and a transaction that conflicts with every other end of that owner's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from pynamodb.expressions.condition import Condition

from tailrace.events import Message
from tailrace.store.dynamodb import Payload
from tailrace.store.items import ConversationItem, Item, conversation_key, message_record
from tailrace.store.log import LONGEST_REPLY
from tailrace.store.table import Table
from tailrace.store.together import for_each

AT_ONCE: Final = 16
"""Queries in flight for one report."""

AHEAD: Final = 3600 * 1_000_000
"""Microseconds that a reply's place in the order may be ahead of its moment, since places go on where a clock was set
back."""


class Replies:
    """Every method raises ``StoreError`` when DynamoDB gives no answer before the deadline."""

    def __init__(self, table: Table) -> None:
        self._table = table

    async def of_conversation(self, conversation_id: str) -> list[Message]:
        """Return the replies of a conversation, in order, with empty content."""
        return await self._query((Item.pk == conversation_key(conversation_id)["pk"]) & Item.sk.startswith("M#"))

    async def open_ids(self, conversation_id: str, *, now: int) -> AsyncIterator[str]:
        """Yield the ids of a conversation's replies that have not ended: no reply is older than an hour.

        Args:
            now: microseconds since 1970.
        """
        begin = max(0, now - LONGEST_REPLY * 1_000_000)
        places = Item.sk.between(f"M#{begin:014x}", f"M#{now + AHEAD:014x}")
        async for item in self._table.query((Item.pk == conversation_key(conversation_id)["pk"]) & places):
            if item["status"]["S"] == "pending" and "deleted" not in item:
                yield str(item["id"]["S"])

    async def between(self, owner: str, begin: int, end: int) -> list[Message]:
        """Return an owner's replies that were started from ``begin`` on and before ``end``, with empty content.

        By an index that is eventually consistent: those of a conversation made this moment may be missing.

        Args:
            begin, end: microseconds since 1970.
        """
        condition = (ConversationItem.owner == owner) & (ConversationItem.created < end)
        conversations = self._table.query(condition, IndexName="by_owner", ConsistentRead=False)
        found = await for_each(conversations, lambda item: self._of_day(item["pk"]["S"], begin, end), at_once=AT_ONCE)
        return [message for messages in found for message in messages]

    async def _of_day(self, partition: str, begin: int, end: int) -> list[Message]:
        places = Item.sk.between(f"M#{begin:014x}", f"M#{end + AHEAD:014x}")
        return await self._query((Item.pk == partition) & places, begin, end)

    async def _query(self, condition: Condition, begin: int = 0, end: int | None = None) -> list[Message]:
        return [
            message_record(item, "")
            async for item in self._table.query(condition, ConsistentRead=False)
            if _is_reply(item)
            and begin <= int(item["created"]["N"])
            and (end is None or int(item["created"]["N"]) < end)
        ]


def _is_reply(item: Payload) -> bool:
    """Whether a message is a reply that was started here, and not one that was added whole, or deleted."""
    started = "seq" in item or item["status"]["S"] == "pending"
    return item["role"]["S"] == "assistant" and started and "deleted" not in item
