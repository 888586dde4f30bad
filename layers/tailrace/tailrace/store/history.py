"""A conversation's messages from the end, and what was deleted of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from tailrace.errors import Conflict, NotFound
from tailrace.events import Message, Role, Status, Step
from tailrace.store.content import PART_BYTES, NewestParts, missing_bytes
from tailrace.store.dynamodb import ConditionFailed, Payload
from tailrace.store.items import DELETED, Item, MessageItem, conversation_key, message_key
from tailrace.store.messages import Messages, places
from tailrace.store.table import Table
from tailrace.store.together import both

PAGE: Final = 100
"""Messages that are read at a time from a conversation's end: most windows are one page."""

AT_ONCE_BYTES: Final = 3 * PART_BYTES
"""Long content that is read at a time."""


class History:
    """Every method raises ``StoreError`` when DynamoDB gives no answer before the deadline."""

    def __init__(self, table: Table, messages: Messages) -> None:
        self._table = table
        self._messages = messages

    async def newest_first(
        self,
        conversation_id: str,
        statuses: Collection[Status],
        *,
        at_once: int = PAGE,
        parts_at_once: int = PAGE,
        before: str | None = None,
    ) -> AsyncGenerator[tuple[Message | None, int, Sequence[Step]], None]:
        """Yield the messages of a conversation from its end, each with its ordinal, 1 for the conversation's first, 0
        where it was not counted; and with its steps. Pages and contents are read as far as they are
        taken.

        Args:
            statuses: of those that are read, beside those that another reply went on with; in the place of others and
                of deleted ones there is None.
            at_once: how many one query brings, ``PAGE`` at most.
            parts_at_once: how many items of long content are read along with them, ``PAGE`` at most; of those that
                this leaves out, what is wanted is read after them.
            before: the id of a message of the conversation; only those that come before it are read.
        """
        partition = conversation_key(conversation_id)["pk"]
        condition = (Item.pk == partition) & places(before)
        options: dict[str, Any] = {"ScanIndexForward": False, "Limit": min(at_once, PAGE)}
        parts = NewestParts(self._table, partition, min(parts_at_once, PAGE))
        oldest: str | None = None
        while True:
            (page, last), _ = await both(self._table.one_page(condition, **options), parts.read_on(oldest))
            missing = {
                item["id"]["S"]: missing_bytes(item, parts.found)
                for item in page
                if "deleted" not in item and (item["status"]["S"] in statuses or "continued" in item)
            }
            for items in _bounded(page, missing):
                wanted = [item for item in items if item["id"]["S"] in missing]
                read = await self._messages.read_with_states(wanted, found=parts.found)
                found = {each[0].id: each for each in read}
                for item in items:
                    message, state = found.get(item["id"]["S"], (None, ()))
                    yield message, int(item["ordinal"]["N"]) if "ordinal" in item else 0, state
            if last is None:
                return
            oldest, options["ExclusiveStartKey"] = last["sk"]["S"], last

    async def count(self, conversation_id: str) -> int:
        """Return how many messages a conversation has, as far as the writer of the newest one knew."""
        condition = (Item.pk == conversation_key(conversation_id)["pk"]) & Item.sk.startswith("M#")
        async for item in self._table.query(condition, ScanIndexForward=False, Limit=1):
            return int(item["ordinal"]["N"]) if "ordinal" in item else 0
        return 0

    async def recent(self, conversation_id: str, count: int, roles: Collection[Role] | None = None) -> list[Message]:
        """Return the last messages, in order; all of them if there are fewer.

        Args:
            roles: of these only; of any when None.
        """
        if count < 1:
            return []
        condition = (Item.pk == conversation_key(conversation_id)["pk"]) & Item.sk.startswith("M#")
        items: list[Payload] = []
        async for item in self._table.query(condition, ScanIndexForward=False, Limit=min(count, 100)):
            if "deleted" not in item and (roles is None or item["role"]["S"] in roles):
                items.append(item)
            if len(items) == count:
                break
        return await self._messages.read(items[::-1])

    async def delete(self, message_id: str, *, now: int, but: Role | None = None) -> None:
        """Mark a message as deleted, which hides it.

        Args:
            but: a message of this role is as good as not there.

        Raises:
            NotFound: there is none, or it was deleted.
            Conflict: it is a reply that is still being written.
        """
        ended = MessageItem.completed.exists() & MessageItem.deleted.does_not_exist()
        if but is not None:
            ended &= MessageItem.role != but
        try:
            await self._table.update(
                message_key(message_id),
                ended,
                [MessageItem.deleted.set(now), MessageItem.sweep.set(DELETED)],
            )
        except ConditionFailed as error:
            if (await self._messages.peek(message_id)).role == but:
                raise NotFound("No such message.") from error
            raise Conflict("The reply is still being written: cancel it first.") from error

    async def restore(self, message_id: str, *, but: Role | None = None) -> None:
        """Take back a deletion. Nothing is changed if there was none.

        Args:
            but: a message of this role is as good as not there.

        Raises:
            NotFound: there is no such message, or it was pruned.
        """
        there = MessageItem.id.exists() & MessageItem.deleted.exists()
        if but is not None:
            there &= MessageItem.role != but
        try:
            await self._table.update(
                message_key(message_id),
                there,
                [MessageItem.deleted.remove(), MessageItem.sweep.remove()],
            )
        except ConditionFailed as error:
            if (await self._messages.peek(message_id)).role == but:
                raise NotFound("No such message.") from error


def _bounded(items: Sequence[Payload], missing: Mapping[str, int]) -> Iterator[Sequence[Payload]]:
    """Yield the items in turn: together those of which nothing must be read, and then as many as have little that must.

    Whoever has enough with the first asks for no more.

    Args:
        missing: by the ids of messages, how many bytes of theirs are still to be read.
    """
    begin = size = 0
    for place, item in enumerate(items):
        more = missing.get(item["id"]["S"], 0)
        if more and not size and begin < place:
            yield items[begin:place]
            begin = place
        size += more
        if size >= AT_ONCE_BYTES:
            yield items[begin : place + 1]
            begin, size = place + 1, 0
    if begin < len(items):
        yield items[begin:]
