"""Long content: what does not lie in its message's own item.

Most of it lies beside the messages: in their partition and their order, under a sort key of another kind. So whoever
reads a conversation's end has both from two queries at the same time, and a query for messages alone, such as a
report's, does not pay for it. What is longer than ``BESIDE_BYTES`` lies in the partition of its reply, and is read only
for a message that is wanted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from pynamodb.expressions.condition import Condition

from tailrace.store.dynamodb import Payload
from tailrace.store.items import (
    Item,
    PartItem,
    beside_key,
    beside_prefix,
    just_before,
    part_key,
    part_keys,
    state_keys,
)
from tailrace.store.table import Key, Table

INLINE_BYTES: Final = 1024
"""Content up to this many bytes lies in its message's item. Longer content is put in items of its own
before the end's transaction, since a transaction costs twice the write units
(https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/transaction-apis.html)."""

BESIDE_BYTES: Final = 65_536
"""Content up to this many bytes lies beside the messages, in one item. A query brings 1 MB, so it has that of 16
messages at least."""

PART_BYTES: Final = 350_000
"""One item of longer content; an item may have 400 KB with its keys
(https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html)."""

Found = Mapping[tuple[str, str], Payload]
"""Items by ``(pk, sk)``."""


def lay_out(message_id: str, content: str, nonce: bytes, *, suffix: str = "") -> tuple[dict[str, Any], list[Payload]]:
    """Return the message's attributes that hold its content or say where it lies, and the items that must be there
    before the message says so.

    They are under the writer's nonce, so two that end a stream at once cannot mix theirs. Those of the one that loses
    are named by no message; they go for good when the message does.
    """
    encoded = content.encode()
    if len(encoded) <= INLINE_BYTES:
        return {"content": content}, []
    name = nonce.hex() + suffix
    if len(encoded) <= BESIDE_BYTES:
        items = [_part(beside_key(message_id, name), content)]
        return {"beside": name, "content_bytes": len(encoded)}, items
    items = [_part(part_key(message_id, name, number), part) for number, part in enumerate(_parts(encoded))]
    return {"parts": len(items), "parts_nonce": name, "content_bytes": len(encoded)}, items


async def store_content(
    table: Table, message_id: str, content: str, nonce: bytes, *, suffix: str = ""
) -> dict[str, Any]:
    """Return the message's attributes that hold its content, after putting what does not fit in it."""
    attributes, items = lay_out(message_id, content, nonce, suffix=suffix)
    for item in items:
        await table.put(item)
    return attributes


async def store_state(table: Table, message_id: str, state: str | None, nonce: bytes) -> dict[str, Any]:
    """The same for what a provider wants back with a message."""
    if state is None:
        return {}
    stored = await store_content(table, message_id, state, nonce, suffix="s")
    names = {
        "content": "state",
        "beside": "state_beside",
        "parts": "state_parts",
        "parts_nonce": "state_nonce",
    }
    return {names[name]: value for name, value in stored.items() if name in names}


async def read_contents(table: Table, items: Sequence[Payload]) -> list[str]:
    """Return the contents of messages' items, with the parts of all of them read together."""
    return [content for content, _ in await read_with_states(table, items, states=False)]


async def read_with_states(
    table: Table, items: Sequence[Payload], *, states: bool = True, found: Found | None = None
) -> list[tuple[str, str | None]]:
    """Return the contents of messages' items, and what their providers want back, all read together.

    Args:
        found: parts that were read already.
    """
    contents = [part_keys(item) for item in items]
    kept = [state_keys(item) if states else [] for item in items]
    there = dict(found or {})
    missing = [key for keys in (*contents, *kept) for key in keys if _place(key) not in there]
    there.update(await table.get_all(missing))

    def joined(keys: Sequence[Key]) -> str:
        return "".join(there[_place(key)]["content"]["S"] for key in keys)

    return [
        (
            joined(content) if content else item.get("content", {}).get("S", ""),
            joined(state) if state else item.get("state", {}).get("S"),
        )
        for item, content, state in zip(items, contents, kept, strict=True)
    ]


def content_bytes(item: Payload) -> int:
    """Return how many bytes of content lie elsewhere than in a message's item, at most."""
    if "content_bytes" in item:
        return int(item["content_bytes"]["N"])
    return PART_BYTES * len(part_keys(item))  # stored before sizes were


def missing_bytes(item: Payload, found: Found) -> int:
    """Return how many bytes of a message's content and state must still be read, at most."""
    content, state = (
        [BESIDE_BYTES if key["pk"] == item["pk"]["S"] else PART_BYTES for key in keys if _place(key) not in found]
        for keys in (part_keys(item), state_keys(item))
    )
    return (content_bytes(item) if content == [BESIDE_BYTES] else sum(content)) + sum(state)


class NewestParts:
    """Reads the content that lies beside a conversation's messages, from its end, while they are read.

    What it does not bring is read by its keys when it is wanted, so it may be wrong about how much that will be, and
    its reads need not be consistent: a part never changes, and they cost half.

    Args:
        partition: the conversation's.
        at_once: how many items one query brings, and 1 MB at most.

    Attributes:
        found: what was read and not passed yet.
    """

    def __init__(self, table: Table, partition: str, at_once: int) -> None:
        self.found: dict[tuple[str, str], Payload] = {}
        self._table = table
        self._partition = partition
        self._at_once = at_once
        self._last: str | None = None
        self._is_all = False

    async def read_on(self, oldest: str | None) -> None:
        """Read what lies before a message, by its sort key, or from the conversation's end.

        Does nothing where that is here already, or where much of it is.
        """
        if oldest is not None:
            end = beside_prefix(oldest)
            self.found = {place: part for place, part in self.found.items() if place[1] < end}
        if self._is_all or 2 * len(self.found) >= self._at_once:
            return
        places: Condition = Item.sk.startswith("T#")
        if oldest is not None:
            # Where this is ahead of the messages it goes on, where it is behind they need no more of that.
            end = beside_prefix(oldest)
            places = Item.sk.between("T#", end if self._last is None else min(end, just_before(self._last)))
        parts, last = await self._table.one_page(
            (Item.pk == self._partition) & places,
            ConsistentRead=False,
            ScanIndexForward=False,
            Limit=self._at_once,
        )
        self.found.update({(part["pk"]["S"], part["sk"]["S"]): part for part in parts})
        self._is_all = last is None
        self._last = None if last is None else last["sk"]["S"]


def _part(key: Key, content: str) -> Payload:
    return PartItem.serialized(key, content=content)


def _place(key: Key) -> tuple[str, str]:
    return key["pk"], key["sk"]


def _parts(encoded: bytes) -> Iterable[str]:
    start = 0
    while start < len(encoded):
        end = min(start + PART_BYTES, len(encoded))
        while end < len(encoded) and encoded[end] & 0xC0 == 0x80:  # never inside a character
            end -= 1
        yield encoded[start:end].decode()
        start = end
