"""Conversations in the table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pynamodb.expressions.update import Action

from tailrace.errors import NotFound, Unprocessable
from tailrace.events import ConversationRecord, Json
from tailrace.store.dynamodb import ConditionFailed, Payload
from tailrace.store.identities import put_counted
from tailrace.store.items import DELETED, ConversationItem, conversation_key, conversation_record, message_key, to_json
from tailrace.store.table import Key, Table

LARGEST: Final = {"title": 20_000, "system": 180_000, "metadata": 90_000}
"""Bytes of each as stored. They lie in one item, which may have 400 KB
(https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html)."""


def conversation_item(conversation: ConversationRecord) -> Payload:
    """Return the item of a new conversation.

    Raises:
        Unprocessable: a text or the metadata are too long for its item.
    """
    return ConversationItem.serialized(
        conversation_key(conversation.id),
        id=conversation.id,
        owner=conversation.owner,
        created=conversation.created,
        updated=conversation.updated,
        title=_fitting("title", conversation.title),
        system=_fitting("system", conversation.system),
        metadata=_fitting("metadata", to_json(conversation.metadata)),
    )


class Conversations:
    """Every method raises ``StoreError`` when DynamoDB gives no answer before the deadline."""

    def __init__(self, table: Table) -> None:
        self._table = table

    async def put(
        self, conversation: ConversationRecord, *, identity: Payload | None = None, nonce: bytes = b""
    ) -> None:
        """Put a new conversation. Its id is fresh, so putting it again changes nothing.

        Args:
            identity: the update of what its owner has used, for the same transaction.
            nonce: 16 random bytes for that.

        Raises:
            Unprocessable: a text or the metadata are too long for its item.
            IdentityChanged: what its owner has used was changed by somebody else.
        """
        await put_counted(self._table, conversation_item(conversation), identity, nonce)

    async def get(self, conversation_id: str) -> ConversationRecord:
        """Return a conversation.

        Raises:
            NotFound: there is none, or it was deleted.
        """
        return await self._get(conversation_key(conversation_id), "conversation")

    async def of_message(self, message_id: str) -> ConversationRecord:
        """Return the conversation that a message is in.

        Raises:
            NotFound: there is none, or it was deleted.
        """
        return await self._get({"pk": message_key(message_id)["pk"], "sk": "C"}, "message")

    async def _get(self, key: Key, what: str) -> ConversationRecord:
        item = await self._table.get(key)
        if item is None or "deleted" in item:
            raise NotFound(f"No such {what}.")
        return conversation_record(item)

    async def list(self, owner: str, limit: int, cursor: str | None) -> tuple[list[ConversationRecord], str | None]:
        """Return an owner's conversations, newest first, and the cursor of the next page or None.

        Raises:
            RequestError: the cursor is not one of ours.
        """
        items, following = await self._table.page(
            ConversationItem.owner == owner,
            limit,
            cursor,
            size=lambda item: sum(len(item[name]["S"].encode()) for name in ("title", "metadata") if name in item),
            IndexName="by_owner",
            ScanIndexForward=False,
        )
        return [conversation_record(item) for item in items], following

    async def update(
        self, conversation_id: str, *, now: int, title: str | None = None, metadata: Json | None = None
    ) -> ConversationRecord:
        """Set what is not None.

        Raises:
            NotFound: there is no such conversation.
            Unprocessable: the title or the metadata are too long for its item.
        """
        actions: list[Action] = [ConversationItem.updated.set(now)]
        if title is not None:
            actions.append(ConversationItem.title.set(_fitting("title", title) or ""))
        if metadata is not None:
            actions.append(ConversationItem.metadata.set(_fitting("metadata", to_json(metadata)) or "{}"))
        return conversation_record(await self._update(conversation_id, actions))

    async def delete(self, conversation_id: str, *, now: int) -> None:
        """Mark a conversation as deleted, which hides it and its messages.

        Raises:
            NotFound: there is no such conversation.
        """
        await self._update(
            conversation_id,
            [
                ConversationItem.deleted.set(now),
                ConversationItem.sweep.set(DELETED),
                ConversationItem.former_owner.set(ConversationItem.owner),
                ConversationItem.owner.remove(),
            ],
        )

    async def restore(self, conversation_id: str, *, owner: str | None = None) -> ConversationRecord:
        """Take back a deletion. What was deleted of its messages one by one stays deleted.

        Args:
            owner: whose it must have been; anybody's when None.

        Raises:
            NotFound: no such conversation is deleted, it was somebody else's, or it was pruned.
        """
        condition = ConversationItem.deleted.exists() & ConversationItem.former_owner.exists()
        if owner is not None:
            condition &= ConversationItem.former_owner == owner
        actions = [
            ConversationItem.owner.set(ConversationItem.former_owner),
            ConversationItem.former_owner.remove(),
            ConversationItem.deleted.remove(),
            ConversationItem.sweep.remove(),
        ]
        try:
            item = await self._table.update(conversation_key(conversation_id), condition, actions)
        except ConditionFailed as error:
            raise NotFound("No such conversation.") from error
        return conversation_record(item)

    async def _update(self, conversation_id: str, actions: Sequence[Action]) -> Payload:
        there = ConversationItem.id.exists() & ConversationItem.deleted.does_not_exist()
        try:
            return await self._table.update(conversation_key(conversation_id), there, actions)
        except ConditionFailed as error:
            raise NotFound("No such conversation.") from error


def _fitting(name: str, text: str | None) -> str | None:
    """Return a text of a conversation.

    Raises:
        Unprocessable: it is too long for its item.
    """
    size = len((text or "").encode())
    if size > LARGEST[name]:
        raise Unprocessable(f"The {name} may have at most {LARGEST[name]} bytes as stored; this has {size}.")
    return text
