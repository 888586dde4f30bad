"""A conversation's messages from the end, and what was deleted of them."""

from __future__ import annotations

from collections.abc import Collection

from tailrace.errors import Conflict, NotFound
from tailrace.events import Message, Role
from tailrace.store.dynamodb import ConditionFailed, Payload
from tailrace.store.items import DELETED, Item, MessageItem, conversation_key, message_key
from tailrace.store.messages import Messages
from tailrace.store.table import Table


class History:
    """Every method raises ``StoreError`` when DynamoDB gives no answer before the deadline."""

    def __init__(self, table: Table, messages: Messages) -> None:
        self._table = table
        self._messages = messages

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
