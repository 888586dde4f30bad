"""Pruning: what remains of conversations and messages that were deleted a while ago goes for good."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Final

from tailrace.store.dynamodb import Payload
from tailrace.store.items import DELETED, ConversationItem, Item, beside_prefix, message_id_of
from tailrace.store.table import MOST_KEYS, Key, Table
from tailrace.store.together import for_each

AT_ONCE: Final = 16
"""Conversations and messages that are deleted at a time."""


async def prune(table: Table, deleted_before: int, *, may_go_on: Callable[[], bool] = lambda: True) -> int:
    """Delete conversations that were soft-deleted before a moment, with their messages and logs, and messages that were
    deleted one by one.

    A conversation's own item goes last, so a prune that is cut is simply taken up by the next.

    Args:
        deleted_before: microseconds since 1970.
        may_go_on: asked before each of them.

    Returns:
        How many conversations were deleted.
    """

    async def delete(item: Payload) -> int:
        if item["sk"]["S"] != "C":
            await _delete_message(table, item)
            return 0
        await _delete_conversation(table, item)
        return 1

    return sum(await for_each(_due(table, deleted_before, may_go_on), delete, at_once=AT_ONCE))


async def _due(table: Table, deleted_before: int, may_go_on: Callable[[], bool]) -> AsyncIterator[Payload]:
    # What was created later cannot have been deleted before, so what is new is not even read.
    condition = (ConversationItem.sweep == DELETED) & (ConversationItem.created < deleted_before)
    async for entries in table.pages(condition, IndexName="by_sweep", ConsistentRead=False, Limit=MOST_KEYS):
        found = await table.get_all([_key_of(entry) for entry in entries], are_all_there=False)
        for item in found.values():
            if not may_go_on():
                return
            if "deleted" in item and int(item["deleted"]["N"]) < deleted_before:
                yield item


async def _delete_conversation(table: Table, conversation: Payload) -> None:
    partition = conversation["pk"]["S"]
    async for message in table.query((Item.pk == partition) & Item.sk.startswith("M#")):
        await _delete_message(table, message)
    # Of messages that are gone already, because this was cut before or because a writer came too late.
    parts = [_key_of(part) async for part in table.query((Item.pk == partition) & Item.sk.startswith("T#"))]
    grants = [_key_of(grant) async for grant in table.query(Item.pk == f"G#{partition[2:]}")]
    await table.delete_all([*parts, *grants, _key_of(conversation)])


async def _delete_message(table: Table, message: Payload) -> None:
    message_id = message_id_of(message["pk"]["S"], message["sk"]["S"])
    log = [_key_of(part) async for part in table.query(Item.pk == f"S#{message_id}")]
    beside = (Item.pk == message["pk"]["S"]) & Item.sk.startswith(beside_prefix(message["sk"]["S"]) + "#")
    parts = [_key_of(part) async for part in table.query(beside)]
    await table.delete_all([*log, *parts, _key_of(message)])


def _key_of(item: Payload) -> Key:
    return {"pk": item["pk"]["S"], "sk": item["sk"]["S"]}
