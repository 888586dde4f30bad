"""Long content: what does not lie in its message's own item."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from tailrace.store.dynamodb import Payload
from tailrace.store.items import PartItem, part_key, part_keys
from tailrace.store.table import Table

INLINE_BYTES: Final = 1024
"""Content up to this many bytes lies in its message's item. Longer content is put in items of its own
before the end's transaction, since a transaction costs twice the write units
(https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/transaction-apis.html)."""

PART_BYTES: Final = 350_000
"""One item of long content; an item may have 400 KB with its keys
(https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html)."""


async def store_content(
    table: Table, message_id: str, content: str, nonce: bytes, *, suffix: str = ""
) -> dict[str, Any]:
    """Return the message's attributes that hold its content, after putting what does not fit in it.

    The parts lie under the writer's nonce, so two that end a stream at once cannot mix theirs.
    """
    encoded = content.encode()
    if len(encoded) <= INLINE_BYTES:
        return {"content": content}
    parts = list(_parts(encoded))
    name = nonce.hex() + suffix
    for number, part in enumerate(parts):
        key = part_key(message_id, name, number)
        await table.put(PartItem(key["pk"], key["sk"], content=part).serialize())
    return {"parts": len(parts), "parts_nonce": name}


async def store_state(table: Table, message_id: str, state: str | None, nonce: bytes) -> dict[str, Any]:
    """The same for what a provider wants back with a message."""
    if state is None:
        return {}
    stored = await store_content(table, message_id, state, nonce, suffix="s")
    names = {"content": "state", "parts": "state_parts", "parts_nonce": "state_nonce"}
    return {names[name]: value for name, value in stored.items()}


async def read_contents(table: Table, items: Sequence[Payload]) -> list[str]:
    """Return the contents of messages' items, with the parts of all of them read together."""
    return [content for content, _ in await read_with_states(table, items, states=False)]


async def read_with_states(
    table: Table, items: Sequence[Payload], *, states: bool = True
) -> list[tuple[str, str | None]]:
    """Return the contents of messages' items, and what their providers want back, all read together."""
    contents = [part_keys(item) for item in items]
    kept = [part_keys(item, "state_parts", "state_nonce") if states else [] for item in items]
    found = await table.get_all([key for keys in (*contents, *kept) for key in keys])

    def joined(keys: Sequence[dict[str, str]]) -> str:
        return "".join(found[key["pk"], key["sk"]]["content"]["S"] for key in keys)

    return [
        (
            joined(content) if content else item.get("content", {}).get("S", ""),
            joined(state) if state else item.get("state", {}).get("S"),
        )
        for item, content, state in zip(items, contents, kept, strict=True)
    ]


def _parts(encoded: bytes) -> Iterable[str]:
    start = 0
    while start < len(encoded):
        end = min(start + PART_BYTES, len(encoded))
        while end < len(encoded) and encoded[end] & 0xC0 == 0x80:  # never inside a character
            end -= 1
        yield encoded[start:end].decode()
        start = end
