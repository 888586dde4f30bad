"""Pruning: what remains of conversations and messages that were deleted a while ago goes for good."""

from __future__ import annotations

from tailrace.store.dynamodb import Payload
from tailrace.store.items import DELETED, ConversationItem, Item, beside_prefix, message_id_of
from tailrace.store.table import Key, Table


async def prune(table: Table, deleted_before: int) -> int:
    """Delete conversations that were soft-deleted before a moment, with their messages and logs, and messages that were
    deleted one by one.

    A conversation's own item goes last, so a prune that is cut is simply taken up by the next.

    Args:
        deleted_before: microseconds since 1970.

    Returns:
        How many conversations were deleted.
    """
    pruned = 0
    async for entry in table.query(ConversationItem.sweep == DELETED, IndexName="by_sweep", ConsistentRead=False):
        item = await table.get(_key_of(entry))
        if item is None or "deleted" not in item or int(item["deleted"]["N"]) >= deleted_before:
            continue
        if entry["sk"]["S"] != "C":
            await _delete_message(table, entry)
            continue
        async for message in table.query((Item.pk == entry["pk"]["S"]) & Item.sk.startswith("M#")):
            await _delete_message(table, message)
        # Of messages that are gone already, because this was cut before or because a writer came too late.
        parts = [_key_of(part) async for part in table.query((Item.pk == entry["pk"]["S"]) & Item.sk.startswith("T#"))]
        grants = [_key_of(grant) async for grant in table.query(Item.pk == f"G#{entry['pk']['S'][2:]}")]
        await table.delete_all([*parts, *grants, _key_of(entry)])
        pruned += 1
    return pruned


async def _delete_message(table: Table, message: Payload) -> None:
    message_id = message_id_of(message["pk"]["S"], message["sk"]["S"])
    log = [_key_of(part) async for part in table.query(Item.pk == f"S#{message_id}")]
    beside = (Item.pk == message["pk"]["S"]) & Item.sk.startswith(beside_prefix(message["sk"]["S"]) + "#")
    parts = [_key_of(part) async for part in table.query(beside)]
    await table.delete_all([*log, *parts, _key_of(message)])


def _key_of(item: Payload) -> Key:
    return {"pk": item["pk"]["S"], "sk": item["sk"]["S"]}
